"""examples/slot_filling.py on a small budget."""

import random
import re
from collections import Counter

import numpy as np
import pytest


@pytest.fixture
def slot_filling(load):
    module = load("slot_filling", "torch", "faker")
    import torch

    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


AMBIGUOUS = ("2nd", "may", "2")


def options(slot_filling, *arguments):
    return slot_filling.parse([*arguments])


def test_names_are_known_or_unknown(slot_filling):
    known, unknown = slot_filling.names(random.Random(0))
    parts = [set(part) for part in (*known, *unknown)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert len(known.towns) == len(known.people) > 3 * len(unknown.towns)
    assert len(unknown.towns) == len(unknown.people) > 100
    assert slot_filling.TOWN not in set.union(*parts)


def test_sentences(slot_filling):
    """Towns have their slot by what is before them, people in the same places have none."""
    rng = random.Random(0)
    known = slot_filling.Names(["townville"], ["anna"])
    sentences = slot_filling.generate(3000, known, rng)
    before = {0: Counter(), 1: Counter(), 2: Counter()}
    for sentence in sentences:
        for (word, slot), (previous, _) in zip(sentence[1:], sentence):
            if word in ("townville", "anna"):
                assert (slot == 0) == (word == "anna")
                before[slot][previous] += 1
    assert before[1]["to"] > 100 < before[2]["from"]
    assert not before[1]["from"] + before[2]["to"]
    for previous in ("to", "from", "leave", "visit"):
        town, person = before[1][previous] + before[2][previous], before[0][previous]
        assert abs(town - person) < 5 * (town + person) ** 0.5
    spoken = {" ".join(word for word, slot in sentence if slot in (3, 4)) for sentence in sentences}
    assert {"tomorrow", "noon", "half past 6", "next friday"} <= spoken
    slots = {
        word: {slot for sentence in sentences for spoken, slot in sentence if spoken == word} for word in AMBIGUOUS
    }
    assert slots == {"2nd": {0, 3}, "may": {0, 3}, "2": {0, 4}}


def test_trigrams(slot_filling):
    assert slot_filling.trigrams("taipei") == ["#ta", "tai", "aip", "ipe", "pei", "ei#"]
    assert slot_filling.trigrams("i") == ["#i#"]


@pytest.mark.parametrize("kind", ["one-hot", "hashing", "learned"])
def test_unknown_words(slot_filling, kind):
    """They are `other`, but have vectors of their own by hashing."""
    training = [[("fly", 0), ("to", 0), ("rome", 1)]]
    vocabulary = slot_filling.Vocabulary(kind, training, ["romeo", "oslo"], options(slot_filling))
    numbers = vocabulary.encode([("rome", 1), ("romeo", 0), ("oslo", 1)])[:, 0]
    assert vocabulary.encode(training[0])[:, 1].tolist() == [0, 0, 1]
    rome, romeo, oslo = vocabulary.vectors(numbers).detach().numpy()
    assert np.any(rome != romeo)
    if kind == "hashing":
        assert rome.sum() == 4
        assert romeo.sum() == 5
        assert np.minimum(rome, romeo).sum() == 3 > np.minimum(rome, oslo).sum()
        assert not vocabulary.rare.any()
    else:
        assert numbers[1] == numbers[2] == slot_filling.OTHER
        assert vocabulary.rare.tolist() == [False, True, True, True]


def test_feed_forward_sees_one_word(slot_filling):
    """The same word has the same logits anywhere, and the LSTM's depend on both sides."""
    from torch.nn.utils.rnn import pack_sequence

    sentences = [[(word, 0) for word in text.split()] for text in ("to x please", "from x please", "to x now")]
    vocabulary = slot_filling.Vocabulary("learned", sentences, [], options(slot_filling))
    packed = pack_sequence([vocabulary.encode(sentence) for sentence in sentences])
    for recurrent in (False, True):
        training = slot_filling.Training(vocabulary, recurrent, options(slot_filling))
        middle = training.model(packed, packed.data[:, 0])[3:6].detach().numpy()
        for other in middle[1:]:
            assert np.any(middle[0] != other) == recurrent


def test_f1_counts_words_of_slots(slot_filling, monkeypatch):
    import torch

    text = [("go", 0), ("to", 0), ("rome", 1), ("from", 0), ("oslo", 2), ("noon", 4)]
    vocabulary = slot_filling.Vocabulary("learned", [text], [], options(slot_filling))
    training = slot_filling.Training(vocabulary, False, options(slot_filling))
    for found, expected in (([0, 0, 1, 0, 2, 0], 1), ([0, 1, 1, 0, 0, 4], 0.5), ([0, 0, 2, 0, 1, 4], 0)):
        training.model.forward = lambda packed, ids, found=found: torch.eye(5)[found]
        assert training.f1([text]) == expected


def test_claims_can_fail(slot_filling):
    good = {
        (kind, lstm): slot_filling.Scores(0.97 if lstm else 0.5, 0.5, 0.9)
        for kind in slot_filling.WORDS
        for lstm in (0, 1)
    }
    good["hashing", True] = slot_filling.Scores(0.97, 0.7, 0.9)
    assert slot_filling.wrong(good) == []
    for key in good:
        for spoilt in (good[key]._replace(known=np.nan), good[key]._replace(known=0.9)):
            assert slot_filling.wrong({**good, key: spoilt})
    for change in ({"unknown": 0.54}, {"unknown": np.nan}, {"told_apart": 0.5}):
        assert slot_filling.wrong({**good, ("hashing", True): good["hashing", True]._replace(**change)})


def test_slot_filling(slot_filling, tmp_path, capsys):
    """Two epochs of 200 sentences are not enough."""
    picture = tmp_path / "slots.png"
    arguments = ["--sentences", "200", "--epochs", "2", "--hidden", "8", "--plot", str(picture)]
    assert slot_filling.main(arguments) == 1
    printed = capsys.readouterr().out
    assert len(re.findall(r"(?:one-hot|hashing|learned) +│ (?:LSTM|feed-forward)", printed)) == 6
    assert "one-hot: the LSTM's F1 with known names is below 0.95" in " ".join(printed.split())
    assert picture.stat().st_size > 10_000
