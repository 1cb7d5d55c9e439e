"""The tables of `bench`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from . import files
from .outcome import OURS, Outcome, means, times
from .probes import Limits


def console(width: int = 140) -> Console:
    """Return a console that doesn't squeeze tables into the 80 columns assumed of a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=max(found.width, width))


def warn_if_busy(out: Console, load: float) -> None:
    if load > 0.5:
        out.print(f"Other programs are at work (load {load:.1f}): thread pools that spin look slow.", style="yellow")


def write_json(out: Console, path: Path, record: Mapping[str, Any]) -> None:
    with files.whole(path) as file:
        file.write(json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    say_where(out, path)


def write_picture(out: Console, path: Path, figure: Any) -> None:
    """Write a figure of matplotlib in the format that the ending of the file names."""
    with files.whole(path) as file:
        figure.savefig(file, format=path.suffix[1:])
    say_where(out, path)


def say_where(out: Console, path: Path) -> None:
    out.print(f"wrote {escape(str(path.resolve()))}", soft_wrap=True)


def new_table(title: str, caption: str | None = None) -> Table:
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")


def duration(seconds: float) -> str:
    """Microseconds in three digits, or all of them."""
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float | None) -> Text:
    if value is None:
        return Text("-", style="dim")
    return Text(times(value), style="bold green" if value >= 1 else "bold red")


def percent(value: float | None) -> Text:
    return Text("-", style="dim") if value is None else Text(f"{value:.0%}")


def times_table(outcomes: Sequence[Outcome], names: Sequence[str], title: str) -> Table:
    """Every shape, every contender; the fastest of each row in bold, what was disturbed with a question mark."""
    compared = any(outcome.rival for outcome in outcomes)
    limited = any(outcome.limit for outcome in outcomes)
    captions = {
        f"speed-up: best peer's time / that of our fastest way ({', '.join(OURS)})": compared,
        "NumPy: this package's own reference": "NumPy" in names,
        "limit: what this machine takes at least; of limit: that / our fastest; bound by: the most of it": limited,
        "?, disturbed: other programs were at work, the figure doesn't count": any(map(doubts, outcomes)),
    }
    table = new_table(title, "\n".join(caption for caption, applies in captions.items() if applies))
    table.add_column("cell T,B,I,H", overflow="fold")
    for name in (*names, *["speed-up"][:compared], *(("limit", "of limit", "bound by") if limited else ())):
        table.add_column(name, justify="right", overflow="fold")
    previous = None
    for outcome in outcomes:
        if previous not in (None, outcome.case.cell):
            table.add_section()
        previous = outcome.case.cell
        row = [time_cell(outcome, name, name == outcome.best(names)) for name in names]
        if compared:
            row.append(Text("disturbed", style="yellow") if outcome.disturbed else ratio(outcome.speedup))
        if outcome.limit:
            row += [Text(duration(outcome.limit.seconds)), percent(outcome.fraction), Text(outcome.limit.bound)]
        table.add_row(str(outcome.case), *row)
    return table


def doubts(outcome: Outcome) -> bool:
    return any(timing.disturbed for timing in outcome.timings.values())


def time_cell(outcome: Outcome, name: str, fastest: bool) -> Text:
    if name in outcome.errors:
        return Text("error", style="red")
    if name not in outcome.timings:
        return Text("-", style="dim")
    timing = outcome.timings[name]
    if timing.disturbed:
        return Text(f"{duration(timing.median)}?", style="yellow")
    return Text(duration(timing.median), style="bold" if fastest else "")


def means_table(outcomes: Sequence[Outcome], names: Sequence[str]) -> Table:
    rows = means(outcomes)
    table = new_table("Speed-up over each, geometric mean over the shapes")
    table.add_column("cell")
    titles = {"best": "best peer"} | {name: name for name in names} | {"limit": "best peer, at the limit"}
    titles = {
        name: title for name, title in titles.items() if name == "best" or any(name in row for row in rows.values())
    }
    for title in titles.values():
        table.add_column(title, justify="right", overflow="fold")
    for cell, row in rows.items():
        table.add_row(cell if cell == "all" else cell.upper(), *(ratio(row.get(name)) for name in titles))
    return table


def limits_table(teams: Sequence[Limits], title: str) -> Table:
    """A column per number of threads."""
    table = new_table(title)
    table.add_column("limit")
    for team in teams:
        table.add_column(f"{team.threads} thread{'s' * (team.threads > 1)}", justify="right")
    table.add_column("unit")

    def add(name: str, unit: str, value: Callable[[Limits], float]) -> None:
        table.add_row(name, *(f"{value(team):.3g}" for team in teams), unit)

    add("multiply-adds", "GFLOP/s", lambda team: team.peak / 1e9)
    for place, level in enumerate(teams[0].levels):
        size = f", {size_text(level.size)}" if math.isfinite(level.size) else ""
        add(f"reading {level.name}{size}", "GB/s", lambda team, place=place: team.levels[place].bandwidth / 1e9)  # type: ignore[misc]
    add("sigmoid", "G/s", lambda team: team.sigmoid / 1e9)
    add("tanh", "G/s", lambda team: team.tanh / 1e9)
    add("barrier", "ns", lambda team: team.barrier * 1e9)
    add("one multiply-add", "ns", lambda team: team.multiply_add_latency * 1e9)
    add("one sigmoid", "ns", lambda team: team.sigmoid_latency * 1e9)
    add("one tanh", "ns", lambda team: team.tanh_latency * 1e9)
    return table


def size_text(size: float) -> str:
    return f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size / 2**10:.4g} KiB"


def print_report(
    out: Console,
    outcomes: Sequence[Outcome],
    names: Sequence[str],
    title: str,
    idle: Mapping[str, float],
    idle_case: str,
) -> None:
    out.print(times_table(outcomes, names, title))
    if not any(outcome.rival for outcome in outcomes):
        out.print("No other library was timed: there is nothing to compare with.", style="yellow")
    elif any("best" in row for row in means(outcomes).values()):
        out.print(means_table(outcomes, names))
        counted = sum(outcome.speedup is not None for outcome in outcomes)
        if counted < len(outcomes):
            out.print(f"These are means of the {counted} of {len(outcomes)} rows that were measured undisturbed.")
    else:
        out.print("No geometric mean: too few rows were measured undisturbed.", style="yellow")
    print_disturbed(out, outcomes)
    behind = [str(o.case) for o in outcomes if o.speedup is not None and o.speedup < 1]
    if behind:
        out.print(f"Behind the best peer on {len(behind)} of {len(outcomes)} shapes: {'; '.join(behind)}")
    if idle:
        costs = ", ".join(f"{name} {extra * 1e3:+.2f} ms" for name, extra in idle.items())
        out.print(f"First call after 50 ms of idling, against a hot one ({idle_case}): {costs}")
    for name in names:
        lacks = dict.fromkeys(outcome.lacks[name] for outcome in outcomes if name in outcome.lacks)
        if lacks:
            out.print(f"{escape(name)} does not do: {', '.join(lacks)}")
    for outcome in outcomes:
        for name, error in outcome.errors.items():
            out.print(f"[bold red]error[/] {escape(f'{name} on {outcome.case}: {error}')}")


def print_disturbed(out: Console, outcomes: Sequence[Outcome]) -> None:
    """Say how many rows have no speed-up for other programs' sake, and what was seen of these on the first one."""
    disturbed = [outcome for outcome in outcomes if outcome.disturbed]
    if disturbed:
        name, timing = next((name, t) for name, t in disturbed[0].timings.items() if t.disturbed)
        out.print(
            f"{len(disturbed)} of {len(outcomes)} rows were disturbed: other programs are at work on this machine. "
            f"Try again when it is quiet. (The first: on {disturbed[0].case}, {name} {timing.disturbed}.)",
            style="yellow",
        )
