"""How many times faster than each peer, per shape."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..cli.contenders import Reference
from ..cli.outcome import RIVALS, Outcome, means, times
from .results import read
from .sheet import caption, open_figure

COLOURS = {
    "torch": "#e4572e",
    "onnxruntime": "#2274c4",
    "openvino": "#8e5bd0",
    "jax": "#12917b",
    Reference.name: "#777777",
}
FARTHEST = 40
"""Slower ones stand there as an arrow: outliers don't squeeze the rest."""
AHEAD, BEHIND = "#cdeacf", "#f8cdc6"
AHEAD_TEXT, BEHIND_TEXT, DISTURBED = "#1b7f3b", "#c0271a", "#b58900"


def formats() -> list[str]:
    """Return the endings of the files that can be written."""
    return sorted(Figure().canvas.get_supported_filetypes())


def speed(results: str | os.PathLike[str] | Mapping[str, Any], *, figure: Any = None) -> Any:
    """Draw what `bench` measured, as its option `--plot` does.

    One panel per cell, one row per shape: a dot for each peer's time as a multiple of the best of ours. The bar ends
    at the best peer, the number is its multiple. Rows that were disturbed have none. Without peers there are only the
    dots of NumPy.

    Parameters
    ----------
    results : path, or the mapping read from it
        What `python -m rnnkern bench --json FILE` wrote.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    matplotlib Figure, or `figure`

    Raises
    ------
    OSError, TypeError, ValueError
        For a file that can't be read, or is not one of `bench`.
    """
    outcomes, _, title = read(results)
    return draw(outcomes, title, figure)


def draw(outcomes: Sequence[Outcome], title: str, figure: Any = None) -> Any:
    averages = means(outcomes)
    groups = {cell: [o for o in outcomes if o.case.cell == cell] for cell in averages if cell != "all"}
    shown = [name for name in RIVALS if any(name in o.timings for o in outcomes)] or [Reference.name]
    rows = max(map(len, groups.values()))
    figure = open_figure(figure, 1.6 + 4 * len(groups), 2 + 0.33 * rows)
    panels = figure.subplots(1, len(groups), sharex=True, squeeze=False)[0]
    for panel, (cell, members) in zip(panels, groups.items()):
        draw_cell(panel, members, shown)
        panel.set_xlabel("time / time of rnnkern")
        panel.set_title(f"{cell.upper()}   {summary(members, averages[cell].get('best'))}", loc="left", weight="bold")
    values = [value for o in outcomes for name in shown if (value := o.speedup_over(name)) is not None]
    scale(panels[0], min([0.8, *values]), min(FARTHEST, max([2.0, *values])))
    caption(figure, f"{title}; rows are T,B,I,H", *warnings(outcomes))
    dots = [Line2D([], [], ls="", marker="o", ms=7, color=COLOURS[name], label=name) for name in shown]
    dots.append(Line2D([], [], color="black", lw=1.4, label="rnnkern"))
    figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), frameon=False, handletextpad=0.3)
    return figure


def summary(outcomes: Sequence[Outcome], mean: float | None) -> str:
    """The geometric mean, and of how many rows it is where that is not all."""
    if mean is None:
        return ""
    counted = sum(outcome.speedup is not None for outcome in outcomes)
    rows = f"\nof {counted} of {len(outcomes)} rows" if counted < len(outcomes) else ""
    return f"geometric mean {times(mean)}×{rows}"


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader must know before the numbers."""
    disturbed, left_out = (sum(getattr(o, name) for o in outcomes) for name in ("disturbed", "left_out"))
    found = []
    if disturbed:
        found.append(f"{disturbed} of {len(outcomes)} rows were disturbed by other programs: they have no number.")
    if left_out:
        found.append(f"There was no time for {left_out} of {len(outcomes)} rows.")
    if not any(outcome.rival for outcome in outcomes):
        found.append("No other library was timed; NumPy is this package's own reference.")
    return found


def draw_cell(panel: Any, outcomes: Sequence[Outcome], shown: Sequence[str]) -> None:
    for row, outcome in enumerate(outcomes):
        best = outcome.speedup
        number: dict[str, Any] = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 9}
        if best is not None:
            ahead = best >= 1
            panel.barh(row, min(best, FARTHEST) - 1, left=1, height=0.7, color=AHEAD if ahead else BEHIND, zorder=1)
            style = {"color": AHEAD_TEXT if ahead else BEHIND_TEXT, "weight": "bold"}
            panel.text(1.01, row, f"{times(best)}×", **number, **style)  # beside the panel: no dot is there
        elif outcome.disturbed or outcome.left_out:
            panel.text(1.01, row, "disturbed" if outcome.disturbed else "no time", color=DISTURBED, **number)
        for name in shown:
            value = outcome.speedup_over(name)
            if value is not None:
                size = 58 if name == outcome.rival else 26
                mark = "o" if value <= FARTHEST else ">"
                dot: dict[str, Any] = {
                    "marker": mark,
                    "s": size,
                    "color": COLOURS[name],
                    "edgecolor": "white",
                    "lw": 0.8,
                }
                panel.scatter(min(value, FARTHEST), row, zorder=3, **dot)
    panel.axvline(1, color="black", lw=1.4, zorder=2)
    panel.set_yticks(range(len(outcomes)), [outcome.case.label for outcome in outcomes], fontsize=9)
    panel.set_ylim(len(outcomes) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#e8e8e8", lw=0.7, zorder=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def scale(panel: Any, low: float, high: float) -> None:
    """Logarithmic, from below `low` to above `high`."""
    decades = math.log10(high / low)
    panel.set_xscale("log")
    panel.set_xlim(low * 10 ** (-0.05 * decades), high * 10 ** (0.05 * decades))
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.8 else (1,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    panel.xaxis.set_minor_formatter(NullFormatter())
