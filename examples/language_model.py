"""A character language model: an LSTM trained on the text of Python's own manual, against a 5-gram model.

The text is `pydoc_data.topics`, which every CPython ships; its last tenth is kept apart. The model learns by truncated
back-propagation through time with Adam, all in NumPy around `rnnkern.LSTM`. The exit code is 0 if it ends below the
bits per character of the interpolated 5-gram model of the same training part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from math import log
from pydoc_data.topics import topics

import numpy as np
from kneser_ney import KneserNey
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

import rnnkern

Array = NDArray[np.floating]
Ids = NDArray[np.intp]
State = tuple[Array, Array]
Curve = list[tuple[float, float]]
"""Seconds of training and held-out bits per character."""


def manual() -> str:
    """The topics in the order of their names, without those that repeat parts of longer ones."""
    kept, seen = [], set[str]()
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        lines = {line.strip() for line in topics[name].splitlines() if len(line.strip()) > 25}
        if 4 * len(lines & seen) <= len(lines):
            kept.append(name)
            seen |= lines
    return "".join(topics[name] for name in sorted(kept))


def cross_entropy(logits: Array, targets: Ids) -> tuple[float, Array]:
    """Mean over N rows of (N, V) logits in nats, and its gradient, which overwrites them."""
    rows = np.arange(len(targets))
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[rows, targets]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - chosen))
    logits /= total
    logits[rows, targets] -= 1
    logits /= len(targets)
    return loss, logits


class LanguageModel:
    """Embedding (V, E), LSTM, and the output layer (V, H) whose softmax is the next character's distribution."""

    def __init__(
        self, size: int, embedding: int, hidden: int, dropout: float, seed: int, dtype: type[np.floating] = np.float32
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.dropout = dropout
        self.lstm = rnnkern.LSTM(embedding, hidden, seed=seed, dtype=dtype)
        self.lstm.weights["bias_ih_l0"][hidden : 2 * hidden] += 1  # remember at first (Gers et al. 2000)
        self.one_hot = np.eye(size, dtype=dtype)
        self.embedding = self.rng.normal(0, 0.1, (size, embedding)).astype(dtype)
        self.weight = self.rng.uniform(-1, 1, (size, hidden)).astype(dtype) / hidden**0.5
        self.bias = np.zeros(size, dtype)

    @property
    def parameters(self) -> dict[str, Array]:
        """Every live array by name."""
        return {"embedding": self.embedding, "weight": self.weight, "bias": self.bias, **self.lstm.weights}

    def drop(self, shape: tuple[int, ...]) -> Array:
        """Factors of (inverted) dropout."""
        kept = self.rng.random(shape, np.float32) >= self.dropout
        return kept.astype(self.bias.dtype) / self.bias.dtype.type(1 - self.dropout)

    def gradients(self, ids: Ids, targets: Ids, state: State | None = None) -> tuple[float, dict[str, Array], State]:
        """Loss in nats, its gradient by each parameter, and the next window's state, of ids and targets (T, B)."""
        y, state, tape = self.lstm.forward(self.embedding[ids], state)
        mask = self.drop(y.shape)
        h = (y * mask).reshape(-1, y.shape[-1])
        loss, dlogits = cross_entropy(h @ self.weight.T + self.bias, targets.ravel())
        grads = self.lstm.backward(tape, (dlogits @ self.weight).reshape(y.shape) * mask, wrt=("x", "weights"))
        one_hot = self.one_hot[ids.ravel()]
        dembedding = one_hot.T @ grads.x.reshape(len(one_hot), -1)
        return (
            loss,
            {"embedding": dembedding, "weight": dlogits.T @ h, "bias": dlogits.sum(axis=0), **grads.weights},
            state,
        )

    def bits_per_character(self, ids: Ids) -> float:
        """Cross-entropy of all characters of a text but the first, each after all before it."""
        y, _ = self.lstm(self.embedding[ids[:-1]])
        return cross_entropy(y @ self.weight.T + self.bias, ids[1:])[0] / log(2)

    def sample(self, first: int, steps: int, temperature: float = 0.7) -> list[int]:
        """Characters drawn one after the other, each fed back as the next input."""
        drawn: list[int] = []

        def draw(y: Array) -> Array:
            logits = y[0] @ self.weight.T + self.bias
            drawn.append(int(np.argmax(logits / temperature + self.rng.gumbel(size=len(logits)))))
            return self.embedding[drawn[-1:]]

        self.lstm.freeze().stream().generate(self.embedding[[first]], draw, steps)
        return drawn


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


@threadpool_limits.wrap(limits=1, user_api="blas")  # the products around the LSTM are too small to share
def train(
    model: LanguageModel, ids: Ids, options: argparse.Namespace, progress: Progress, evaluate: Callable[[float], None]
) -> None:
    """Train for the epochs or minutes asked for, whichever end first; `evaluate` is told the seconds so far."""
    adam, state, started = Adam(model.parameters), None, time.perf_counter()
    per_epoch = (len(ids) // options.batch - 1) // options.steps
    total = max(1, round(options.epochs * per_epoch))
    bar = progress.add_task("training", total=1.0)
    for count, (fresh, inputs, targets) in enumerate(windows(ids, options.batch, options.steps, model.rng)):
        seconds = time.perf_counter() - started
        done = max(count / total, seconds / (60 * options.minutes))
        progress.update(bar, completed=min(done, 1.0))
        if count and (count % per_epoch == 0 or done >= 1):
            evaluate(seconds)
        if done >= 1:
            return
        _, gradients, state = model.gradients(inputs, targets, None if fresh else state)
        clip_norm(gradients, 1.0)
        adam.step(gradients, options.rate * min(1.0, (count + 1) / 50) * (1 - done))


def plot(curve: Curve, baseline: float, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*zip(*curve), marker=".", label="LSTM (rnnkern)")
    axes.axhline(baseline, color="tab:orange", linestyle="--", label="5-gram, modified Kneser-Ney")
    axes.set(xlabel="seconds of training", ylabel="held-out bits per character")
    axes.legend()
    figure.savefig(path, dpi=150)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hidden", type=int, default=384, help="units of the LSTM (%(default)s)")
    parser.add_argument("--embedding", type=int, default=64, help="size of a character's vector (%(default)s)")
    parser.add_argument("--dropout", type=float, default=0.5, help="before the output layer (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="places of the text read at once (%(default)s)")
    parser.add_argument("--steps", type=int, default=64, help="length of back-propagation (%(default)s)")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate, falling to zero (%(default)s)")
    parser.add_argument("--epochs", type=float, default=16, help="times that the text is read (%(default)s)")
    parser.add_argument("--minutes", type=float, default=4.5, help="end the training earlier than that (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="FILE", help="draw the learning curve")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    text = manual()
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(character) for character in text])
    split = len(text) * 9 // 10
    console.print(f"{split:,} characters to learn from, {len(text) - split:,} held out, {len(alphabet)} different")
    baseline = KneserNey(text[:split], 5, len(alphabet)).bits_per_character(text[split:])
    console.print(f"5-gram model: {baseline:.3f} bits per held-out character")

    model = LanguageModel(len(alphabet), options.embedding, options.hidden, options.dropout, options.seed)
    console.print(f"LSTM model: {sum(array.size for array in model.parameters.values()):,} parameters")
    curve: Curve = []
    with Progress(BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console) as progress:

        def evaluate(seconds: float) -> None:
            curve.append((seconds, model.bits_per_character(ids[split:])))
            progress.console.print(f"{seconds:6.1f} s  {curve[-1][1]:.3f} bits per held-out character")

        train(model, ids[:split], options, progress, evaluate)
    console.rule("a sample")
    console.print("".join(alphabet[i] for i in model.sample(alphabet.index("\n"), 600)), markup=False)
    console.rule()
    if options.plot:
        plot(curve, baseline, options.plot)
    seconds, bits = curve[-1]
    console.print(f"{bits:.3f} bits per character after {seconds:.0f} s of training; the 5-gram model: {baseline:.3f}")
    return 0 if bits < baseline else 1


if __name__ == "__main__":
    raise SystemExit(main())
