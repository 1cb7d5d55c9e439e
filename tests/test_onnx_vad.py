"""The example vad.py: the same probabilities as onnxruntime alone, and speech where it is."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

for module in ("onnx", "onnxruntime", "rich", "scipy"):
    pytest.importorskip(module, reason="the example runs it")


@pytest.fixture
def vad(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    example = importlib.import_module("vad")
    if not any(example.RECORDINGS.glob("*.wav")):
        pytest.skip("needs the recordings of Debian's package alsa-utils")
    try:
        metadata.distribution("silero-vad")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package silero-vad")
    return example


def test_speech_is_found(vad, tmp_path, capsys):
    picture = tmp_path / "vad.png"
    assert vad.main(["--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "Front_Center" in printed
    assert "where there is none: 0" in printed
    assert picture.stat().st_size > 1000
    assert "silero_vad" not in sys.modules  # of which only the model is needed


def test_a_difference_is_noticed(vad, monkeypatch):
    step = vad.Split.step
    monkeypatch.setattr(vad.Split, "step", lambda self, samples: step(self, samples) + 1.1e-5)
    assert vad.main([]) == 1


def test_nan_is_noticed(vad, monkeypatch):
    monkeypatch.setattr(vad.Split, "step", lambda self, samples: np.nan)
    assert vad.main([]) == 1


@pytest.mark.parametrize("seconds", [-0.7, 0.7])
def test_speech_elsewhere_is_noticed(vad, monkeypatch, seconds):
    scene = vad.scene

    def moved(sounds):
        sound, spans = scene(sounds)
        return sound, {name: (begin + seconds, end + seconds) for name, (begin, end) in spans.items()}

    monkeypatch.setattr(vad, "scene", moved)
    assert vad.main([]) == 1


def test_what_is_missing_is_named(vad, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        vad.main(["--recordings", str(tmp_path)])
    assert "apt-get install alsa-utils" in capsys.readouterr().err

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(vad.metadata, "distribution", missing)
    with pytest.raises(SystemExit, match="2"):
        vad.main([])
    assert "pip install --no-deps silero-vad" in capsys.readouterr().err


def test_heard_by_definition(vad):
    chunk = vad.CHUNK / vad.RATE
    probabilities = np.zeros(20)
    probabilities[[2, 6, 7, 8, 9, 17]] = vad.SPEECH
    parts, elsewhere = vad.heard(probabilities, {"a": (5.5 * chunk, 8.5 * chunk)})
    assert parts == {"a": 3 / 4}
    assert elsewhere == 2  # 2 and 17: 9 is within the hangover
