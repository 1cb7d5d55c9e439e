"""PyTorch's recurrent layers after one line, `rnnkern.torch.accelerate`, against before.

Inference under inference_mode, and training: forward and the gradients by input, states and weights. Both take turns in
one process, and their results are compared with the reference first.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import Any

from common import figure, medians, parser, shown, started, summarise, track, write

from rnnkern.cli import machine
from rnnkern.cli.bench import prepare
from rnnkern.cli.case import Case, Shape
from rnnkern.cli.peers import Torch, TorchModule
from rnnkern.cli.report import duration, new_table

WAYS = ("inference", "training")
MEAN = {"inference": 4.0, "training": 6.0}
"""Of the speed-ups: the geometric mean."""
LEAST = 1.0
"""Of each."""
SHAPES = [Shape(T, B, H, H) for T in (1, 20, 100) for B in (1, 8, 64) for H in (32, 128, 512) if T * B * H < 10**6]
DEEP = Shape(50, 16, 128, 128)


def cases_of(cell: str) -> list[Case]:
    """The grid, and what else a layer may be."""
    return [
        *(Case(cell, shape) for shape in SHAPES),
        Case(cell, Shape(50, 16, 40, 200)),
        Case(cell, DEEP, num_layers=2),
        Case(cell, DEEP, bidirectional=True),
        Case(cell, DEEP, ragged=True),
        Case(cell, DEEP, dtype="float64"),
    ]


def measure_case(case: Case, way: str, seconds: float) -> dict[str, Any]:
    calls, failed, _ = prepare(case, [Torch, TorchModule], way == "training")
    if failed:
        raise SystemExit(f"{case}: {failed}")
    times = medians(calls, seconds)
    seconds_by = {"stock": times[Torch.name], "accelerated": times[TorchModule.name]}
    speed_up = figure(seconds_by["stock"] / seconds_by["accelerated"], at_least=LEAST)
    return {"case": str(case), "cell": case.cell, "way": way, "seconds": seconds_by, "speed_up": speed_up}


def main() -> None:
    root = parser(__doc__.splitlines()[0], seconds=240)
    root.add_argument("--way", choices=WAYS, help="default: both")
    if machine.version("torch") is None:
        root.error("this program needs torch")
    with started(root) as (options, out):
        Torch.load(options.threads)
        ways = [options.way] if options.way else list(WAYS)
        cases = [case for cell in options.cell for case in cases_of(cell)]
        if options.quick:
            cases = [Case(cell, Shape(4, 2, 8, 8)) for cell in options.cell]
        table = new_table(
            f"torch {machine.version('torch')}, {options.threads} threads: µs per call", "speed-up: stock / accelerated"
        )
        table.add_column("cell T,B,I,H")
        for name in [f"{way}, {column}" for way in ways for column in ("stock", "accelerated", "speed-up")]:
            table.add_column(name, justify="right")
        rows: list[dict[str, Any]] = []
        flops = sum(case.flops for case in cases)
        for case in track(out, cases):
            share = options.seconds * (0.5 / len(cases) + 0.5 * case.flops / flops)
            made = [measure_case(case, way, share / len(ways)) for way in ways]
            rows += made
            columns = [(*map(duration, row["seconds"].values()), shown(row["speed_up"])) for row in made]
            table.add_row(str(case), *(column for group in columns for column in group))
        out.print(table)
        means = []
        for way in ways:
            found = [row for row in rows if row["way"] == way]
            by_cell = {
                cell: geometric_mean([row["speed_up"]["value"] for row in found if row["cell"] == cell])
                for cell in options.cell
            }
            mean = figure(geometric_mean([row["speed_up"]["value"] for row in found]), at_least=MEAN[way])
            worst = min(found, key=lambda row: row["speed_up"]["value"])
            means.append({"way": way, "mean": mean, "by_cell": by_cell, "worst": worst})
            cells = ", ".join(f"{cell.upper()} {value:.2f}" for cell, value in by_cell.items())
            out.print(
                f"{way}: geometric mean",
                shown(mean),
                f"({cells}); worst {worst['speed_up']['value']:.2f}, {worst['case']}",
            )
            summarise(out, [row["speed_up"] for row in found], f"{way}, speed-up")
        write(options, out, {"rows": rows, "means": means})


if __name__ == "__main__":
    main()
