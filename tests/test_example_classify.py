"""examples/classify.py on a small budget."""

from __future__ import annotations

import re

import numpy as np
import pytest


@pytest.fixture
def classify(load):
    module = load("classify", "torch", "aeon")
    import torch

    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_classify_parts_are_the_recordings(classify):
    """Windows put together again are the recordings, standardised by the training part alone."""
    for source in classify.SOURCES.values():
        data = classify.load(source)
        training = np.concatenate(list(source.load(split="train")[0]), axis=1)
        for split, part in {"train": data.training, "test": data.test}.items():
            recordings, names = source.load(split=split)
            windows = part.windows or 1
            assert [data.classes[i] for i in part.labels] == [name for name in names for _ in range(windows)]
            for i, recording in enumerate(recordings):
                standardised = (recording.T - training.mean(axis=1)) / training.std(axis=1)
                found = np.concatenate(part.sequences[i * windows : (i + 1) * windows])
                np.testing.assert_array_equal(found, standardised.astype(np.float32))


def test_classify_recordings_decide_by_all_windows(classify):
    import torch

    probabilities = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.7, 0.3]])
    part = classify.Part([], torch.tensor([0, 0, 0, 0, 0, 0]), 3)
    assert classify.accuracy(probabilities.log() + 5, part.labels) == pytest.approx(4 / 6)
    assert classify.recording_accuracy(probabilities.log() + 5, part) == 0.5  # 0.036 < 0.144, 0.168 > 0.042


@pytest.mark.parametrize("arguments", [[], ["--no-accelerate"], ["--accelerate"]])
def test_classify_gives_the_same_classes(classify, arguments, tmp_path, capsys):
    picture = tmp_path / "classes.png"
    assert classify.main(["--epochs", "25", "--plot", str(picture), *arguments]) == 0
    rows = re.findall(r"(motions|vowels) +\S (PyTorch|rnnkern) +\S +[\d.]+ \S +([\d.]+) ", capsys.readouterr().out)
    ways = {"--no-accelerate": ["PyTorch"], "--accelerate": ["rnnkern"]}.get("".join(arguments), ["PyTorch", "rnnkern"])
    assert [row[:2] for row in rows] == [(name, way) for name in ("motions", "vowels") for way in ways]
    assert len({(name, accuracy) for name, _, accuracy in rows}) == 2
    assert picture.stat().st_size > 1000


def test_classify_notices_a_difference(classify, monkeypatch, capsys):
    """Weights that are wrong in one of a hundred places, and a training that is too short."""
    import torch

    def spoil(model):
        with torch.no_grad():
            model.lstm.weight_hh_l0[::10, ::10] += 1
        return model

    with monkeypatch.context() as patch:
        patch.setattr(classify.rnnkern.torch, "accelerate", spoil)
        assert classify.main(["vowels", "--epochs", "25"]) == 1
    assert re.search(r"vowels, rnnkern: \d+ of 370 test sequences get another class", capsys.readouterr().out)
    assert classify.main(["motions", "--epochs", "1"]) == 1
    assert "is not above 0.87" in capsys.readouterr().out
