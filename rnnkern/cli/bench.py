"""`bench`: this machine against the peers that are installed."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

import rnnkern

from ..settings import config
from . import errors, files, machine, measure, probes
from .case import CELLS, GRID, Case, Problem, Results, Shape, default_cases
from .contenders import OWN, Contender, Reference
from .limit import limit
from .outcome import Outcome, headline, means
from .peers import load_peers
from .report import console, limits_table, print_report, warn_if_busy, write_json, write_picture

IDLE_SHAPE = Shape(100, 1, 256, 256)
"""Split over the threads, and short."""


def run(options: argparse.Namespace) -> int:
    """Measure, print, write. The exit code is 1 when a contender failed or computed something else."""
    out = console()
    check_outputs(options)
    if options.roofline and not options.limit:
        options.fail("argument --roofline: needs --limit")
    cases = list(dict.fromkeys(case for cell in options.cell or CELLS for case in wanted_cases(options, cell)))
    check_sizes(options, cases)
    end = time.perf_counter() + options.seconds
    facts = machine.describe()
    warn_if_busy(out, facts["load"])
    with equal_threads(options.threads) as threads:
        with out.status("importing peers"):
            peers, absent = load_peers(threads)
        kinds = [kind for kind in (*OWN, *peers) if kind.trains or not options.train]
        absent |= {kind.name: "does not train" for kind in peers if kind not in kinds}
        for reason in dict.fromkeys(absent.values()):
            who = ", ".join(name for name in absent if absent[name] == reason)
            out.print(f"without {escape(who)}: {escape(reason)}", soft_wrap=True)
        teams = measure_limits(out, options, threads) if options.limit else []
        idle, outcomes = measure_all(out, cases, kinds, options, end, teams)
    names = [kind.name for kind in sorted(kinds, key=lambda kind: kind is Reference)]
    settings = {"train": options.train, "threads": threads, "dtype": options.dtype, "seconds": options.seconds}
    title = headline(settings, facts)
    print_report(out, outcomes, names, f"{title}: µs per call", idle, str(idle_case(options)))
    if left_out := sum(outcome.left_out for outcome in outcomes):
        out.print(f"No time for {left_out} of {len(outcomes)} rows, the longest: --seconds", style="yellow")
    if options.json:
        versions = {name: machine.version(name) for name in ("numpy", *(kind.name for kind in peers if kind.peer))}
        record = {"rnnkern": config(), "machine": facts, "versions": versions, "settings": settings, "absent": absent}
        write_json(out, options.json, record | results(outcomes, teams, idle, idle_case(options)))
    draw_pictures(out, options, outcomes, teams, title)
    return 1 if any(outcome.errors for outcome in outcomes) else 0


def idle_case(options: argparse.Namespace) -> Case:
    return Case((options.cell or CELLS)[0], IDLE_SHAPE, dtype=options.dtype)


def results(
    outcomes: Sequence[Outcome], teams: Sequence[probes.Limits], idle: Mapping[str, float], case: Case
) -> dict[str, Any]:
    """What was measured, as it stands in the JSON; `idle` on `case`."""
    return {
        "limits": [team.as_dict() for team in teams],
        "results": [outcome.as_dict() for outcome in outcomes],
        "disturbed": sum(outcome.disturbed for outcome in outcomes),
        "left_out": sum(outcome.left_out for outcome in outcomes),
        "geometric_means": means(outcomes),
        "idle": {"case": str(case), "extra_microseconds": {name: s * 1e6 for name, s in idle.items()}},
    }


def draw_pictures(
    out: Console, options: argparse.Namespace, outcomes: Sequence[Outcome], teams: Sequence[probes.Limits], title: str
) -> None:
    if options.plot:
        from ..plot.speedups import draw

        write_picture(out, options.plot, draw(outcomes, title))
    if options.roofline:
        from ..plot.roofs import draw_roofline

        write_picture(out, options.roofline, draw_roofline(outcomes, teams[-1], title))


def wanted_cases(options: argparse.Namespace, cell: str) -> list[Case]:
    """What the options ask for of one cell; by default the grid and what it lacks."""
    varied = (options.layers, options.bidirectional, options.ragged)
    if options.shape is None and varied == (1, False, False):
        return [replace(case, dtype=options.dtype) for case in default_cases(cell)]
    return [Case(cell, shape, *varied, dtype=options.dtype) for shape in options.shape or GRID]


def measure_limits(out: Console, options: argparse.Namespace, threads: int) -> list[probes.Limits]:
    """Measure what the machine can do at most, and print it."""
    with out.status("measuring the machine's limits"):
        try:
            teams = [probes.measure(options.dtype, count) for count in probes.thread_counts(threads)]
        except (RuntimeError, ValueError) as error:  # fewer threads than asked for, or more than there can be
            options.fail(f"argument --threads: {error}")
    out.print(limits_table(teams, f"Limits of this machine, {options.dtype}"))
    for contradiction in probes.contradictions(teams):
        out.print(f"The limits were disturbed: {contradiction}", style="yellow")
    return teams


def check_outputs(options: argparse.Namespace) -> None:
    """Leave before the work when its results couldn't be written; a picture that nobody asked for is left out then."""
    if options.plot == files.PICTURE and (reason := files.unwritable(options.plot)):
        print(f"no picture: {reason}", file=sys.stderr)
        options.plot = None
    for option in ("json", "plot", "roofline"):
        path: Path | None = getattr(options, option, None)
        if path is not None and (reason := files.unwritable(path)):
            options.fail(f"argument --{option}: {reason}")
        if path is not None and option != "json":
            from ..plot.speedups import formats

            if path.suffix[1:] not in formats():
                options.fail(f"argument --{option}: {path} must end in one of .{', .'.join(formats())}")


def check_sizes(options: argparse.Namespace, cases: Sequence[Case]) -> None:
    memory = machine.describe()["memory_bytes"]
    for case in cases:
        if case.nbytes > memory:
            need, have = (f"{size / 2**30:,.0f} GiB" for size in (case.nbytes, memory))
            options.fail(f"argument --shape: {case} takes about {need}, this machine has {have}")


@contextmanager
def equal_threads(wanted: int | None) -> Iterator[int]:
    """Set and yield the number of threads of rnnkern; NumPy's BLAS gets one, its others would spin into all turns."""
    threads = wanted or rnnkern.get_num_threads()
    with threadpool_limits(1, "blas"), rnnkern.num_threads(threads):
        yield threads


def measure_all(
    out: Console,
    cases: Sequence[Case],
    kinds: Sequence[type[Contender]],
    options: argparse.Namespace,
    end: float,
    teams: Sequence[probes.Limits],
) -> tuple[dict[str, float], list[Outcome]]:
    """Share the time until `end` (of `time.perf_counter`) among the cases, by their size.

    The longest come last: they are left out when there is no time left. With limits of the machine's `teams`, the
    outcomes have a limit, too. The first result is what `measure.first_after_idle` returns.
    """
    shares = {case: max(0.01, case.flops / 5e10) for case in cases}
    order = sorted(cases, key=lambda case: case.flops)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: dict[Case, Outcome] = {}
    with Progress(*bar, console=out, transient=True) as progress:
        task = progress.add_task("idle cost", total=len(cases))
        start = time.perf_counter()
        calls, _, _ = prepare(idle_case(options), [kind for kind in kinds if kind is not Reference], train=False)
        set_up = [time.perf_counter() - start]
        idle = measure.first_after_idle(calls, 0.05 * options.seconds)
        del calls
        for index, case in enumerate(order):
            progress.update(task, description=str(case), completed=index)
            start = time.perf_counter()
            if found and start + sum(set_up) / len(set_up) > end:
                break
            calls, failed, lacks = prepare(case, kinds, options.train)
            now = time.perf_counter()
            set_up.append(now - start)
            later = sum(set_up) / len(set_up) * (len(order) - index - 1)
            seconds = max(0.0, end - now - later) * shares[case] / sum(shares[case] for case in order[index:])
            turns = {kind.name: kind.turns for kind in kinds if kind.turns is not None}
            timings = measure.interleave(calls, seconds, turns)
            least = limit(case, options.train, teams) if teams else None
            found[case] = Outcome(case, timings, failed, lacks, least)
            del calls
        progress.update(task, completed=len(cases))
    return idle, [found.get(case) or Outcome(case, {}, {}) for case in cases]


def prepare(
    case: Case, kinds: Sequence[type[Contender]], train: bool
) -> tuple[dict[str, Callable[[], Any]], dict[str, str], dict[str, str]]:
    """Make the contenders and compare what they compute with the reference.

    Returns
    -------
    calls
        By name: what to time, of those whose results are right.
    failed
        By name: what is wrong with others.
    lacks
        By name: what the rest don't do.
    """
    problem = Problem(case)
    reference = Reference(problem)
    truth = outputs(reference, train)
    calls: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    lacks = {kind.name: lack for kind in kinds if (lack := kind.lacks(case)) is not None}
    for kind in kinds:
        if kind.name in lacks:
            continue
        try:
            contender = reference if kind is Reference else kind(problem)
            wrong = [] if contender is reference else differences(case, outputs(contender, train), truth)
        except Exception as error:  # whatever a peer raises is for the report
            failed[kind.name] = f"{type(error).__name__}: {error}"
            continue
        if wrong:
            failed[kind.name] = "differs from the reference: " + ", ".join(wrong)
        else:
            calls[kind.name] = contender.train if train else contender.infer
    return calls, failed, lacks


def outputs(contender: Contender, train: bool) -> Results:
    return contender.trained(contender.train()) if train else contender.inferred(contender.infer())


def differences(case: Case, actual: Results, truth: Results) -> list[str]:
    """Say what is missing, too much, or too far away."""
    wrong = [f"{name} only on one side" for name in sorted(actual.keys() ^ truth.keys())]
    spec = case.spec
    widest = max(spec.layer_input_size(layer) for layer in range(case.num_layers))
    for name in actual.keys() & truth.keys():
        summed = math.prod(case.shape[:2]) if name.startswith(("dweight", "dbias")) else 0
        depth = widest + (1 + case.gates) * case.shape.H + summed
        allowed = errors.bound(spec.dtype, depth, case.shape.T * case.num_layers)
        error = errors.relative_error(actual[name], truth[name])
        if not error <= allowed:
            wrong.append(f"{name} by {error:.1e}, allowed {allowed:.1e}")
    return wrong
