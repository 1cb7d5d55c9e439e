"""Sequences of different lengths: against the full batch, and against torch's packed sequences.

Lengths are uniform in T/4..T, in random order. All take turns in one process. torch packs, runs and pads again, as its
users do: our layers take and give padded arrays. All results are compared with the reference first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from common import figure, medians, parser, shown, started, summarise, track, write

from rnnkern.cli import machine
from rnnkern.cli.bench import prepare
from rnnkern.cli.case import Case, Shape
from rnnkern.cli.contenders import Contender, Frozen, Live
from rnnkern.cli.peers import Torch
from rnnkern.cli.report import duration, new_table

BATCHES = (8, 32, 128)
HIDDEN = (64, 256, 512)
PROPORTIONAL = 1.1
WAYS = {"frozen": Frozen, "training": Live}


def torch_target(way: str, hidden: int) -> float | None:
    """How many times faster than torch."""
    if way == "training":
        return 2.5
    return 5.0 if hidden == 64 else 2.0 if hidden >= 256 else None


def measure_case(case: Case, peers: list[type[Contender]], seconds: float) -> list[dict[str, Any]]:
    """One row per way."""
    T, B, _, H = case.shape
    rows = []
    for way, own in WAYS.items():
        train = way == "training"
        full, *_ = prepare(replace(case, ragged=False), [own], train)
        ragged, failed, _ = prepare(case, [own, *peers], train)
        if failed:
            raise SystemExit(f"{case}: {failed}")
        calls = {"full": full[own.name], "ragged": ragged.pop(own.name), **ragged}
        times = medians(calls, seconds / len(WAYS))
        proportional = times["ragged"] / case.lengths.sum() / (times["full"] / (T * B))
        speed_up = times["torch"] / times["ragged"] if peers else None
        rows.append(
            {
                "case": str(case),
                "way": way,
                "filled": float(case.lengths.mean() / T),
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
        peers = [Torch] if machine.version("torch") else []
        for peer in peers:
            peer.load(options.threads)
        shapes = [Shape(options.steps, B, H, H) for H in hidden for B in batches]
        cases = [Case(cell, shape, ragged=True) for cell in options.cell for shape in shapes]
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
            for row in measure_case(case, peers, share):
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
