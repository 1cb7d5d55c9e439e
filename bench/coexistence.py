"""Whether torch and rnnkern slow each other down when one process uses both in turn.

Blocks of calls in random order, many rounds: each side's work alone, each in turn with a call of its own library that
fills the second-level caches, and both in turn. Some of what working in turn costs is caches: the other's data evicts
what the next call needs. So `slow-down` is against alone, and `against cold`, where caches are out of the question,
shows what is left for the thread pools. All this in two processes: one imports torch first, the other rnnkern.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import figure, in_new_process, make_calls, parser, shown, started, summarise, track, write
from threadpoolctl import threadpool_info

import rnnkern
from rnnkern.cli import machine, measure
from rnnkern.cli.case import Case, Shape
from rnnkern.cli.report import duration, new_table

OURS = {
    "LSTM 100,1,256,256": (Shape(100, 1, 256, 256), "frozen"),
    "LSTM 50,32,64,64": (Shape(50, 32, 64, 64), "frozen"),
    "LSTM 24,32,64,64 training": (Shape(24, 32, 64, 64), "training"),
}
TORCHS = {"matmul 512": 512, "nn.LSTM 50,8,128,128": Shape(50, 8, 128, 128)}
COLD = Shape(2, 1, 512, 512)
"""8 MiB of weights, read by all threads."""
MOST = 1.05
BLOCK = 0.012
"""Seconds of timed calls per member of a block."""
ROUNDS = (3, 60)
TASKS = Path("/proc/self/task")


def our_work(name: str) -> list[measure.Call]:
    """The call, and one that reads more than fits into the second-level caches."""
    shape, way = OURS[name]
    return [make_calls(Case("lstm", shape), [way])[way], make_calls(Case("lstm", COLD), ["frozen"])["frozen"]]


def torch_work(name: str) -> list[measure.Call]:
    """The same for torch."""
    import torch

    size = TORCHS[name]
    many = torch.zeros(8 * COLD.H**2)
    return [matmul(torch, size) if isinstance(size, int) else torch_lstm(torch, size), lambda: many.add_(1)]


def matmul(torch: Any, size: int) -> measure.Call:
    a, b = torch.rand(size, size), torch.rand(size, size)
    return lambda: a @ b


def torch_lstm(torch: Any, shape: Shape) -> measure.Call:
    layer, x = torch.nn.LSTM(shape.I, shape.H), torch.rand(*shape[:3])

    def run() -> Any:
        with torch.inference_mode():
            return layer(x)

    return run


def block(calls: Sequence[measure.Call], expected: float) -> list[float]:
    """Call in turn; medians by call, without the first few."""
    measure.quieten()
    count = max(5, min(200, int(BLOCK / expected)))
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(count + 3):
        for call, times in zip(calls, samples):
            times.append(measure.once(call))
    return [median(times[3:]) for times in samples]


def threads_now() -> int | None:
    return len(list(TASKS.iterdir())) if TASKS.exists() else None


def pair(our_name: str, torch_name: str, threads: int, seconds: float) -> dict[str, Any]:
    """Seconds per call alone and alternating, block by block, and the thread pools of this process."""
    import torch

    torch.set_num_threads(threads)
    order = [name for name in sys.modules if name in ("torch", "rnnkern")]
    with rnnkern.num_threads(threads):
        (ours, our_filler), (theirs, their_filler) = our_work(our_name), torch_work(torch_name)
        for call in (ours, our_filler, theirs, their_filler):
            call()
        calls = {
            "alone": [[ours], [theirs]],
            "cold": [[ours, our_filler], [theirs, their_filler]],
            "mixed": [[ours, theirs]],
        }
        found: dict[str, list[list[float]]] = {mode: [[], []] for mode in calls}
        expected = max(measure.estimate(ours), measure.estimate(theirs))
        jobs = [(mode, side) for mode, members in calls.items() for side in range(len(members))]
        end = time.perf_counter() + seconds
        least, most = ROUNDS if seconds > 0 else (1, 1)
        shuffle = random.Random(0).shuffle
        with measure.no_collection():
            while len(found["mixed"][0]) < least or (len(found["mixed"][0]) < most and time.perf_counter() < end):
                shuffle(jobs)
                for mode, side in jobs:
                    medians = block(calls[mode][side], expected)
                    if mode == "mixed":
                        found[mode][0].append(medians[0])
                        found[mode][1].append(medians[1])
                    else:
                        found[mode][side].append(medians[0])
        pools = [(pool["user_api"], Path(pool["filepath"]).name, pool["num_threads"]) for pool in threadpool_info()]
        return {"imported": order, "blocks": found, "pools": pools, "threads": threads_now()}


def slow_down(blocks: dict[str, list[list[float]]], side: int) -> dict[str, Any]:
    """Medians over the rounds of the seconds, and of the ratios within a round."""
    alone, cold, mixed = (np.array(blocks[mode][side]) for mode in ("alone", "cold", "mixed"))
    return {
        **{name: float(np.median(times)) for name, times in (("alone", alone), ("cold", cold), ("mixed", mixed))},
        "slow_down": figure(float(np.median(mixed / alone)), at_most=MOST),
        "against_cold": figure(float(np.median(mixed / cold)), at_most=MOST),
        "quartiles": np.quantile(mixed / alone, (0.25, 0.75)).tolist(),
    }


def main() -> None:
    root = parser(__doc__.splitlines()[0], cells=False)
    if machine.version("torch") is None:
        root.error("this program needs torch")
    with started(root) as (options, out):
        pairs = [(first, ours, theirs) for first in ("torch", "rnnkern") for ours in OURS for theirs in TORCHS]
        if options.quick:
            pairs = pairs[1:2]
        table = new_table(
            f"torch {machine.version('torch')} and rnnkern, {options.threads} threads each: µs per call",
            "medians over rounds; slow-down: mixed / alone in a round, and its quartiles; against cold: mixed / cold",
        )
        for name in ("first import", "call", "in turn with"):
            table.add_column(name)
        for name in ("alone", "cold", "mixed", "slow-down", "quartiles", "against cold"):
            table.add_column(name, justify="right")
        rows: list[dict[str, Any]] = []
        states = {}
        for first, ours, theirs in track(out, pairs):
            share = options.seconds / len(pairs)
            found = in_new_process(pair, ours, theirs, options.threads, share, before=f"import {first}")
            states[first] = {name: found[name] for name in ("imported", "pools", "threads")}
            for side, (name, other) in enumerate(((ours, theirs), (theirs, ours))):
                row = {"first": first, "call": name, "other": other, "ours": side == 0} | slow_down(
                    found["blocks"], side
                )
                rows.append(row)
                times = (duration(row[mode]) for mode in ("alone", "cold", "mixed"))
                low, high = row["quartiles"]
                quartiles = f"{low:.2f}..{high:.2f}"
                ratios = shown(row["slow_down"], 3), quartiles, shown(row["against_cold"], 3)
                table.add_row(
                    first, name if side else f"rnnkern {name}", f"{'rnnkern ' * side}{other}", *times, *ratios
                )
        out.print(table)
        for state in states.values():
            pools = ", ".join(f"{file} ({api}, {count} threads)" for api, file, count in state["pools"])
            out.print(f"{' then '.join(state['imported'])}: {pools}; {state['threads']} threads exist")
        summarise(out, [row["slow_down"] for row in rows], "slow-down")
        summarise(out, [row["against_cold"] for row in rows], "against cold")
        write(options, out, {"rows": rows, "processes": states})


if __name__ == "__main__":
    main()
