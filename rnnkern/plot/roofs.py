"""The roofline: what each shape reaches, under what the machine can do."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..cli.outcome import Outcome
from ..cli.probes import Limits
from .results import read
from .sheet import caption, open_figure

GREEN, ROOF = "#1b7f3b", "#777777"
ROOM = 8
"""Points whose FLOPs per byte are so many times as many have room for labels between them."""

Point = tuple[float, float, float, str]
"""FLOPs per byte, FLOP/s reached, FLOP/s at the limit, label."""


def roofline(results: str | os.PathLike[str] | Mapping[str, Any], *, figure: Any = None) -> Any:
    """Draw what `bench --limit` measured, as its option `--roofline` does (Williams, Waterman and Patterson 2009).

    One panel per cell: FLOP/s over FLOPs per byte, a dot for the best of ours and a ring for the limit.

    Parameters
    ----------
    results : path, or the mapping read from it
        What `python -m rnnkern bench --limit --json FILE` wrote.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    matplotlib Figure, or `figure`

    Raises
    ------
    OSError, TypeError, ValueError
        For a file that can't be read, is not one of `bench`, or was written without `--limit`.
    """
    outcomes, teams, title = read(results)
    if not teams:
        raise ValueError("results: expected those of `python -m rnnkern bench --limit`, got some without limits")
    return draw_roofline(outcomes, teams[-1], title, figure)


def draw_roofline(outcomes: Sequence[Outcome], team: Limits, title: str, figure: Any = None) -> Any:
    cells = list(dict.fromkeys(outcome.case.cell for outcome in outcomes))
    figure = open_figure(figure, 1 + 5.6 * len(cells), 6.4)
    panels = figure.subplots(1, len(cells), sharex=True, sharey=True, squeeze=False)[0]
    points = {cell: [point for o in outcomes if o.case.cell == cell and (point := place(o))] for cell in cells}
    everything = [point for members in points.values() for point in members]
    low = min([0.2, *(x / 2.5 for x, *_ in everything)])
    high = max([64.0, *(x * 9 for x, *_ in everything)])
    bottom = min([team.peak / 20, *(reached for _, reached, *_ in everything)])
    panels[0].set_xscale("log")
    panels[0].set_yscale("log")
    panels[0].set_xlim(low, high)
    panels[0].set_ylim(bottom / 2, team.peak * 2.2)
    for panel, cell in zip(panels, cells):
        draw_roofs(panel, team, low, high)
        draw_points(panel, points[cell])
        panel.set_title(cell.upper(), loc="left", weight="bold")
        panel.set_xlabel("FLOPs per byte read or written")
    panels[0].set_ylabel("GFLOP/s")
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    for axis in (panels[0].xaxis, panels[0].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    panels[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    rings = "rings: the limit, with activations, latencies and barriers"
    caption(figure, title, "dots: the best of rnnkern; labels: T,B,I,H", rings)
    return figure


def place(outcome: Outcome) -> Point | None:
    """Return None where nothing was measured."""
    seconds = outcome.own_seconds
    if seconds is None or outcome.limit is None:
        return None
    flops = outcome.limit.flops
    return outcome.limit.intensity, flops / seconds, flops / outcome.limit.seconds, outcome.case.label


def draw_roofs(panel: Any, team: Limits, low: float, high: float) -> None:
    x = np.geomspace(low, high, 200)
    for level in team.levels:
        panel.plot(x, np.minimum(team.peak, x * level.bandwidth), color=ROOF, lw=0.9, zorder=1)
        panel.annotate(
            f"{level.name} {level.bandwidth / 1e9:.0f} GB/s",
            (low * 1.15, low * 1.15 * level.bandwidth),
            xytext=(0, 3),
            textcoords="offset points",
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
            fontsize=8,
            color=ROOF,
        )
    ridge = team.peak / team.levels[0].bandwidth
    panel.text(ridge, team.peak * 1.05, f"{team.peak / 1e9:.0f} GFLOP/s", fontsize=8, color=ROOF)
    panel.set_axisbelow(True)
    panel.grid(color="#eeeeee", lw=0.7)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def draw_points(panel: Any, points: Sequence[Point]) -> None:
    """Dots and rings; the labels of neighbours in a column at their right, each led to its dot."""
    for x, reached, limit, _ in points:
        panel.plot([x, x], [reached, limit], color=GREEN, lw=0.8, alpha=0.4, zorder=2)
        panel.scatter(x, limit, s=26, facecolor="white", edgecolor=GREEN, lw=0.9, zorder=3)
        panel.scatter(x, reached, s=36, color=GREEN, edgecolor="white", lw=0.7, zorder=4)
    low, high = panel.get_ylim()
    for members in neighbours(points):
        members = sorted(members, key=lambda point: point[1])
        heights = spread([math.log(reached) for _, reached, *_ in members], math.log(high / low) / 30)
        column = 1.3 * max(x for x, *_ in members)
        for (x, reached, _, label), height in zip(members, heights):
            line = {"arrowstyle": "-", "color": GREEN, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
            spot = (column, math.exp(height))
            text = panel.annotate(label, (x, reached), spot, fontsize=7, va="center", arrowprops=line, zorder=5)
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})


def neighbours(points: Sequence[Point]) -> list[list[Point]]:
    """Groups of points along x, with room for labels between them."""
    groups: list[list[Point]] = []
    for point in sorted(points):
        if groups and point[0] < ROOM * groups[-1][-1][0]:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move ascending values apart to at least `gap`, as little as may be: each run stays around its own middle."""
    runs: list[list[float]] = []
    for value in values:
        runs.append([value])
        while len(runs) > 1 and middle(runs[-1]) - middle(runs[-2]) < gap * (len(runs[-1]) + len(runs[-2])) / 2:
            last = runs.pop()
            runs[-1] += last
    return [middle(run) + gap * (i - (len(run) - 1) / 2) for run in runs for i in range(len(run))]


def middle(values: Sequence[float]) -> float:
    return sum(values) / len(values)
