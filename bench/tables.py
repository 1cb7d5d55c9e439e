"""Print the JSON of `python -m rnnkern bench --limit` as Markdown tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rnnkern.cli.case import Case, Shape
from rnnkern.cli.report import duration


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def case_of(result: dict[str, Any]) -> Case:
    options = {name: result[name] for name in ("num_layers", "bidirectional", "ragged", "dtype")}
    return Case(result["cell"], Shape(*(result[name] for name in Shape._fields)), **options)


def tables(record: dict[str, Any]) -> Iterable[str]:
    """The lines: every case, then the geometric means."""
    results = record["results"]
    names = list(dict.fromkeys(name for result in results for name in result["microseconds"]))
    yield row(["µs", *names, "speed-up", "limit", "of limit", "bound by"])
    yield row(["---", *["--:"] * (len(names) + 3), "---"])
    for result in results:
        times, limit = result["microseconds"], result["limit"]
        medians = [duration(times[name]["median"] * 1e-6) if name in times else "-" for name in names]
        against = [
            shown(result["speedup"], ".2f"),
            duration(limit["microseconds"] * 1e-6),
            shown(limit["fraction"], ".0%"),
        ]
        yield row([str(case_of(result)), *medians, *against, limit["bound"]])
    yield ""
    means = record["geometric_means"]
    columns = list(dict.fromkeys(name for mean in means.values() for name in mean))
    titles = {"best": "best peer", "limit": "best peer, at the limit"}
    yield row(["geometric mean", *(titles.get(name, name) for name in columns)])
    yield row(["---", *["--:"] * len(columns)])
    for cell, mean in means.items():
        yield row([cell if cell == "all" else cell.upper(), *(shown(mean.get(name), ".2f") for name in columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    record = json.loads(parser.parse_args().json.read_text())
    if not record["limits"]:
        parser.error("the file was written without --limit")
    print("\n".join(tables(record)))


if __name__ == "__main__":
    main()
