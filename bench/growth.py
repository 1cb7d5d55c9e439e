"""How time grows with the steps T and with the batch B, against a straight line.

Where a line bends, the working set (weights, x and y) may have outgrown a cache: the picture shows where that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from common import WAYS, make_calls, medians, parser, started, track, write
from matplotlib.figure import Figure

from rnnkern.cli import probes
from rnnkern.cli.case import Case, Shape
from rnnkern.cli.report import duration, new_table, write_picture

STEPS = (25, 50, 100, 200, 400, 800, 1600)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BATCH_STEPS = 50
"""T where B grows."""


class Sweep(NamedTuple):
    """A case whose T or B grows: `sizes`, from `base` on linearly."""

    cell: str
    H: int
    axis: str
    fixed: int
    sizes: Sequence[int]
    base: int

    def __str__(self) -> str:
        other = "B" if self.axis == "T" else "T"
        return f"{self.cell.upper()} H={self.H}, {other}={self.fixed}, {self.axis} grows"

    def case(self, size: int) -> Case:
        steps, batch = (size, self.fixed) if self.axis == "T" else (self.fixed, size)
        return Case(self.cell, Shape(steps, batch, self.H, self.H))

    def size_that_fills(self, capacity: int) -> float:
        """The size whose weights, x and y take so many bytes; x and y are as wide as H."""
        weights = self.case(1).parameters
        return (capacity / 4 - weights) / (2 * self.fixed * self.H)


def caches(threads: int) -> dict[str, int]:
    """By level: bytes that so many threads have together. Empty where the system doesn't say."""
    return {cache.name: cache.size * -(-threads // cache.cores) for cache in probes.find_caches()}


def measure_sweep(sweep: Sweep, way: str, seconds: float) -> dict[int, float]:
    """By size: seconds of a call."""
    calls = {str(size): make_calls(sweep.case(size), [way])[way] for size in sweep.sizes}
    for call in calls.values():
        call()
    return {int(size): median for size, median in medians(calls, seconds).items()}


def summary(sweep: Sweep, times: Mapping[int, float]) -> dict[str, Any]:
    """From the base on: the slope in logarithms, and time per step or sequence over that at the base."""
    sizes = [size for size in times if size >= sweep.base]
    each = {size: times[size] / size * sweep.base / times[sweep.base] for size in sizes}
    slope = np.polyfit(np.log(sizes), np.log([times[size] for size in sizes]), 1)[0] if len(sizes) > 1 else 1.0
    return {
        "slope": float(slope),
        "at_largest": each[max(sizes)],
        "farthest": max(each.values(), key=lambda r: abs(np.log(r))),
    }


def draw(results: Sequence[tuple[Sweep, Mapping[int, float]]], levels: Mapping[str, int], title: str) -> Figure:
    """A panel per cell and kind of growth; the thin lines are what linear growth from the first size would be."""
    cells = list(dict.fromkeys(sweep.cell for sweep, _ in results))
    kinds = list(dict.fromkeys((sweep.axis, sweep.fixed) for sweep, _ in results))
    figure = Figure(figsize=(1 + 3.6 * len(kinds), 0.8 + 3 * len(cells)), layout="constrained")
    panels = figure.subplots(len(cells), len(kinds), squeeze=False)
    hues = {H: f"C{index}" for index, H in enumerate(dict.fromkeys(sweep.H for sweep, _ in results))}
    for sweep, times in results:
        panel = panels[cells.index(sweep.cell)][kinds.index((sweep.axis, sweep.fixed))]
        draw_sweep(panel, sweep, times, levels, hues[sweep.H])
    for panel in panels.flat:
        panel.grid(color="#e8e8e8", lw=0.7)
    panels[0][0].legend(frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color="#555555")
    return figure


def draw_sweep(panel: Any, sweep: Sweep, times: Mapping[int, float], levels: Mapping[str, int], colour: str) -> None:
    sizes, first = list(times), next(iter(times))
    panel.loglog(sizes, [time * 1e6 for time in times.values()], color=colour, marker="o", ms=4, label=f"H={sweep.H}")
    panel.loglog(sizes, [times[first] * 1e6 * size / first for size in sizes], color=colour, lw=0.8, ls=":")
    for name, capacity in levels.items():
        size = sweep.size_that_fills(capacity)
        if min(sizes) < size < max(sizes):
            panel.axvline(size, color=colour, lw=0.8, ls="--", alpha=0.6)
            panel.text(size, 0.02, f" {name}", color=colour, fontsize=8, transform=panel.get_xaxis_transform())
    other = "B" if sweep.axis == "T" else "T"
    panel.set_title(f"{sweep.cell.upper()}, {other}={sweep.fixed}", loc="left", weight="bold")
    panel.set_xlabel(sweep.axis)
    panel.set_ylabel("µs per call")


def sweeps(cell: str, hidden: Sequence[int], quick: bool) -> list[Sweep]:
    if quick:
        return [Sweep(cell, 16, axis, 2, (1, 2, 4), 2) for axis in "TB"]
    steps = [Sweep(cell, H, "T", batch, STEPS, 100) for H in hidden for batch in (1, 32)]
    return steps + [Sweep(cell, H, "B", BATCH_STEPS, BATCHES, 32) for H in hidden]


def main() -> None:
    root = parser(__doc__.splitlines()[0], plot=True, seconds=120)
    root.add_argument("--hidden", action="append", type=int, metavar="H", help="repeatable; default: 64 and 256; I=H")
    root.add_argument("--way", choices=WAYS, default="frozen", help="default: frozen")
    with started(root) as (options, out):
        todo = [sweep for cell in options.cell for sweep in sweeps(cell, options.hidden or (64, 256), options.quick)]
        results = [
            (sweep, measure_sweep(sweep, options.way, options.seconds / len(todo))) for sweep in track(out, todo)
        ]
        levels = caches(options.threads)
        title = f"{options.way}, float32, {options.threads} threads"
        table = new_table(title, "ratios of time per step (sequence) to that at the base; 1 is linear")
        for name in ("", "base", "µs there", "slope", "at the largest", "farthest from 1"):
            table.add_column(name, justify="right" if name else "left")
        rows = []
        for sweep, times in results:
            found = summary(sweep, times)
            rows.append({**sweep._asdict(), "seconds": times, **found})
            numbers = (f"{found[name]:.3f}" for name in ("slope", "at_largest", "farthest"))
            table.add_row(str(sweep), f"{sweep.axis}={sweep.base}", duration(times[sweep.base]), *numbers)
        out.print(table)
        for axis in "TB":
            value, where = max(
                (abs(row["at_largest"] - 1), str(sweep)) for row, (sweep, _) in zip(rows, results) if sweep.axis == axis
            )
            out.print(f"Largest deviation from linear at the largest {axis}: {value:.1%} ({where})")
        write(options, out, {"caches_bytes": levels, "sweeps": rows})
        if options.plot:
            note = "dotted: linear; dashed: weights, x and y fill a cache level"
            write_picture(out, options.plot, draw(results, levels, f"{title}; {note}"))


if __name__ == "__main__":
    main()
