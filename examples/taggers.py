"""Taggers of sequences in PyTorch: a hidden Markov model, and a bidirectional LSTM with a softmax or a CRF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torchcrf import CRF
from word_tags import Sentence, follows, labels_of

POOL = 1024
"""Sentences among which those of about one length are put into a batch."""


# Data


class Alphabet:
    """Numbers of the characters and pairs of neighbours that occur more than once; 0 is for all others."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        texts = [sentence.text for sentence in sentences]
        self.characters = numbered(Counter(c for text in texts for c in text))
        self.pairs = numbered(Counter(pair for text in texts for pair in pairs_of(text)))

    def inputs(self, text: str) -> Tensor:
        """Each character, the pair that it ends and the one that it begins, (T, 3)."""
        pairs = [self.pairs.get(pair, 0) for pair in pairs_of(text)]
        return torch.tensor([[self.characters.get(c, 0) for c in text], pairs[:-1], pairs[1:]]).T


def pairs_of(text: str) -> list[str]:
    """Of all neighbours, the outside among them."""
    return [a + b for a, b in zip("^" + text, text + "$")]


def numbered(occurrences: Counter[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate((name for name, n in occurrences.items() if n > 1), 1)}


class Part:
    """Sentences, and the numbers of their inputs and labels."""

    def __init__(self, sentences: Sequence[Sentence], alphabet: Alphabet, labels: Sequence[str] = ()) -> None:
        self.sentences = sentences
        self.inputs = [alphabet.inputs(sentence.text) for sentence in sentences]
        number = {name: i for i, name in enumerate(labels)}
        self.labels = [torch.tensor([number[name] for name in labels_of(sentence)]) for sentence in sentences if labels]

    def batches(self, characters: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Numbers of sentences, about as many characters in each batch, and sentences of about one length."""
        found = []
        order = rng.permutation(len(self.sentences))
        for start in range(0, len(order), POOL):
            pool = np.array(sorted(order[start : start + POOL], key=lambda i: -len(self.inputs[i])))
            read = np.cumsum([len(self.inputs[i]) for i in pool])
            found += np.split(pool, 1 + np.flatnonzero(np.diff(read // characters)))
        return [found[i] for i in rng.permutation(len(found))]

    def packed(self, rows: Sequence[int]) -> tuple[PackedSequence, PackedSequence]:
        """Characters and labels of some sentences, the longest first."""
        return tuple(pack_sequence([tensors[row] for row in rows]) for tensors in (self.inputs, self.labels))


# Models


class MatrixCRF(CRF):
    """pytorch-crf's CRF, with the steps of the forward algorithm as products with exp(transitions), for speed."""

    def _compute_normalizer(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The log of the sum over all sequences (B), of scores (T, B, K) and a mask (T, B)."""
        transitions = self.transitions.exp()
        score = self.start_transitions + emissions[0]
        for scores, runs in zip(emissions[1:], mask[1:]):
            largest = score.detach().amax(dim=1, keepdim=True)
            following = ((score - largest).exp() @ transitions).log() + largest + scores
            score = torch.where(runs.unsqueeze(1), following, score)
        return (score + self.end_transitions).logsumexp(dim=1)


class Tagger(nn.Module):
    """Scores of K labels for each packed input, and what is done with them; without a CRF, each label by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.crf: CRF | None = None

    def forward(self, inputs: PackedSequence) -> PackedSequence:
        raise NotImplementedError

    def loss(self, inputs: PackedSequence, labels: PackedSequence) -> Tensor:
        """-log P(labels), mean over the inputs."""
        scores = self(inputs)
        if self.crf is None:
            return cross_entropy(scores.data, labels.data)
        padded, mask = padded_with_mask(scores)
        return -self.crf(padded, pad_packed_sequence(labels)[0], mask, reduction="token_mean")

    @torch.no_grad()
    def decode(self, inputs: PackedSequence) -> list[list[int]]:
        """The best labels of each sequence."""
        scores, mask = padded_with_mask(self(inputs))
        if self.crf is not None:
            return self.crf.decode(scores, mask)
        return [best[runs].tolist() for best, runs in zip(scores.argmax(dim=2).T, mask.T)]

    def marginals(self, inputs: PackedSequence) -> Tensor:
        """P(label | sequence) at each step, (T, B, K)."""
        with torch.no_grad():
            scores, mask = padded_with_mask(self(inputs))
        if self.crf is None:
            return scores.softmax(dim=2)
        # The forward-backward algorithm by autograd: the gradient of log P(labels) is [the label is there] - P(label).
        labels = torch.zeros(scores.shape[:2], dtype=torch.long)
        (gradient,) = torch.autograd.grad(self.crf(scores.requires_grad_(), labels, mask), scores)
        return one_hot(labels, scores.shape[2]) - gradient


def padded_with_mask(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """(T, B, ...) and (T, B)."""
    padded, lengths = pad_packed_sequence(packed)
    return padded, torch.arange(len(padded)).unsqueeze(1) < lengths


class BiLSTM(Tagger):
    """Of inputs (T, 3): a character, the pair of neighbours that it ends and the one that it begins."""

    def __init__(
        self, characters: int, pairs: int, labels: int, embedding: int, hidden: int, dropout: float, crf: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.pair_embedding = nn.Embedding(pairs, embedding)
        for table in (self.embedding, self.pair_embedding):
            nn.init.normal_(table.weight, std=0.1)  # most pairs are seen too seldom to outgrow PyTorch's 1
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(3 * embedding, hidden, bidirectional=True)
        self.out = nn.Linear(2 * hidden, labels)
        if crf:
            self.crf = MatrixCRF(labels)

    def forward(self, inputs: PackedSequence) -> PackedSequence:
        single, *pairs = inputs.data.T
        x = torch.cat([self.embedding(single), *map(self.pair_embedding, pairs)], dim=1)
        y, _ = self.lstm(inputs._replace(data=self.dropout(x)))
        return y._replace(data=self.out(self.dropout(y.data)))


class HMM(Tagger):
    """A CRF whose scores are logs of P(character | label) and P(label | label before)."""

    def __init__(self, characters: int, labels: Sequence[str], part: Part) -> None:
        """Count in a part with labels."""
        super().__init__()
        size = len(labels)
        emitted = torch.cat(part.labels) * characters + torch.cat(part.inputs)[:, 0]
        emissions = witten_bell(emitted.bincount(minlength=size * characters).view(size, characters))
        self.emissions = emissions.log().T

        outside = torch.tensor([size])
        stream = torch.cat([outside, *(torch.cat([sequence, outside]) for sequence in part.labels)])
        pairs = (stream[:-1] * (size + 1) + stream[1:]).bincount(minlength=(size + 1) ** 2).view(size + 1, size + 1)
        names = [*labels, None]
        possible = torch.tensor([[follows(label, before) for label in names] for before in names])
        between = witten_bell(pairs, possible).log()
        self.crf = CRF(size)
        with torch.no_grad():
            self.crf.transitions.copy_(between[:size, :size])
            self.crf.start_transitions.copy_(between[size, :size])
            self.crf.end_transitions.copy_(between[:size, size])

    def forward(self, inputs: PackedSequence) -> PackedSequence:
        return inputs._replace(data=self.emissions[inputs.data[:, 0]])


def witten_bell(counts: Tensor, possible: Tensor | bool = True) -> Tensor:
    """P(j | i) of counts (I, J), smoothed (Witten, Bell 1991): the more kinds of j after i, the likelier are others."""
    base = (counts.sum(dim=0) + 1.0) * (counts.new_ones(counts.shape) * possible)
    base /= base.sum(dim=1, keepdim=True)
    kinds = (counts > 0).sum(dim=1, keepdim=True)
    return (counts + kinds * base) / (counts.sum(dim=1, keepdim=True) + kinds)
