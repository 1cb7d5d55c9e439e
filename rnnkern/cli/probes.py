"""What this machine can do at most, measured: multiply-adds, reading, activations, barriers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from .case import DType
from .machine import cores

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
ROUNDS = 3
"""How often each figure is measured, with the others in between; the best counts."""
TOLERANCE = 1.1
"""Figures that should be equal are at most so far apart."""


@dataclass(frozen=True)
class Cache:
    name: str
    size: int
    """In bytes."""
    cores: int
    """How many share one."""


@dataclass(frozen=True)
class Level:
    """A cache, or the memory."""

    name: str
    size: float
    """Bytes that fit: of one thread, or of all threads together where they share it."""
    shared: bool
    bandwidth: float
    """Bytes that all threads together read from it per second."""


@dataclass(frozen=True)
class Limits:
    """Of a number of threads, all at work."""

    dtype: DType
    threads: int
    peak: float
    """FLOP/s of multiply-adds, all threads together."""
    levels: tuple[Level, ...]
    """From the nearest on; the last one holds everything."""
    sigmoid: float
    """Per second, all threads together."""
    tanh: float
    barrier: float
    """Seconds that the threads take to wait for each other."""
    multiply_add_latency: float
    """Seconds of one that waits for the one before."""
    sigmoid_latency: float
    tanh_latency: float

    def level(self, own: float, together: float) -> Level:
        """Return the nearest level that holds `own` bytes for each thread, `together` bytes in all."""
        return next(level for level in self.levels if (together if level.shared else own) <= level.size)

    def as_dict(self) -> dict[str, Any]:
        levels = [{**asdict(level), "size": int(level.size)} for level in self.levels if math.isfinite(level.size)]
        memory = {"name": self.levels[-1].name, "bandwidth": self.levels[-1].bandwidth}
        return {**asdict(self), "levels": [*levels, memory]}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Limits:
        """Return what `as_dict` was made of."""
        levels = [Level(**{"size": math.inf, "shared": True, **level}) for level in entry["levels"]]
        return cls(**{**entry, "levels": tuple(levels)})


def measure(dtype: DType, threads: int, caches: Sequence[Cache] | None = None) -> Limits:
    """Measure the limits of `threads` threads, in about two seconds.

    Raises
    ------
    RuntimeError
        If there are fewer threads to be had.
    """
    if caches is None:
        caches = find_caches() or caches_of_sweep(*sweep(dtype))
    jobs = {
        name: (name, 0)
        for name in (
            "multiply_add",
            "sigmoid",
            "tanh",
            "barrier",
            "multiply_add_latency",
            "sigmoid_latency",
            "tanh_latency",
        )
    }
    sizes = block_sizes(caches, threads)
    jobs |= {f"read {size}": ("read", size) for size in sizes}
    samples: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(ROUNDS):
        for job, (name, size) in jobs.items():
            samples[job].append(_core.probe(name, np.dtype(dtype), threads, size))
    best = {job: (min if "latency" in job or job == "barrier" else max)(values) for job, values in samples.items()}
    levels = [
        Level(
            cache.name,
            cache.size * (-(-threads // cache.cores) if cache.cores > 1 else 1),
            cache.cores > 1,
            best[f"read {size}"],
        )
        for cache, size in zip(caches, sizes)
    ]
    levels.append(Level("memory", math.inf, True, best[f"read {sizes[-1]}"]))
    return Limits(
        dtype,
        threads,
        best["multiply_add"],
        tuple(levels),
        best["sigmoid"],
        best["tanh"],
        best["barrier"],
        best["multiply_add_latency"],
        best["sigmoid_latency"],
        best["tanh_latency"],
    )


def thread_counts(threads: int) -> list[int]:
    """Powers of two up to `threads`, and `threads`: the teams that a limit chooses from."""
    return sorted({2**i for i in range(threads.bit_length()) if 2**i <= threads} | {threads})


def find_caches(folder: Path = CACHES) -> list[Cache]:
    """Data caches of the first processor from the nearest on, as Linux gives them; empty where it doesn't."""
    found: list[tuple[int, int, int]] = []
    try:
        for index in folder.glob("index*"):
            if (index / "type").read_text().strip() != "Instruction":
                size = (index / "size").read_text().strip()
                factor = {"K": 2**10, "M": 2**20}.get(size[-1:], 1)
                processors = len(listed((index / "shared_cpu_list").read_text()))
                found.append((int((index / "level").read_text()), int(size.rstrip("KM")) * factor, processors))
    except (OSError, ValueError):
        return []
    found.sort()
    return [Cache(f"L{level}", size, max(1, processors // found[0][2])) for level, size, processors in found]


def listed(text: str) -> list[int]:
    """Members of a list such as "0-3,8"."""
    ranges = [[int(end) for end in part.split("-")] for part in text.strip().split(",")]
    return [i for ends in ranges for i in range(ends[0], ends[-1] + 1)]


def sweep(dtype: DType) -> tuple[list[int], list[float]]:
    """Sizes of blocks and the bytes/s at which one thread reads them."""
    sizes = [2**i for i in range(13, 27)]
    return sizes, [max(_core.probe("read", np.dtype(dtype), 1, size) for _ in range(ROUNDS)) for size in sizes]


def caches_of_sweep(sizes: Sequence[int], bandwidths: Sequence[float]) -> list[Cache]:
    """Caches as they show in the bandwidths of growing blocks: one ends where reading gets a fifth slower.

    All but the last of several are taken for a core's own.
    """
    slower = [far < 0.8 * near for near, far in pairwise(bandwidths)]
    ends = [size for size, before, here in zip(sizes, [False, *slower], slower) if here and not before]
    last = len(ends) - 1
    return [Cache(f"L{i + 1}", size, cores() if 0 < i == last else 1) for i, size in enumerate(ends)]


def block_sizes(caches: Sequence[Cache], threads: int) -> list[int]:
    """Bytes a thread that only the cache at that place holds; then what none of them does."""
    sizes: list[int] = []
    for place, cache in enumerate(caches):
        half = cache.size // 2
        if cache.cores > 1 and place:  # beyond the threads' own caches, or it would be those that are measured
            own = caches[place - 1].size
            half = max(2 * own, min(half // min(threads, cache.cores), 4 * own))
        sizes.append(half)
    outside = max([2**26, *(3 * cache.size * -(-threads // cache.cores) for cache in caches)])
    return [*sizes, outside // threads]


def contradictions(teams: Sequence[Limits]) -> list[str]:
    """Say which figures can't be true together: something disturbed them."""
    wrong: list[str] = []
    for team in teams:
        where = f"with {team.threads} thread{'s' * (team.threads > 1)}"
        for near, far in pairwise(team.levels):
            if far.bandwidth > TOLERANCE * near.bandwidth:
                slower, faster = (f"{level.name} ({level.bandwidth / 1e9:.1f} GB/s)" for level in (near, far))
                wrong.append(f"{slower} is slower than {faster} {where}")
    rates: dict[str, Callable[[Limits], float]] = {
        "multiply-adds": lambda team: team.peak,
        "sigmoid": lambda team: team.sigmoid,
        "tanh": lambda team: team.tanh,
    }
    for few, many in pairwise(teams):
        for name, rate in rates.items():
            gain = rate(many) / rate(few)
            if not 1 / TOLERANCE <= gain <= TOLERANCE * many.threads / few.threads:
                wrong.append(f"{name}: {many.threads} threads are {gain:.2f} times as fast as {few.threads}")
    return wrong
