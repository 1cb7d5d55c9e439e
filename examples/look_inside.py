"""Looking inside recurrent networks: how far gradients reach back, and what single units have learned to follow.

An RNN, an LSTM and a GRU learn to predict the characters of Python's own manual, as in language_model.py. Then

- the norm of the gradient of one character's loss by the hidden state of each of the 100 steps before it shows how
  gradients vanish, before and after training (Pascanu et al. 2013);
- the units of all three are searched for the ones that follow quotes, brackets and the position in the line (as in
  Karpathy et al. 2015), on text of the training part. What counts is their correlation on held-out text, next to what
  the best of as many units reaches by chance, and the best one of the same networks untrained.

The exit code is 0 if the LSTM's gradient falls less than the RNN's over these steps, before and after training, and if
the unit found for quotes is above chance and above the untrained networks.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from arguments import add_plot, parse_with_short, save
from language_model import CELLS, Array, Ids, LanguageModel, manual, train
from language_model import parse as language_model_options
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Table

import rnnkern

STEPS = 100
"""How far back gradients are followed."""
LEARNED = 50_000
"""Characters of the training part on which units are chosen."""
LINES = 9
"""Of held-out text in a picture."""
COLUMNS = 80


class Model(LanguageModel):
    """The language model, and what looks into it."""

    def gradient_flow(self, ids: Ids) -> dict[str, Array]:
        """Inputs (T, B, E) of the layer, and the gradient (T, B, H) by y of the loss at the last of T + 1 characters.

        The gradient of each sequence has norm 1.
        """
        x = self.embedding[ids[:-1]]
        y, _ = self.layer(x)
        _, out = rnnkern.linear_cross_entropy(y[-1], self.weight, self.bias, ids[-1], gradient=True)
        dy = np.zeros_like(y)
        dy[-1] = out.h
        dy[-1] /= np.linalg.norm(dy[-1], axis=-1, keepdims=True)
        return {"x": x, "dy": dy}

    def norms(self, ids: Ids) -> Array:
        """The norm of ∂L/∂h_t of each step and sequence (T, B)."""
        return np.linalg.norm(self.layer.trace_gradients(**self.gradient_flow(ids))["h"].astype(np.float64), axis=-1)

    def memory(self, ids: Ids) -> Array:
        """What each unit remembers after each of T characters (T, H): tanh(c) of an LSTM, h of the others."""
        state, parts = None, []
        for start in range(0, len(ids), 1000):
            trace = self.layer.trace(self.embedding[ids[start : start + 1000]], state)
            last = {name: trace[name][-1:] for name in "hc" if name in trace}
            state = (last["h"], last["c"]) if "c" in last else last["h"]
            parts.append(np.tanh(trace["c"]) if "c" in trace else trace["h"])
        return np.concatenate(parts)


# What units may follow


def features(text: str) -> dict[str, Array]:
    """For each character (T,), once it is read: inside quotes, inside brackets, the column in the line.

    Quotes and brackets end with the paragraph, also where the text forgets to close them.
    """
    found = {name: np.zeros(len(text)) for name in ("quotes", "brackets", "column")}
    quoted, depth, column = False, 0, 0
    for i, character in enumerate(text):
        if text[i - 1 : i + 1] == "\n\n":
            quoted, depth = False, 0
        quoted ^= character == '"'
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        column = 0 if character == "\n" else column + 1
        for values, value in zip(found.values(), (quoted, depth > 0, column)):
            values[i] = value
    return found


def standardised(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-12)


def correlations(memories: Array, feature: Array) -> Array:
    """Pearson's r of each unit (U,), of memories (T, U) and a feature (T,) or several (T, N), then (U, N)."""
    return standardised(memories).T @ standardised(feature) / len(feature)


def chance(memories: Array, feature: Array, rng: np.random.Generator, trials: int = 200) -> float:
    """The |r| that the best of all units reaches in 1 of 100 cases where the feature belongs to another place.

    The feature is rotated against the text, by at least 500 characters: so it keeps its own rhythm.
    """
    moves = rng.integers(500, len(feature) - 500, trials)
    moved = np.stack([np.roll(feature, move) for move in moves], axis=-1)
    return float(np.percentile(np.abs(correlations(memories, moved)).max(axis=0), 99))


@dataclass(frozen=True)
class Found:
    """The unit that follows a feature best, chosen on text of the training part."""

    feature: str
    cell: str
    unit: int
    r: float
    """On held-out text, as the rest."""
    all: Array
    """The r of every unit of every network."""
    untrained: Array
    """That of the networks before training."""
    untrained_r: float
    """That of their best unit, chosen in the same way."""
    chance: float
    best: Mapping[str, tuple[int, float]]
    """By cell: its best unit and the r of that."""


def find(
    name: str,
    memories: Sequence[Mapping[str, Array]],
    control: Sequence[Array],
    feature: Sequence[Array],
    rng: np.random.Generator,
) -> Found:
    """Choose on the first of two texts, measure on the second.

    `memories` are those of each network on either text, `control` those of all untrained networks together.
    """
    on_first = {cell: np.abs(correlations(memories[0][cell], feature[0])) for cell in memories[0]}
    units = {cell: int(r.argmax()) for cell, r in on_first.items()}
    by_cell = {cell: correlations(memories[1][cell], feature[1]) for cell in units}
    cell = max(units, key=lambda cell: on_first[cell].max())
    untrained = correlations(control[1], feature[1])
    return Found(
        feature=name,
        cell=cell,
        unit=units[cell],
        r=float(by_cell[cell][units[cell]]),
        all=np.concatenate(list(by_cell.values())),
        untrained=untrained,
        untrained_r=float(untrained[np.abs(correlations(control[0], feature[0])).argmax()]),
        chance=chance(np.concatenate(list(memories[1].values()), axis=1), feature[1], rng),
        best={cell: (unit, float(by_cell[cell][unit])) for cell, unit in units.items()},
    )


def excerpt(text: str, feature: Array, lines: int = LINES, least: int = 0) -> slice:
    """The lines, none too narrow or wide, in which the feature varies most; the units have no say in it."""
    ends = [i + 1 for i, character in enumerate(text) if character == "\n"]
    widths = np.diff(ends)
    fits = (widths >= least) & (widths <= COLUMNS)
    fitting = [i for i in range(len(widths) - lines + 1) if fits[i : i + lines].all()]
    places = [slice(ends[i], ends[i + lines]) for i in fitting]
    return max(places, key=lambda place: feature[place].std())


# Pictures


def draw_gradients(untrained: Mapping[str, Model], trained: Mapping[str, Model], ids: Ids) -> Figure:
    """Two panels; the untrained one also has the LSTM without the bias of 1 that its forget gates begin with."""
    plain = copy.deepcopy(untrained["LSTM"])
    hidden = plain.layer.hidden_size
    plain.layer.weights["bias_ih_l0"][hidden : 2 * hidden] -= 1
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for panel, models, title in zip(
        figure.subplots(1, 2, sharey=True),
        ({**untrained, "LSTM, forget bias 0": plain}, trained),
        ("before training", "after training"),
    ):
        flows = {name: model.gradient_flow(ids) for name, model in models.items()}
        rnnkern.plot.gradient_flow(
            {name: model.layer for name, model in models.items()},
            {name: flow["x"] for name, flow in flows.items()},
            dy={name: flow["dy"] for name, flow in flows.items()},
            ax=panel,
        )
        panel.set_title(title, loc="left", weight="bold")
        panel.set_xlabel("step t; the loss is that of the last step's prediction")
    return figure


def draw_units(founds: list[Found], held: Mapping[str, Array], text: str, known: Mapping[str, Array]) -> Figure:
    """For each feature the best unit on lines of held-out text, orange where it says yes, and the |r| of all units."""
    figure = Figure(figsize=(11.5, 2.5 * len(founds)), layout="constrained")
    for row, found in zip(figure.subfigures(len(founds), 1), founds):
        passage, ranks = row.subplots(1, 2, width_ratios=(3.2, 1))
        place = excerpt(text, known[found.feature])
        values = np.sign(found.r) * standardised(held[found.cell][:, found.unit])
        rnnkern.plot.text(text[place], values[place], limit=2, ax=passage)
        title = f"{found.feature}: unit {found.unit} of the {found.cell}, r = {found.r:+.2f} on held-out text"
        passage.set_title(title, loc="left", weight="bold", fontsize=11)
        passage.set(anchor="W", xlim=(-0.5, COLUMNS - 0.5), ylim=(LINES - 0.5, -0.5))
        for r, colour, name in ((found.all, "#d9480f", "trained"), (found.untrained, "#999999", "untrained")):
            ranks.plot(np.arange(1, len(r) + 1), np.sort(np.abs(r))[::-1], color=colour, lw=1.8, label=name)
        ranks.axhline(found.chance, color="black", lw=1, ls="--", label="chance, best of all (99 %)")
        ranks.set(xscale="log", ylim=(0, 1), xlabel="units of all networks, by rank", ylabel="|r|")
        ranks.xaxis.set_major_formatter("{x:g}")
        ranks.legend(frameon=False, fontsize=8)
        for side in ("top", "right"):
            ranks.spines[side].set_visible(False)
    return figure


def draw_gates(model: Model, ids: Ids, text: str, feature: Array, units: list[int]) -> Figure:
    """Everything inside some units of the LSTM, on one line of held-out text."""
    place = excerpt(text, feature, lines=1, least=70)
    start = max(0, place.start - 1000)  # far enough for the state to know where it is
    trace = model.layer.trace(model.embedding[ids[start : place.stop]])
    shown = {name: array[place.start - start :] for name, array in trace.items()}
    return rnnkern.plot.gates(shown, text[place], units=units)


# The program


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hidden", type=int, default=192, help="units of each network (%(default)s)")
    parser.add_argument("--epochs", type=float, default=10, help="times that each reads the text (%(default)s)")
    parser.add_argument("--minutes", type=float, default=2, help="end each training earlier than that (%(default)s)")
    parser.add_argument("--short", action="store_true", help="small networks, three epochs: half a minute")
    parser.add_argument("--seed", type=int, default=0)
    add_plot(parser, "three pictures: FILE with -gradients, -units and -gates before its ending")
    return parse_with_short(parser, argv, hidden=64, epochs=3)


def fit(
    cell: str, options: argparse.Namespace, ids: Ids, held: Ids, size: int, console: Console
) -> tuple[Model, Model]:
    """The model before and after training."""
    given = ["--epochs", options.epochs, "--minutes", options.minutes, "--seed", options.seed]
    settings = language_model_options([str(value) for value in given])
    model = Model(cell, size, settings.embedding, options.hidden, 0.2, options.seed)
    untrained = copy.deepcopy(model)
    bits = []
    with Progress(BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console, transient=True) as progress:
        train(model, ids, settings, progress, lambda seconds: bits.append((seconds, model.bits(held))))
    console.print(f"{cell}: {bits[-1][1]:.3f} bits per held-out character after {bits[-1][0]:.0f} s of training")
    return untrained, model


def report_gradients(models: Mapping[str, Mapping[str, Model]], windows: Ids, console: Console) -> list[str]:
    """Print the norms at the first step by those at the last, before and after training; return what is wrong."""
    table, wrong = Table("cell", *(f"{when} training" for when in models)), []
    norms = {
        (cell, when): model.norms(windows)[0] for when, by_cell in models.items() for cell, model in by_cell.items()
    }
    medians = {key: float(np.median(values)) for key, values in norms.items()}
    for cell in CELLS:
        table.add_row(cell, *(f"{medians[cell, when]:.1e}" for when in models))
    console.print(
        f"What is left of the gradient {STEPS} steps before the loss, median of {windows.shape[1]} places:", table
    )
    for when in models:
        if not medians["LSTM", when] > medians["RNN", when]:
            wrong.append(f"{when} training, the LSTM's gradient falls as much as the RNN's")
    return wrong


def report_units(founds: list[Found], console: Console) -> list[str]:
    """Print the best units; return what is wrong."""
    table = Table("follows", *CELLS, "chance", "untrained")
    for found in founds:
        best = [f"{abs(found.best[cell][1]):.2f} ({found.best[cell][0]})" for cell in CELLS]
        table.add_row(found.feature, *best, f"{found.chance:.2f}", f"{abs(found.untrained_r):.2f}")
    console.print("|r| on held-out text of the unit (its number) chosen on text of the training part:", table)
    quotes = founds[0]
    if abs(quotes.r) > max(quotes.chance, abs(quotes.untrained_r)):
        return []
    return ["no unit follows quotes better than chance and than the untrained networks"]


def main(argv: list[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    rng = np.random.default_rng(options.seed)
    text = manual()
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(character) for character in text])
    split = len(text) * 9 // 10
    untrained, trained = {}, {}
    for cell in CELLS:
        untrained[cell], trained[cell] = fit(cell, options, ids[:split], ids[split:], len(alphabet), console)

    starts = rng.integers(split, len(ids) - STEPS - 2, 64)
    windows = np.stack([ids[start : start + STEPS + 2] for start in starts], axis=-1)
    failures = report_gradients({"before": untrained, "after": trained}, windows, console)

    parts = slice(split - LEARNED, split), slice(split, None)
    known = [features(text[part]) for part in parts]
    memories = [{cell: trained[cell].memory(ids[part]) for cell in CELLS} for part in parts]
    control = [np.concatenate([untrained[cell].memory(ids[part]) for cell in CELLS], axis=1) for part in parts]
    founds = [find(name, memories, control, [of[name] for of in known], rng) for name in known[0]]
    failures += report_units(founds, console)

    if options.plot:
        ranked = np.argsort(-memories[1]["LSTM"].std(axis=0)).tolist()
        units = list(dict.fromkeys([found.best["LSTM"][0] for found in founds] + ranked))[:12]
        pictures = {
            "gradients": draw_gradients(untrained, trained, windows),
            "units": draw_units(founds, memories[1], text[split:], known[1]),
            "gates": draw_gates(trained["LSTM"], ids[split:], text[split:], known[1]["quotes"], units),
        }
        for name, figure in pictures.items():
            save(figure, options.plot.with_stem(f"{options.plot.stem}-{name}"), console, dpi=120)
    for failure in failures:
        console.print(failure, style="bold red")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
