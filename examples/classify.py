"""Sequence classifiers in plain PyTorch, trained with and without `rnnkern.torch.accelerate`.

One LSTM and a linear layer, Adam, a step-wise falling rate and clipped gradients learn two sets of real recordings that
the package aeon ships, each in its own split into training and test:

- motions (BasicMotions): four people walk, run, stand or play badminton with a smart watch, 6 channels at 10 Hz. Each
  recording of 10 s is cut into 20 windows of 5 steps, and a window is classified by itself: half a second of motion,
  often less than a stride. No recording has windows on both sides of the split, but the people may well be on both,
  and the windows of one recording resemble each other: the accuracy says nothing of new people, and is as uncertain
  as that of 40 recordings, not of 800 windows. The table also has the accuracy for whole recordings, whose windows
  decide together.
- vowels (JapaneseVowels): nine speakers, 12 cepstral coefficients, utterances of 7 to 29 steps in a `PackedSequence`.

The networks and batches are so small that much of the time goes into PyTorch around the LSTM: the optimiser, the loss,
the gathering of a batch. The speed-up is that of the whole training.

The exit code is 0 if both ways give every test sequence the same class, and are right more often than the nearest
neighbour by dynamic time warping.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from aeon.datasets import load_basic_motions, load_japanese_vowels
from arguments import add_plot, parse_with_short, save
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import rnnkern.torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Source(NamedTuple):
    """Where a data set comes from, and the accuracy to beat."""

    load: Callable[..., tuple[Any, Any]]
    window: int | None
    """Steps of the pieces that recordings are cut into."""
    nearest: float
    """Of aeon's KNeighborsTimeSeriesClassifier(n_neighbors=1, distance="dtw") for the same test sequences."""


SOURCES = {
    "motions": Source(load_basic_motions, 5, 0.87),
    "vowels": Source(load_japanese_vowels, None, 0.9486),
}


@dataclass(frozen=True)
class Part:
    """Sequences of shape (T, features) and the class of each; `windows` neighbours are a recording (0: T differs)."""

    sequences: list[Tensor]
    labels: Tensor
    windows: int

    def batch(self, rows: Iterable[int]) -> Tensor | PackedSequence:
        """(B, T, features), or packed."""
        chosen = [self.sequences[row] for row in rows]
        return torch.stack(chosen) if self.windows else pack_sequence(chosen, enforce_sorted=False)


class Data(NamedTuple):
    classes: list[str]
    training: Part
    test: Part


def load(source: Source) -> Data:
    """Both parts, each channel standardised by its mean and deviation in the training part."""
    parts = {split: source.load(split=split) for split in ("train", "test")}
    steps = np.concatenate(list(parts["train"][0]), axis=1)
    mean, deviation = steps.mean(axis=1, keepdims=True), steps.std(axis=1, keepdims=True)
    classes = [str(name) for name in sorted(set(parts["train"][1]))]

    def prepare(recordings: Any, names: Any) -> Part:
        series = [torch.tensor(((x - mean) / deviation).T, dtype=torch.float32) for x in recordings]
        labels = torch.tensor([classes.index(name) for name in names])
        if source.window is None:
            return Part(series, labels, 0)
        windows = len(series[0]) // source.window
        cut = [window for x in series for window in x.split(source.window)]
        return Part(cut, labels.repeat_interleave(windows), windows)

    return Data(classes, prepare(*parts["train"]), prepare(*parts["test"]))


class Classifier(nn.Module):
    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor | PackedSequence) -> Tensor:
        """Logits (B, classes), from the state after each sequence's own last step."""
        _, (h, _) = self.lstm(x)
        return self.out(h[-1])


class Training:
    """A classifier that learns from the seed on, epoch by epoch.

    Attributes
    ----------
    curve
        Seconds of training so far and mean loss, by epoch.
    """

    def __init__(self, data: Data, accelerate: bool, options: argparse.Namespace) -> None:
        self.data, self.batch = data, options.batch
        torch.manual_seed(options.seed)
        model: nn.Module = Classifier(data.training.sequences[0].shape[1], options.hidden, len(data.classes))
        if accelerate:
            model = rnnkern.torch.accelerate(model)
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=50, gamma=0.2)
        self.shuffle = torch.Generator().manual_seed(options.seed)
        self.curve: list[tuple[float, float]] = []
        model(data.training.batch(range(self.batch))).sum().backward()  # what only a first call does isn't timed

    @property
    def seconds(self) -> float:
        return self.curve[-1][0] if self.curve else 0.0

    def epoch(self) -> None:
        started, total, part = time.perf_counter(), 0.0, self.data.training
        for rows in torch.randperm(len(part.labels), generator=self.shuffle).split(self.batch):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(part.batch(rows.tolist())), part.labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            total += loss.item() * len(rows)
        self.schedule.step()
        self.curve.append((self.seconds + time.perf_counter() - started, total / len(part.labels)))

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """(N, classes) for the test part."""
        return self.model(self.data.test.batch(range(len(self.data.test.labels))))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def recording_accuracy(logits: Tensor, part: Part) -> float:
    """Where the windows of a recording decide together, by the product of their probabilities."""
    together = logits.log_softmax(dim=1).unflatten(0, (-1, part.windows)).sum(dim=1)
    return accuracy(together, part.labels[:: part.windows])


def plot(results: dict[str, dict[str, Training]]) -> Figure:
    """By data set: the loss against the seconds of training, and the last model's confusion matrix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 * len(results)), layout="constrained")
    rows = figure.subplots(len(results), 2, squeeze=False)
    for (left, right), (name, trainings) in zip(rows, results.items()):
        for layers, training in trainings.items():
            left.semilogy(*zip(*training.curve), label=layers)
        left.set(title=f"{name}: training", xlabel="seconds", ylabel="cross-entropy")
        left.legend()

        data = training.data
        count, part = len(data.classes), data.test
        pairs = part.labels * count + training.logits().argmax(dim=1)
        matrix = torch.bincount(pairs, minlength=count**2).reshape(count, count)
        share = (matrix / matrix.sum(dim=1, keepdim=True)).numpy()
        image = right.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), number in np.ndenumerate(matrix.numpy()):
            color = "white" if share[row, column] > 0.5 else "black"
            right.text(column, row, str(number), ha="center", va="center", color=color)
        right.set_xticks(range(count), data.classes)
        right.set_yticks(range(count), data.classes)
        unit = "windows of half a second" if part.windows else "utterances"
        figure.colorbar(image, ax=right, label="of the true ones")
        right.set(title=f"{name}: test {unit}, {layers}", xlabel="found", ylabel="true")
    return figure


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", default=list(SOURCES), help=f"which of {', '.join(SOURCES)} (all)")
    parser.add_argument("--accelerate", action=argparse.BooleanOptionalAction, help="train only this way")
    parser.add_argument("--hidden", type=int, default=32, help="units of the LSTM (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="sequences of a step (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=0.003, help="learning rate, a fifth after 50 epochs (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=60, help="times that the data is seen (%(default)s)")
    parser.add_argument("--short", action="store_true", help="25 epochs")
    parser.add_argument("--threads", type=int, default=1, help="of either way (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_plot(parser, "the losses over time and the confusion matrices")
    options = parse_with_short(parser, argv, epochs=25)
    for name in options.data:
        if name not in SOURCES:  # argparse's choices don't take a list as default
            parser.error(f"data must be of {', '.join(SOURCES)}, got {name!r}")
    for name in ("hidden", "batch", "epochs", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    torch.set_num_threads(options.threads)
    ways = {"PyTorch": False, "rnnkern": True}
    if options.accelerate is not None:
        ways = {layers: way for layers, way in ways.items() if way == options.accelerate}
    results: dict[str, dict[str, Training]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name in options.data:
            data = load(SOURCES[name])
            results[name] = {layers: Training(data, way, options) for layers, way in ways.items()}
            for _ in progress.track(range(options.epochs), description=name):
                for training in results[name].values():  # in turn, so that a busy machine is as unfair to both
                    training.epoch()

    table = Table(title=f"{options.epochs} epochs", title_justify="left")
    table.add_column("data")
    table.add_column("layers")
    for heading in ("loss", "accuracy", "recordings", "seconds", "speed-up"):
        table.add_column(heading, justify="right")
    failures = []
    for name, trainings in results.items():
        first = next(iter(trainings.values()))
        expected = first.logits().argmax(dim=1)
        for layers, training in trainings.items():
            logits, part, nearest = training.logits(), training.data.test, SOURCES[name].nearest
            share, loss = accuracy(logits, part.labels), training.curve[-1][1]
            table.add_row(
                name,
                layers,
                f"{loss:.5f}",
                f"{share:.4f}",
                f"{recording_accuracy(logits, part):.4f}" if part.windows else "",
                f"{training.seconds:.2f}",
                f"{first.seconds / training.seconds:.2f}",
            )
            if not (share > nearest and math.isfinite(loss)):
                failures.append(f"{name}, {layers}: {share:.4f} is not above {nearest}, that of nearest neighbours")
            differ = int((logits.argmax(dim=1) != expected).sum())
            if differ:
                failures.append(f"{name}, {layers}: {differ} of {len(logits)} test sequences get another class")
    console.print(table)
    for failure in failures:
        console.print(failure, style="red")
    if options.plot:
        save(plot(results), options.plot, console, dpi=150)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
