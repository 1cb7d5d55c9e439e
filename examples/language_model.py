"""Language models of Python's own manual: an RNN, an LSTM and a GRU of equal size against an n-gram model.

The text is `pydoc_data.topics`, which every CPython ships; its last tenth is held out. The models predict each
character, or with --words each word, from all before it. They learn by truncated back-propagation through time with
Adam, all in NumPy around rnnkern's layers and `rnnkern.linear_cross_entropy`. The hidden sizes are chosen so that all
models have about as many parameters as the LSTM of --hidden units; the yardstick is an interpolated n-gram model with
modified Kneser-Ney smoothing of the same training part.

Words are runs of letters, digits and underscores, every other visible character, and the ends of paragraphs. Those
that the training part has less than twice are one word, <unk>.

The exit code is 0 if every LSTM and GRU (or the RNN, trained alone) ends below the n-gram model's perplexity.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import log, sqrt
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from arguments import add_plot, save
from kneser_ney import KneserNey
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from threadpoolctl import threadpool_limits

import rnnkern

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.floating]
Ids = NDArray[np.intp]
State = Any
"""What the layer takes and returns as its state."""
Curve = list[tuple[float, float]]
"""Seconds of training and held-out bits per symbol."""
CELLS = ("RNN", "LSTM", "GRU")
HEADINGS = ("units", "parameters", "bits", "perplexity", "seconds")


def manual() -> str:
    """The topics in the order of their names, without those that repeat parts of longer ones."""
    kept, seen = [], set[str]()
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        lines = {line.strip() for line in topics[name].splitlines() if len(line.strip()) > 25}
        if 4 * len(lines & seen) <= len(lines):
            kept.append(name)
            seen |= lines
    return "".join(topics[name] for name in sorted(kept))


class Corpus(NamedTuple):
    """A text as numbers of symbols: characters or words."""

    symbols: list[str]
    training: Ids
    held: Ids
    unit: str

    @classmethod
    def characters(cls, text: str) -> Corpus:
        symbols = sorted(set(text))
        return cls.split(symbols, [symbols.index(character) for character in text], "character")

    @classmethod
    def words(cls, text: str, least: int = 2) -> Corpus:
        """Symbol 0 is <unk>: the words seen less than `least` times in the training part."""
        words = [word if word.strip() else "\n\n" for word in re.findall(r"\w+|[^\w\s]|\n\n+", text)]
        counts = Counter(words[: len(words) * 9 // 10])
        symbols = ["<unk>", *sorted(word for word, count in counts.items() if count >= least)]
        number = {word: i for i, word in enumerate(symbols)}
        return cls.split(symbols, [number.get(word, 0) for word in words], "word")

    @classmethod
    def split(cls, symbols: list[str], ids: list[int], unit: str) -> Corpus:
        return cls(symbols, *np.split(np.array(ids), [len(ids) * 9 // 10]), unit)

    def text(self, ids: list[int]) -> str:
        return (" " if self.unit == "word" else "").join(self.symbols[i] for i in ids)


class LanguageModel:
    """Embedding (V, E), a recurrent layer, and the output layer (V, H) whose softmax predicts the next symbol."""

    def __init__(
        self,
        cell: str,
        size: int,
        embedding: int,
        hidden: int,
        dropout: float,
        seed: int,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.dropout = dropout
        self.layer = getattr(rnnkern, cell)(embedding, hidden, seed=seed, dtype=dtype)
        if cell == "LSTM":
            self.layer.weights["bias_ih_l0"][hidden : 2 * hidden] += 1  # remember at first (Gers et al. 2000)
        self.embedding = self.rng.normal(0, 0.1, (size, embedding)).astype(dtype)
        self.weight = self.rng.uniform(-1, 1, (size, hidden)).astype(dtype) / hidden**0.5
        self.bias = np.zeros(size, dtype)

    @property
    def parameters(self) -> dict[str, Array]:
        """Every live array by name."""
        return {"embedding": self.embedding, "weight": self.weight, "bias": self.bias, **self.layer.weights}

    def drop(self, shape: tuple[int, ...]) -> Array:
        """Factors of (inverted) dropout."""
        kept = self.rng.random(shape, np.float32) >= self.dropout
        return kept.astype(self.bias.dtype) / self.bias.dtype.type(1 - self.dropout)

    def gradients(self, ids: Ids, targets: Ids, state: State = None) -> tuple[float, dict[str, Array], State]:
        """Loss in nats, its gradient by each parameter, and the next window's state, of ids and targets (T, B)."""
        y, state, tape = self.layer.forward(self.embedding[ids], state)
        mask = self.drop(y.shape)
        loss, out = rnnkern.linear_cross_entropy(y * mask, self.weight, self.bias, targets, gradient=True)
        grads = self.layer.backward(tape, out.h * mask, wrt=("x", "weights"))
        dembedding = np.zeros_like(self.embedding)
        np.add.at(dembedding, ids, grads.x)
        return loss, {"embedding": dembedding, "weight": out.weight, "bias": out.bias, **grads.weights}, state

    def bits(self, ids: Ids) -> float:
        """Cross-entropy of all symbols but the first, each after all before it."""
        y, _ = self.layer(self.embedding[ids[:-1]])
        return float(rnnkern.linear_cross_entropy(y, self.weight, self.bias, ids[1:])) / log(2)

    def sample(self, first: int, steps: int, temperature: float) -> list[int]:
        """Symbols drawn one after the other, each fed back as the next input."""
        drawn: list[int] = []

        def draw(y: Array) -> Array:
            logits = y[0] @ self.weight.T + self.bias
            drawn.append(int(np.argmax(logits / temperature + self.rng.gumbel(size=len(logits)))))
            return self.embedding[drawn[-1:]]

        self.layer.freeze().stream().generate(self.embedding[[first]], draw, steps)
        return drawn


def equal_size(cell: str, size: int, embedding: int, lstm: int) -> int:
    """The units that give a cell's model as many parameters as an LSTM of so many units has.

    A model has V E parameters in its embedding, G H (E + H + 2) in a layer of G gates, and V (H + 1) at its output.
    """

    def terms(cell: str) -> tuple[int, int]:
        gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[cell]
        return gates, gates * (embedding + 2) + size

    square, linear = terms("LSTM")
    total = square * lstm**2 + linear * lstm
    square, linear = terms(cell)
    return round((sqrt(linear**2 + 4 * square * total) - linear) / (2 * square))


def clip_norm(gradients: Mapping[str, Array], limit: float) -> None:
    """Scale all gradients together, in place, to a norm of at most `limit` (Pascanu et al. 2013)."""
    norm = float(np.sqrt(sum(np.vdot(gradient, gradient) for gradient in gradients.values())))
    for gradient in gradients.values():
        gradient *= min(1.0, limit / (norm + 1e-6))


class Adam:
    """Kingma and Ba 2015, algorithm 1, on live arrays."""

    def __init__(self, parameters: Mapping[str, Array], beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.parameters, self.beta1, self.beta2, self.steps = parameters, beta1, beta2, 0
        self.moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in parameters.items()}

    def step(self, gradients: Mapping[str, Array], rate: float) -> None:
        self.steps += 1
        rate *= (1 - self.beta2**self.steps) ** 0.5 / (1 - self.beta1**self.steps)
        for name, parameter in self.parameters.items():
            gradient, (mean, square) = gradients[name], self.moments[name]
            mean += (1 - self.beta1) * (gradient - mean)
            square += (1 - self.beta2) * (gradient * gradient - square)
            parameter -= rate * mean / (np.sqrt(square) + 1e-8)


def windows(ids: Ids, batch: int, steps: int, rng: np.random.Generator) -> Iterator[tuple[bool, Ids, Ids]]:
    """Endlessly (start of an epoch, inputs, targets) of shape (steps, batch); each column reads on in the text."""
    length = len(ids) // batch
    while True:
        columns = np.roll(ids, rng.integers(len(ids)))[: length * batch].reshape(batch, length).T
        for start in range(0, length - steps, steps):
            yield start == 0, columns[start : start + steps], columns[start + 1 : start + steps + 1]


@threadpool_limits.wrap(limits=1, user_api="blas")  # the products around the layer are too small to share
def train(
    model: LanguageModel, ids: Ids, options: argparse.Namespace, progress: Progress, evaluate: Callable[[float], None]
) -> None:
    """Train for the epochs or minutes asked for, whichever end first; `evaluate` is told the seconds so far."""
    adam, state, started = Adam(model.parameters), None, time.perf_counter()
    per_epoch = (len(ids) // options.batch - 1) // options.steps
    total = max(1, round(options.epochs * per_epoch))
    bar = progress.add_task(type(model.layer).__name__, total=1.0)
    for count, (fresh, inputs, targets) in enumerate(windows(ids, options.batch, options.steps, model.rng)):
        seconds = time.perf_counter() - started
        done = max(count / total, seconds / (60 * options.minutes))
        progress.update(bar, completed=min(done, 1.0))
        if done >= 1 or (count and count % per_epoch == 0):
            evaluate(seconds)
        if done >= 1:
            return
        _, gradients, state = model.gradients(inputs, targets, None if fresh else state)
        clip_norm(gradients, 1.0)
        adam.step(gradients, options.rate * min(1.0, (count + 1) / 50) * (1 - done))


def plot(curves: Mapping[str, Curve], baseline: float, options: argparse.Namespace) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for cell, curve in curves.items():
        seconds, bits = np.array(curve).T
        axes.plot(seconds, 2**bits, marker=".", label=cell)
    axes.axhline(2**baseline, color="black", linestyle="--", label=f"{options.order}-gram, modified Kneser-Ney")
    unit = "word" if options.words else "character"
    axes.set(xlabel="seconds of training", ylabel=f"held-out perplexity per {unit}", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()
    return figure


WORDS = {"batch": 8, "steps": 32, "hidden": 256, "embedding": 128, "epochs": 12}
"""The settings for words, of which there are far fewer than characters."""
SHORT = {"hidden": 96, "dropout": 0.1, "rate": 6e-3, "epochs": 2, "order": 2}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])

    def add(name: str, default: float, meaning: str) -> None:
        for_words = f", {WORDS[name]} for words" if name in WORDS else ""
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} ({default}{for_words})")

    parser.add_argument("--cell", choices=CELLS, help="train only this one")
    parser.add_argument("--words", action="store_true", help="predict words, not characters")
    parser.add_argument("--short", action="store_true", help="small models, two epochs, against bigrams")
    add("order", 5, "of the n-gram model")
    add("hidden", 384, "units of the LSTM")
    add("embedding", 64, "size of a symbol's vector")
    add("dropout", 0.5, "before the output layer")
    add("batch", 16, "places of the text read at once")
    add("steps", 64, "length of back-propagation")
    add("rate", 3e-3, "learning rate, falling to zero")
    add("epochs", 16.0, "times that each reads the text")
    add("minutes", 4.5, "end each training earlier than that")
    add("temperature", 0.7, "of the sample's softmax")
    add("seed", 0, "of all random numbers")
    add_plot(parser, "the learning curves")
    chosen = parser.parse_args(argv)
    parser.set_defaults(**(WORDS if chosen.words else {}) | (SHORT if chosen.short else {}))
    options = parser.parse_args(argv)
    for name in ("order", "hidden", "embedding", "batch", "steps", "rate", "epochs", "minutes", "temperature"):
        if not vars(options)[name] > 0:
            parser.error(f"argument --{name}: must be above 0")
    if not 0 <= options.dropout < 1:
        parser.error("argument --dropout: must be at least 0 and below 1")
    return options


def main(argv: list[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    corpus = (Corpus.words if options.words else Corpus.characters)(manual())
    size, unit = len(corpus.symbols), corpus.unit
    if len(corpus.training) // options.batch <= options.steps:
        console.print(f"--batch times --steps is more than the {len(corpus.training):,} {unit}s", style="bold red")
        return 2
    console.print(f"{len(corpus.training):,} {unit}s to learn from, {len(corpus.held):,} held out, {size:,} different")
    ngrams = KneserNey(tuple(corpus.training.tolist()), options.order, size)
    baseline = ngrams.bits(tuple(corpus.held.tolist()))

    table = Table("model", *(Column(name, justify="right") for name in HEADINGS), title=f"held-out {unit}s")
    grams = f"{sum(map(len, ngrams.counts)):,} n-grams"
    table.add_row(f"{options.order}-gram", "", grams, f"{baseline:.3f}", f"{2**baseline:.2f}", "")
    curves: dict[str, Curve] = {}
    models: dict[str, LanguageModel] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for cell in [options.cell] if options.cell else CELLS:
            hidden = equal_size(cell, size, options.embedding, options.hidden)
            model = LanguageModel(cell, size, options.embedding, hidden, options.dropout, options.seed)
            curve: Curve = []

            def evaluate(seconds: float, cell: str = cell, model: LanguageModel = model, curve: Curve = curve) -> None:
                curve.append((seconds, model.bits(corpus.held)))
                progress.console.print(f"{cell:4} {seconds:6.1f} s  {curve[-1][1]:.3f} bits per held-out {unit}")

            train(model, corpus.training, options, progress, evaluate)
            models[cell], curves[cell] = model, curve
            parameters = sum(array.size for array in model.parameters.values())
            seconds, bits = curve[-1]
            table.add_row(cell, f"{hidden}", f"{parameters:,}", f"{bits:.3f}", f"{2**bits:.2f}", f"{seconds:.0f}")
    console.print(table)
    if options.plot:
        save(plot(curves, baseline, options), options.plot, console, dpi=110)

    best = min(curves, key=lambda cell: curves[cell][-1][1])
    console.rule(f"a sample of the {best}, temperature {options.temperature}")
    start = corpus.symbols.index("\n\n" if options.words else "\n")
    drawn = models[best].sample(start, 120 if options.words else 600, options.temperature)
    console.print(corpus.text(drawn), markup=False)
    console.rule()

    claimed = [cell for cell in curves if cell != "RNN" or options.cell == "RNN"]
    failed = [cell for cell in claimed if not curves[cell][-1][1] < baseline]
    for cell in failed:
        console.print(f"the {cell} is not below the {options.order}-gram model", style="bold red")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
