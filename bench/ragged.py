"""Sequences of different lengths: against the full batch, and against torch's packed sequences.

Lengths are uniform in T/4..T, in random order. All take turns in one process. torch packs, runs and pads again, as its
users do: our layers take and give padded arrays. Its results are compared with ours first.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
from common import (
    figure,
    make_calls,
    make_gradient,
    make_input,
    make_layer,
    parser,
    shown,
    started,
    summarise,
    track,
    write,
)

from rnnkern.cli import errors, machine, measure
from rnnkern.cli.case import Case, Shape
from rnnkern.cli.report import duration, new_table

BATCHES = (8, 32, 128)
HIDDEN = (64, 256, 512)
PROPORTIONAL = 1.1
WAYS = ("frozen", "training")


def torch_target(way: str, hidden: int) -> float | None:
    """How many times faster than torch."""
    if way == "training":
        return 2.5
    return 5.0 if hidden == 64 else 2.0 if hidden >= 256 else None


def random_lengths(steps: int, batch: int) -> np.ndarray:
    return np.random.default_rng(2).integers(max(1, steps // 4), steps, batch, endpoint=True)


def torch_calls(case: Case, lengths: np.ndarray) -> dict[str, measure.Call]:
    """By way: the same as `make_calls`, with torch's packed sequences."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer = getattr(torch.nn, case.cell.upper())(case.shape.I, case.shape.H)
    layer.load_state_dict({name: torch.from_numpy(w) for name, w in make_layer(case).weights.items()})
    x, counts = torch.from_numpy(make_input(case)), torch.from_numpy(lengths)
    dy, x_grad = torch.from_numpy(make_gradient(case)), x.clone().requires_grad_()
    wrt = [x_grad, *layer.parameters()]

    def run(sequences: Any) -> Any:
        packed, state = layer(pack_padded_sequence(sequences, counts, enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=case.shape.T)[0], state

    def inference() -> Any:
        with torch.inference_mode():
            return run(x)

    def training() -> Any:
        y, state = run(x_grad)
        return y, state, torch.autograd.grad(y, wrt, dy)

    return {"frozen": inference, "training": training}


def check(case: Case, lengths: np.ndarray, ours: Any, theirs: Any) -> None:
    """Leave when y, or the gradient by x of training, differ by more than rounding."""
    pairs = [(ours[0], theirs[0])] + ([(ours[2].x, theirs[2][0])] if len(ours) == 3 else [])
    depth = case.shape.I + 5 * case.shape.H
    for own, other in pairs:
        error = errors.relative_error(own, other.detach().numpy())
        if not error <= errors.bound(np.dtype(case.dtype), depth, case.shape.T):
            raise SystemExit(f"{case}: torch's result differs by {error:.1e}")


def measure_case(case: Case, with_torch: bool, seconds: float) -> list[dict[str, Any]]:
    """One row per way."""
    T, B, _, H = case.shape
    lengths = random_lengths(T, B)
    full, ragged = make_calls(case, WAYS), make_calls(case, WAYS, lengths=lengths)
    torchs = torch_calls(case, lengths) if with_torch else {}
    rows = []
    for way in WAYS:
        calls = {"full": full[way], "ragged": ragged[way]} | ({"torch": torchs[way]} if with_torch else {})
        results = {name: call() for name, call in calls.items()}
        if with_torch:
            check(case, lengths, results["ragged"], results["torch"])
        del results
        times = {name: median(values) for name, values in measure.interleave(calls, seconds / len(WAYS), {}).items()}
        proportional = times["ragged"] / lengths.sum() / (times["full"] / (T * B))
        speed_up = times["torch"] / times["ragged"] if with_torch else None
        rows.append(
            {
                "case": str(case),
                "way": way,
                "filled": float(lengths.mean() / T),
                "seconds": times,
                "proportional": figure(float(proportional), at_most=PROPORTIONAL),
                "speed_up": figure(speed_up, at_least=torch_target(way, H)),
            }
        )
    return rows


def main() -> None:
    root = parser(__doc__.splitlines()[0], seconds=90)
    root.add_argument("--steps", type=int, default=50, metavar="T", help="default: 50")
    root.add_argument("--hidden", action="append", type=int, metavar="H", help="repeatable; default: 64, 256, 512; I=H")
    root.add_argument("--batch", action="append", type=int, metavar="B", help="repeatable; default: 8, 32, 128")
    with started(root) as (options, out):
        batches, hidden = options.batch or BATCHES, options.hidden or HIDDEN
        if options.quick:
            options.steps, batches, hidden = 8, (4,), (16,)
        with_torch = machine.version("torch") is not None
        if with_torch:
            import torch

            torch.set_num_threads(options.threads)
        cases = [Case(cell, Shape(options.steps, B, H, H)) for cell in options.cell for H in hidden for B in batches]
        table = new_table(
            f"Lengths uniform in T/4..T, float32, {options.threads} threads: µs per call",
            "per step: time per step of all lengths, over that of the full batch; speed-up: torch's time over ragged's",
        )
        for name in ("cell T,B,I,H", "way"):
            table.add_column(name)
        for name in ("filled", "full", "ragged", "per step", "torch, packed", "speed-up"):
            table.add_column(name, justify="right")
        rows: list[dict[str, Any]] = []
        flops = sum(case.flops for case in cases)
        for case in track(out, cases):
            share = options.seconds * (0.5 / len(cases) + 0.5 * case.flops / flops)
            for row in measure_case(case, with_torch, share):
                rows.append(row)
                times = [
                    duration(row["seconds"][name]) if name in row["seconds"] else "-"
                    for name in ("full", "ragged", "torch")
                ]
                per_step, speed_up = shown(row["proportional"]), shown(row["speed_up"])
                table.add_row(row["case"], row["way"], f"{row['filled']:.0%}", *times[:2], per_step, times[2], speed_up)
        out.print(table)
        for way in WAYS:
            summarise(out, [row["proportional"] for row in rows if row["way"] == way], f"{way}, time per step")
            summarise(out, [row["speed_up"] for row in rows if row["way"] == way], f"{way}, against torch")
        write(options, out, rows)


if __name__ == "__main__":
    main()
