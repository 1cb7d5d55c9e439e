"""How much faster more threads are than one, and float32 than float64.

All variants of a case take turns in one process. Only calls count that take a millisecond or more with one thread:
the others have too little work for a second.
"""

from __future__ import annotations

from dataclasses import replace

from common import WAYS, figure, limited, make_calls, medians, parser, shown, started, summarise, track, write

from rnnkern.cli import measure
from rnnkern.cli.case import GRID, Case, Shape
from rnnkern.cli.report import duration, new_table

LEAST = 1e-3
"""Seconds with one thread."""
NETS = (
    *((shape, {}) for shape in GRID),
    *((Shape(100, 1, H, H), kind) for H in (256, 512) for kind in ({"bidirectional": True}, {"num_layers": 2})),
)
QUICK = ((Shape(10, 8, 32, 32), {}),)


def speed_up_target(case: Case, threads: int) -> float | None:
    """Of two threads over one."""
    batch, hidden = case.shape.B, case.shape.H
    if threads != 2 or (batch < 8 and hidden < 256):
        return None
    return 1.8 if batch >= 8 or case.bidirectional or case.num_layers > 1 else 1.6


def float64_target(case: Case) -> float | None:
    """Of float64's speed over float32's: where multiply-adds bind."""
    return 0.45 if case.shape.B >= 8 else None


def measure_case(case: Case, ways: list[str], threads: int, wide: bool, seconds: float, least: float) -> list[dict]:
    """One row per way that takes long enough: its seconds and ratios."""
    narrow = make_calls(case, ways)
    calls, kept = {}, []
    for way, call in narrow.items():
        calls[f"{way} 1"], calls[way] = limited(call, 1), limited(call, threads)
        calls[way]()
        if measure.estimate(calls[f"{way} 1"]) < least:
            del calls[f"{way} 1"], calls[way]
        else:
            kept.append(way)
    if wide:
        for way, call in make_calls(replace(case, dtype="float64"), kept).items():
            calls[f"{way} float64"] = limited(call, threads)
            calls[f"{way} float64"]()
    seconds_of = medians(calls, seconds)
    rows = []
    for way in kept:
        one, many, double = (seconds_of.get(name) for name in (f"{way} 1", way, f"{way} float64"))
        rows.append(
            {
                "case": str(case),
                "way": way,
                "seconds": {"one_thread": one, "threads": many, "float64": double},
                "speed_up": figure(one / many, at_least=speed_up_target(case, threads)),
                "float64_speed": figure(many / double if double else None, at_least=float64_target(case)),
            }
        )
    return rows


def main() -> None:
    root = parser(__doc__.splitlines()[0], seconds=120)
    root.add_argument("--way", action="append", choices=WAYS, help="repeatable; default: all")
    root.add_argument(
        "--dtype", choices=("float32", "float64", "both"), default="both", help="both: float32's speed-up and the ratio"
    )
    with started(root) as (options, out):
        if options.threads == 1:
            root.error("argument --threads: one thread against one says nothing")
        ways = list(dict.fromkeys(options.way or WAYS))
        dtype = "float64" if options.dtype == "float64" else "float32"
        cases = [
            Case(cell, shape, dtype=dtype, **kind)
            for cell in options.cell
            for shape, kind in (QUICK if options.quick else NETS)
        ]
        table = new_table(f"{options.threads} threads against one: µs per call")
        for name in ("case", "way"):
            table.add_column(name)
        for name in ("1 thread", f"{options.threads} threads", "speed-up", "float64", "float64's speed"):
            table.add_column(name, justify="right")
        rows: list[dict] = []
        for case in track(out, cases):
            share = options.seconds / len(cases)
            new = measure_case(
                case, ways, options.threads, options.dtype == "both", share, 0 if options.quick else LEAST
            )
            rows += new
            for row in new:
                one, many, double = row["seconds"].values()
                table.add_row(
                    row["case"],
                    row["way"],
                    duration(one),
                    duration(many),
                    shown(row["speed_up"]),
                    duration(double) if double else "-",
                    shown(row["float64_speed"]),
                )
        out.print(table)
        out.print(
            f"{len(cases) * len(ways) - len(rows)} of {len(cases) * len(ways)} take less than 1 ms with one thread"
        )
        summarise(out, [row["speed_up"] for row in rows], "speed-up")
        summarise(out, [row["float64_speed"] for row in rows], "float64's speed / float32's")
        write(options, out, rows)


if __name__ == "__main__":
    main()
