"""What the programs here share: options, nets to time, figures beside their targets, and the JSON."""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

import rnnkern
from rnnkern.__main__ import positive
from rnnkern.cli import machine, measure
from rnnkern.cli.bench import check_outputs, equal_threads
from rnnkern.cli.case import CELLS, Case, Problem
from rnnkern.cli.contenders import Frozen, Live
from rnnkern.cli.measure import Call
from rnnkern.cli.report import console, warn_if_busy, write_json

WAYS = ("frozen", "live", "training")
"""Inference with packed weights, with weights that may change, and forward with all gradients."""


def make_calls(case: Case, ways: Iterable[str] = WAYS) -> dict[str, Call]:
    """By way: what to time. It has not run before."""
    problem = Problem(case)
    live = Live(problem)
    made = {"frozen": lambda: Frozen(problem).infer, "live": lambda: live.infer, "training": lambda: live.train}
    return {way: made[way]() for way in ways}


def limited(call: Call, threads: int) -> Call:
    """The call with at most so many threads of rnnkern."""

    def run() -> Any:
        with rnnkern.num_threads(threads):
            return call()

    return run


disturbed: list[str] = []
"""What other programs did to timings of this process."""


def medians(calls: Mapping[str, Call], seconds: float) -> dict[str, float]:
    """By name: seconds of a call; they take turns. What was disturbed is noted for `write`."""
    timings = measure.interleave(calls, seconds, {})
    disturbed.extend(f"{name} {timing.disturbed}" for name, timing in timings.items() if timing.disturbed)
    return {name: timing.median for name, timing in timings.items()}


def figure(value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """A figure with its target, if it has one, as it stands in the JSON."""
    made: dict[str, Any] = {"value": value}
    if value is not None and at_least is not None:
        made |= {"at_least": at_least, "met": value >= at_least}
    elif value is not None and at_most is not None:
        made |= {"at_most": at_most, "met": value <= at_most}
    return made


def shown(figure: Mapping[str, Any], digits: int = 2) -> Text:
    """A figure and its target as they stand in a table; one that misses the target is marked."""
    if figure["value"] is None:
        return Text("-", style="dim")
    text = Text(f"{figure['value']:.{digits}f}")
    if "met" in figure:
        target = f"≥ {figure['at_least']:g}" if "at_least" in figure else f"≤ {figure['at_most']:g}"
        text.stylize("green" if figure["met"] else "bold red")
        text.append(f" {target} {'✓' if figure['met'] else '✗'}", style="dim" if figure["met"] else "bold red")
    return text


def summarise(out: Console, figures: Iterable[Mapping[str, Any]], what: str) -> None:
    """Say how many of the figures that have a target miss it."""
    met = [figure["met"] for figure in figures if "met" in figure]
    if met:
        missed = met.count(False)
        out.print(f"{what}: {missed} of {len(met)} miss the target", style="red" if missed else "green")


def parser(description: str, *, cells: bool = True, plot: bool = False, seconds: int = 60) -> argparse.ArgumentParser:
    """The options that all programs have."""
    root = argparse.ArgumentParser(description=description)
    if cells:
        root.add_argument("--cell", action="append", choices=CELLS, help="repeatable; default: all")
    root.add_argument("--threads", type=positive, metavar="N", help="default: rnnkern's")
    help_text = f"aim to measure for so long (default: {seconds}); everything is measured once at least"
    root.add_argument("--seconds", type=positive, default=seconds, metavar="S", help=help_text)
    root.add_argument("--quick", action="store_true", help="tiny sizes, once: does the program work?")
    root.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    if plot:
        root.add_argument("--plot", type=Path, metavar="FILE", help="draw the picture (png, svg, pdf, ...)")
    root.set_defaults(**({} if plot else {"plot": None}), fail=root.error)
    return root


@contextmanager
def started(root: argparse.ArgumentParser) -> Iterator[tuple[argparse.Namespace, Console]]:
    """Parse and check the options, and set the threads for the block: `options.threads` says how many."""
    options = root.parse_args()
    check_outputs(options)
    if "cell" in options:
        options.cell = list(dict.fromkeys(options.cell or CELLS))
    if options.quick:
        options.seconds = 0
    out = console(170)
    warn_if_busy(out, machine.describe()["load"])
    with equal_threads(options.threads) as options.threads:
        yield options, out


def track(out: Console, items: Sequence[Any]) -> Iterator[Any]:
    """The items, with a progress bar that names the one at work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task("", total=len(items))
        for item in items:
            progress.update(task, description=str(item))
            yield item
            progress.advance(task)


def write(options: argparse.Namespace, out: Console, results: Any) -> None:
    """Say what was disturbed, and write the JSON where one is wanted."""
    if disturbed:
        out.print(f"Other programs disturbed {len(disturbed)} timings; the first: {disturbed[0]}", style="yellow")
    if not options.json:
        return
    left_out = ("json", "plot", "fail")
    record = {
        "rnnkern": rnnkern.config(),
        "machine": machine.describe(),
        "versions": {name: machine.version(name) for name in ("numpy", "torch")},
        "settings": {name: value for name, value in vars(options).items() if name not in left_out},
        "disturbed": disturbed,
        "results": results,
    }
    write_json(out, options.json, record)


def in_new_process(function: Callable[..., Any], *arguments: Any, before: str = "") -> Any:
    """Run a function of one of the programs here in an interpreter of its own, after the statements `before`.

    Arguments and result go through JSON.
    """
    path = Path(inspect.getfile(function)).resolve()
    code = f"""{before}
import json, sys
sys.path.insert(0, {str(path.parent)!r})
import {path.stem}
result = {path.stem}.{function.__name__}(*json.loads(sys.argv[1]))
print("\\n" + json.dumps(result))"""
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
