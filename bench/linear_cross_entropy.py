"""Output layer with softmax and cross-entropy: against torch's linear + cross_entropy, in time and in memory.

torch runs as its users do: `cross_entropy(linear(h, weight, bias), targets)`, under `inference_mode` or with
`autograd.grad`. All take turns in one process; each peak is that of a fresh one, beyond arguments and results, with
huge pages off.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from common import figure, in_new_process, medians, parser, shown, started, summarise, track, write
from memory import PR_SET_THP_DISABLE, STATUS, forget, resident

import rnnkern
from rnnkern import reference
from rnnkern.cli import machine
from rnnkern.cli.report import duration, new_table

FASTER = 1.0
WAYS = ("forward", "gradients")
REPEATS = 3
"""Of the peak, where it is not quick."""


class Size(NamedTuple):
    N: int
    """Positions, T * B."""
    H: int
    V: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SIZES = (Size(4096, 256, 10_000), Size(4096, 256, 100), Size(512, 512, 50_000))
QUICK = (Size(300, 32, 2000),)
WARM_UP = Size(8, 8, 8)

Results = tuple[np.ndarray, ...]
"""The loss, then the gradients by h, weight and bias where they are wanted."""


def arguments(size: Size, dtype: str = "float32") -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    h = random.standard_normal((size.N, size.H), dtype=np.float32)
    weight = random.standard_normal((size.V, size.H), dtype=np.float32) / np.float32(size.H**0.5)
    bias = random.standard_normal(size.V, dtype=np.float32)
    return *(array.astype(dtype) for array in (h, weight, bias)), random.integers(0, size.V, size.N)


def own(size: Size, way: str) -> Callable[[], Results]:
    given = arguments(size)
    if way == "forward":
        return lambda: (rnnkern.linear_cross_entropy(*given),)

    def call() -> Results:
        loss, grads = rnnkern.linear_cross_entropy(*given, gradient=True)
        return loss, *grads

    return call


def torchs(size: Size, way: str) -> Callable[[], Results]:
    import torch
    from torch.nn.functional import cross_entropy, linear

    *leaves, targets = map(torch.from_numpy, arguments(size))
    if way == "forward":

        def call() -> Results:
            with torch.inference_mode():
                return (cross_entropy(linear(*leaves), targets).numpy(),)
    else:
        for leaf in leaves:
            leaf.requires_grad_()

        def call() -> Results:
            loss = cross_entropy(linear(*leaves), targets)
            return loss.detach().numpy(), *(gradient.numpy() for gradient in torch.autograd.grad(loss, leaves))

    return call


WHO = {"rnnkern": own, "torch": torchs}


def peak(who: str, way: str, sizes: list[int], threads: int) -> int:
    """Bytes beyond arguments and results, measured in this process."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    if who == "torch":
        import torch

        torch.set_num_threads(threads)
    with rnnkern.num_threads(threads):
        for size in (WARM_UP, Size(*sizes)):
            call = WHO[who](size, way)
            forget()
            before = resident("VmRSS")
            results = call()
            beyond = resident("VmHWM") - before - sum(array.nbytes for array in results)
    return beyond


def check(size: Size, calls: dict[str, Callable[[], Results]]) -> None:
    """Compare all results with the reference's."""
    expected = reference.linear_cross_entropy(*arguments(size, "float64"), gradient=True)
    for name, call in calls.items():
        for actual, right in zip(call(), expected):
            error = float(np.abs(actual - right).max() / np.abs(right).max())
            if not error < np.finfo(np.float32).eps * (size.N + size.H + size.V) ** 0.5:
                raise SystemExit(f"{size}: {name} is off by {error:.2g} of the largest value")


def measure_size(size: Size, who: list[str], way: str, seconds: float, threads: int, repeats: int) -> dict[str, Any]:
    calls = {name: WHO[name](size, way) for name in who}
    check(size, calls)
    times = medians(calls, seconds)
    peaks = {name: median(in_new_process(peak, name, way, size, threads) for _ in range(repeats)) for name in who}
    speed_up = times["torch"] / times["rnnkern"] if "torch" in who else None
    return {
        "size": size._asdict(),
        "way": way,
        "seconds": times,
        "peak": peaks,
        "logits": 4 * size.N * size.V,
        "speed_up": figure(speed_up, at_least=FASTER),
    }


def main() -> None:
    root = parser(__doc__.splitlines()[0], cells=False)
    if not STATUS.exists():
        root.error("this program needs Linux's /proc")
    with started(root) as (options, out):
        who = ["rnnkern", *(["torch"] if machine.version("torch") else [])]
        if "torch" in who:
            import torch

            torch.set_num_threads(options.threads)
        todo = [(size, way) for size in (QUICK if options.quick else SIZES) for way in WAYS]
        table = new_table(
            f"linear_cross_entropy, float32, {options.threads} threads",
            "peak: beyond arguments and results, in a fresh process; logits: the size of (N, V)",
        )
        for name in ("N,H,V", "", *who, "× torch", *(f"peak of {name}, MB" for name in who), "logits, MB"):
            table.add_column(name, justify="left" if name in ("", "N,H,V") else "right")
        rows = []
        for size, way in track(out, todo):
            repeats = 1 if options.quick else REPEATS
            row = measure_size(size, who, way, options.seconds / len(todo), options.threads, repeats)
            rows.append(row)
            table.add_row(
                str(size),
                way,
                *(duration(row["seconds"][name]) for name in who),
                shown(row["speed_up"]),
                *(f"{row['peak'][name] / 1e6:.1f}" for name in who),
                f"{row['logits'] / 1e6:.1f}",
            )
        out.print(table)
        summarise(out, [row["speed_up"] for row in rows], "speed-up")
        write(options, out, rows)


if __name__ == "__main__":
    main()
