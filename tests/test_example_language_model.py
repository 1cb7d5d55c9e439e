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
