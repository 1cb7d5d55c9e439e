"""Fair timing: contenders take turns in random order, so that whatever disturbs the machine disturbs them all."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

from . import machine
from .timing import BUSY, Timing, Turn

Call = Callable[[], Any]

QUIET = (0.004, 0.3)
"""Before a turn: sleeps (s) until no thread of this process has run during one, and when (s) to give up."""

QUIETENING = 0.02
"""What that takes (s), roughly."""

SETTLE = 0.003
"""Untimed calls (s) at the start of a turn: caches and own threads get warm."""
SLICE = 0.006
"""Timed calls (s) in a turn."""
LONG = 0.03
"""A call of so many seconds isn't disturbed by what settling is for."""
ROUNDS = 40
"""At most."""


def once(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def estimate(call: Call) -> float:
    """Seconds of an undisturbed call, roughly."""
    samples = [once(call)]
    while len(samples) < 5 and sum(samples) < 2 * LONG:
        samples.append(once(call))
    return min(samples)


def quieten() -> None:
    """Sleep until no thread pool spins any more, which takes some tens of milliseconds."""
    nap, patience = QUIET
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        start = time.process_time()
        time.sleep(nap)
        if time.process_time() - start < nap / 10:
            return


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def turn(call: Call, expected: float) -> Turn:
    """One turn of calls that take about `expected` seconds."""
    quieten()
    start, waited = time.perf_counter(), machine.waited()
    end = time.perf_counter() + SETTLE
    while expected < LONG:
        call()
        if time.perf_counter() >= end:
            break
    samples = [once(call) for _ in range(max(1, min(100, int(SLICE / expected))))]
    seconds = time.perf_counter() - start
    return Turn(samples, (machine.waited() - waited) / seconds)


def interleave(calls: Mapping[str, Call], seconds: float, turns: Mapping[str, int]) -> dict[str, Timing]:
    """Time warm calls against each other.

    Parameters
    ----------
    calls
        By name; each has run before.
    seconds
        To spend in all. Each call has one turn, however long it takes; others are left out where the time ends.
    turns
        The most turns of some of the calls, spread over the rounds and within a quarter of the time, but at least one.
    """
    begin, others = time.perf_counter(), machine.used_by_others()
    end = begin + seconds
    found: dict[str, list[Turn]] = {name: [] for name in calls}
    shuffle = random.Random(0).shuffle
    with no_collection():
        estimates = {name: estimate(call) for name, call in calls.items()}
        costs = {
            name: QUIETENING + (expected if expected >= LONG else max(SETTLE, expected) + max(SLICE, expected))
            for name, expected in estimates.items()
        }
        limits = {
            name: max(1, min(limit, int(0.25 * seconds / costs[name])))
            for name, limit in turns.items()
            if name in calls
        }
        rest = seconds - sum(costs[name] * limit for name, limit in limits.items())
        round_cost = sum(cost for name, cost in costs.items() if name not in limits)
        rounds = max(1, min(ROUNDS, int(rest / round_cost))) if round_cost else 1
        for index in range(rounds):
            names = [name for name in calls if index % -(-rounds // limits.get(name, rounds)) == 0]
            shuffle(names)
            for name in names:
                start = time.perf_counter()
                if found[name] and start + costs[name] > end:
                    continue
                found[name].append(turn(calls[name], estimates[name]))
                costs[name] = time.perf_counter() - start
    busy = (machine.used_by_others() - others) / (time.perf_counter() - begin) if calls else 0.0
    return {name: Timing.of(had, busy) for name, had in found.items()}


def first_after_idle(calls: Mapping[str, Call], seconds: float, idle: float = 0.05) -> dict[str, float]:
    """By name: what the first call after `idle` seconds of sleep takes more than the hot calls before (s).

    The median of up to 9, as `seconds` allow, but 3. Nothing if other programs were at work.
    """
    begin, others = time.perf_counter(), machine.used_by_others()
    extra: dict[str, list[float]] = {name: [] for name in calls}
    with no_collection():
        for repeat in range(9):
            if repeat >= 3 and time.perf_counter() - begin > seconds:
                break
            for name, call in calls.items():
                hot = [once(call) for _ in range(9)][2:]  # the first ones bring its data back into the caches
                quieten()
                time.sleep(idle)
                extra[name].append(once(call) - median(hot))
    busy = (machine.used_by_others() - others) / (time.perf_counter() - begin)
    return {name: median(values) for name, values in extra.items()} if busy <= BUSY else {}
