"""examples/language_model.py and the n-grams it is compared with."""

from __future__ import annotations

import re

import numpy as np
import pytest


@pytest.fixture
def language_model(load):
    return load("language_model")


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


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_gradients_by_finite_differences(language_model, cell):
    model = language_model.LanguageModel(cell, 7, embedding=3, hidden=4, dropout=0.0, seed=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    ids, targets = rng.integers(7, size=(2, 6, 5))
    state = rng.normal(size=(1, 5, 4))
    if cell == "LSTM":
        state = (state, rng.normal(size=(1, 5, 4)))
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


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_evaluation_is_the_loss_of_training(language_model, cell):
    model = language_model.LanguageModel(cell, 7, embedding=3, hidden=4, dropout=0.0, seed=1, dtype=np.float64)
    ids = np.random.default_rng(3).integers(7, size=40)
    nats, _, _ = model.gradients(ids[:-1, None], ids[1:, None])
    assert model.bits(ids) == pytest.approx(nats / np.log(2), rel=1e-12)


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


@pytest.mark.parametrize(("size", "embedding", "hidden"), [(100, 64, 384), (2500, 128, 256), (30, 5, 7)])
def test_equal_size(language_model, size, embedding, hidden):
    """No other number of units comes nearer."""

    def parameters(cell: str, units: int) -> int:
        model = language_model.LanguageModel(cell, size, embedding, units, dropout=0.0, seed=0)
        return sum(array.size for array in model.parameters.values())

    wanted = parameters("LSTM", hidden)
    for cell in ("RNN", "LSTM", "GRU"):
        units = language_model.equal_size(cell, size, embedding, hidden)
        found = {near: abs(parameters(cell, near) - wanted) for near in (units - 1, units, units + 1)}
        assert min(found, key=found.get) == units


def test_corpus_of_words(language_model):
    """What the first nine tenths have only once is unknown, and so is what only the last tenth has."""
    corpus = language_model.Corpus.words("a b(a b\n\n\n" * 9 + "once c a b. a\n\n")
    assert corpus.symbols == ["<unk>", "\n\n", "(", "a", "b"]
    assert corpus.unit == "word"
    assert corpus.text(corpus.training.tolist()).startswith("a b ( a b \n\n a b (")
    assert len(corpus.training) + len(corpus.held) == 9 * 6 + 7
    assert corpus.text(corpus.held.tolist()) == "<unk> <unk> a b <unk> a \n\n"


def test_samples_follow_the_temperature(language_model):
    """Cold ones take the likeliest symbol, and at 1 symbols come as often as the model says."""
    model = language_model.LanguageModel("GRU", 3, embedding=2, hidden=4, dropout=0.0, seed=0)
    model.weight[:] = 0
    model.bias[:] = np.log([0.5, 0.3, 0.2])
    assert set(model.sample(0, 50, 0.01)) == {0}
    shares = np.bincount(model.sample(0, 4000, 1.0), minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=5 * (0.25 / 4000) ** 0.5)


TABLE = r"(\d-gram|RNN|LSTM|GRU) +│ +(\d*) │ +([\d,]+)[^│]*│ +([\d.]+) │ +([\d.]+) │"
SMALL = ["--epochs", "0.3", "--hidden", "32", "--rate", "0.01", "--order", "2"]


def test_language_models(language_model, tmp_path, capsys):
    """Small models of each cell, not trained for long: the exit code says whether they are below the bigrams."""
    picture = tmp_path / "curves.png"
    code = language_model.main([*SMALL, "--plot", str(picture)])
    rows = {row[0]: row[1:] for row in re.findall(TABLE, capsys.readouterr().out)}
    assert list(rows) == ["2-gram", "RNN", "LSTM", "GRU"]
    sizes = [int(rows[cell][1].replace(",", "")) for cell in ("RNN", "LSTM", "GRU")]
    assert max(sizes) - min(sizes) < 0.02 * max(sizes)
    bits = {name: float(row[2]) for name, row in rows.items()}
    for name, row in rows.items():
        assert float(row[3]) == pytest.approx(2 ** bits[name], rel=1e-2)
    assert code == (not max(bits["LSTM"], bits["GRU"]) < bits["2-gram"])
    assert picture.stat().st_size > 1000


def test_language_model_of_words(language_model, load, capsys):
    """A small one ends between the unigrams and the bigrams."""
    assert language_model.main([*SMALL, "--words", "--cell", "GRU", "--temperature", "1"]) == 1
    printed = capsys.readouterr().out
    found = {row[0]: float(row[3]) for row in re.findall(TABLE, printed)}
    corpus = language_model.Corpus.words(language_model.manual())
    unigrams = load("kneser_ney").KneserNey(tuple(corpus.training.tolist()), 1, len(corpus.symbols))
    assert found["2-gram"] < found["GRU"] < unigrams.bits(tuple(corpus.held.tolist()))
    assert "the GRU is not below the 2-gram model" in printed


@pytest.mark.parametrize(
    "arguments", [["--temperature", "0"], ["--cell", "CNN"], ["--hidden", "-1"], ["--plot", "missing/x.png"]]
)
def test_language_model_bad_arguments(language_model, arguments, capsys):
    with pytest.raises(SystemExit):
        language_model.main(arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_language_model_beats_5_grams(language_model):
    assert language_model.main(["--cell", "LSTM"]) == 0
