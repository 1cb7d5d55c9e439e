"""The roofline of `bench --limit`: what each shape reaches, under what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .outcome import Outcome
from .probes import Limits

GREEN, ROOF, NEAR = "#1b7f3b", "#555555", "#d9d9d9"


def draw_roofline(outcomes: Sequence[Outcome], team: Limits, title: str) -> Figure:
    """One panel per cell: FLOP/s over FLOPs per byte, a dot for the best of ours and a ring for the limit."""
    cells = list(dict.fromkeys(outcome.case.cell for outcome in outcomes))
    figure = Figure(figsize=(1 + 5.2 * len(cells), 5.6), layout="constrained")
    panels = figure.subplots(1, len(cells), sharex=True, sharey=True, squeeze=False)[0]
    points = {cell: [point for o in outcomes if o.case.cell == cell and (point := place(o))] for cell in cells}
    everything = [point for members in points.values() for point in members]
    low = min([0.25, *(x / 1.5 for x, *_ in everything)])
    high = max([64.0, *(x * 4 for x, *_ in everything)])
    for panel, cell in zip(panels, cells):
        draw_roofs(panel, team, low, high)
        draw_points(panel, points[cell])
        panel.set_title(cell.upper(), loc="left", weight="bold")
        panel.set_xlabel("FLOPs per byte read or written")
    bottom = min([team.peak / 100, *(reached for _, reached, *_ in everything)])
    panels[0].set_ylabel("GFLOP/s")
    panels[0].set_xlim(low, high)
    panels[0].set_ylim(bottom / 1.6, team.peak * 1.6)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    for axis in (panels[0].xaxis, panels[0].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    panels[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    note = "dots: the best of rnnkern; rings: the limit, with activations, latencies and barriers; labels: T,B,I,H"
    figure.suptitle(f"{title}\n{note}", x=0.01, ha="left", fontsize=10, color="#555555")
    return figure


def place(outcome: Outcome) -> tuple[float, float, float, str] | None:
    """FLOPs per byte, FLOP/s reached and at the limit, label; None where nothing was measured."""
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
    panel.text(high / 1.1, team.peak * 1.07, f"{team.peak / 1e9:.0f} GFLOP/s", ha="right", fontsize=8, color=ROOF)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.grid(color="#eeeeee", lw=0.7, zorder=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def draw_points(panel: Any, points: Sequence[tuple[float, float, float, str]]) -> None:
    """Dots and rings; labels in a column at the right of each cluster, so that none covers another."""
    for x, reached, limit, _ in points:
        panel.plot([x, x], [reached, limit], color=GREEN, lw=0.8, alpha=0.5, zorder=2)
        panel.scatter(x, limit, s=30, facecolor="none", edgecolor=GREEN, lw=1, zorder=3)
        panel.scatter(x, reached, s=38, color=GREEN, edgecolor="white", lw=0.7, zorder=4)
    return
