"""Memory that back-propagation needs beyond x and y, ours and torch's, and what recomputing saves and costs.

Each peak is that of a fresh process: resident memory at its highest during forward and backward, less what was
resident before, less y, last state and gradients, which are the results. So it holds what the forward pass keeps and
all scratch, packed weights included. Huge pages are off, unless --huge-pages: they round large arrays up to 2 MiB.
What grows with T is the difference between two longer inputs, past the length where bounded scratch is full.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import figure, in_new_process, medians, parser, shown, started, summarise, track, write

import rnnkern
from rnnkern.cli import machine, measure
from rnnkern.cli.case import Case, Problem, Shape
from rnnkern.cli.contenders import as_tuple
from rnnkern.cli.peers import Torch
from rnnkern.cli.report import new_table

SHAPES = (Shape(100, 32, 256, 256), Shape(200, 64, 128, 128), Shape(100, 1, 256, 256))
FILLED = 3000
"""T*B, at least, from which growth is measured, to twice that: bounded scratch is full."""
REPEATS = 3
TORCH_KEEPS = {"lstm": 15.5, "gru": 7.0, "rnn": 0.0}
"""Floats per T*B*H beyond y."""
SHARES = {"lstm": 0.4, "gru": 0.6}
"""Of those, ours at most. RNN: nothing that grows with T."""
RNN_GROWTH = 0.1
"""Floats per T*B*H that count as nothing: less than the resolution of the peak."""
RECOMPUTE_FLOATS, RECOMPUTE_TIME = 1.0, 1.4
PR_SET_THP_DISABLE = 41
"""Of Linux's prctl."""
STATUS = Path("/proc/self/status")
WARM_UP = Shape(3, 2, 8, 8)
"""Loads code and starts threads; too small to leave scratch behind that would hide in what was resident before."""


def resident(name: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS, or VmHWM for its peak."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def forget() -> None:
    """Give free memory back, so that what is used again counts again, and reset the peak."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    Path("/proc/self/clear_refs").write_text("5")


def own(problem: Problem, recompute: bool) -> tuple[measure.Call, list[int]]:
    """Our training, returning its results as arrays, and where it leaves `tape.nbytes`."""
    case, kept = problem.case, []
    layer = getattr(rnnkern, case.cell.upper())(case.shape.I, case.shape.H)

    def train() -> list[np.ndarray]:
        y, state, tape = layer.forward(problem.x, recompute=recompute)
        grads = layer.backward(tape, problem.dy)
        kept.append(tape.nbytes)
        return [y, *as_tuple(state), grads.x, *as_tuple(grads.state), *grads.weights.values()]

    return train, kept


def torchs(problem: Problem) -> measure.Call:
    contender = Torch(problem)

    def train() -> list[Any]:
        y, state, grads = contender.train()
        return [y, *(state if isinstance(state, tuple) else (state,)), *grads]

    return train


def peak(who: str, cell: str, sizes: Iterable[int], threads: int, huge_pages: bool) -> dict[str, int | None]:
    """Bytes beyond x and the results, measured in this process; `who` is torch, rnnkern or rnnkern with recompute."""
    if not huge_pages:
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    if who == "torch":
        Torch.load(threads)
    kept: list[int] = []
    with rnnkern.num_threads(threads):
        for shape in (WARM_UP, Shape(*sizes)):
            problem = Problem(Case(cell, shape))
            if who == "torch":
                train = torchs(problem)
            else:
                train, kept = own(problem, who.endswith("recompute"))
            forget()
            before = resident("VmRSS")
            results = train()
            highest = resident("VmHWM")
            beyond = highest - before - sum(array.nbytes for array in results)
            del results
    return {"peak": beyond, "tape": kept[-1] if kept else None}


def measure_peaks(who: str, cell: str, shape: Shape, options: argparse.Namespace) -> dict[str, float | None]:
    """In floats per T*B*H: the tape, the peak, its spread, and how the peak grows with T; in bytes: the peak."""

    def run(times: int) -> dict[str, int | None]:
        size = shape._replace(T=times * shape.T)
        return in_new_process(peak, who, cell, size, options.threads, options.huge_pages)

    runs = [run(1) for _ in range(1 if options.quick else REPEATS)]
    times = max(2, -(-FILLED // (shape.T * shape.B)))
    low, high = run(times), run(2 * times)
    unit = 4 * shape.T * shape.B * shape.H
    here = [run["peak"] for run in runs]
    tape = runs[0]["tape"]
    return {
        "tape": None if tape is None else tape / unit,
        "peak": median(here) / unit,
        "spread": (max(here) - min(here)) / unit,
        "growth": (high["peak"] - low["peak"]) / (times * unit),
        "peak_bytes": median(here),
    }


def recompute_time(cell: str, shape: Shape, seconds: float) -> float:
    """Of training with recompute over without."""
    problem = Problem(Case(cell, shape))
    calls = {str(again): own(problem, again)[0] for again in (False, True)}
    for call in calls.values():
        call()
    times = medians(calls, seconds)
    return times["True"] / times["False"]


def judge(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row beside their targets."""
    if row["who"] == "torch":
        limits: dict[str, float] = {}
    elif row["who"].endswith("recompute"):
        limits = {"peak": RECOMPUTE_FLOATS, "time": RECOMPUTE_TIME}
    elif row["cell"] == "rnn":
        limits = {"tape": 0, "growth": RNN_GROWTH}
    else:
        limits = dict.fromkeys(("tape", "peak"), SHARES[row["cell"]] * TORCH_KEEPS[row["cell"]])
    return {name: figure(row[name], at_most=limits.get(name)) for name in ("tape", "peak", "growth", "time")}


def main() -> None:
    root = parser(__doc__.splitlines()[0])
    root.add_argument("--huge-pages", action="store_true", help="as the system has them; default: off")
    if not STATUS.exists():
        root.error("this program needs Linux's /proc")
    with started(root) as (options, out):
        shapes = (Shape(10, 4, 32, 32),) if options.quick else SHAPES
        whos = ["rnnkern", "rnnkern, recompute", *(["torch"] if machine.version("torch") and not options.quick else [])]
        todo = [(cell, shape, who) for cell in options.cell for shape in shapes for who in whos]
        table = new_table(
            f"Training, float32, {options.threads} threads: floats per T·B·H beyond x and y",
            f"peak: in a fresh process, median of {1 if options.quick else REPEATS}; ±: half its spread; "
            f"growth: of the peak when a long T doubles, per T·B·H added; time: against without recompute",
        )
        for name in ("cell T,B,I,H", "", "tape", "peak", "±", "peak, kB", "growth", "time"):
            table.add_column(name, justify="right" if name not in ("", "cell T,B,I,H") else "left")
        rows = []
        for cell, shape, who in track(out, todo):
            row: dict[str, Any] = {"cell": cell, "shape": shape, "who": who, "time": None}
            row |= measure_peaks(who, cell, shape, options)
            if who.endswith("recompute"):
                row["time"] = recompute_time(cell, shape, options.seconds * len(whos) / len(todo))
            row |= judge(row)
            rows.append(row)
            table.add_row(
                str(Case(cell, shape)),
                who,
                shown(row["tape"]),
                shown(row["peak"]),
                f"{row['spread'] / 2:.2f}",
                f"{row['peak_bytes'] / 1e3:,.0f}",
                shown(row["growth"]),
                shown(row["time"]),
            )
        out.print(table)
        for name in ("tape", "peak", "growth", "time"):
            summarise(out, [row[name] for row in rows], name)
        write(options, out, rows)


if __name__ == "__main__":
    main()
