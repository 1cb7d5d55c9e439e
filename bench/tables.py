"""Print the JSON of `python -m rnnkern bench` as the tables of bench/results/README.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def label(result: dict[str, Any]) -> str:
    """The sizes of a case, and what is not as usual."""
    unusual = {
        f"x{result['num_layers']}": result["num_layers"] > 1,
        "bi": result["bidirectional"],
        "ragged": result["ragged"],
    }
    sizes = ",".join(str(result[name]) for name in "TBIH")
    return " ".join([result["cell"].upper(), sizes, *(name for name, holds in unusual.items() if holds)])


def tables(record: dict[str, Any]) -> Iterable[str]:
    """The lines: every case, then the geometric means."""
    results = record["results"]
    names = list(dict.fromkeys(name for result in results for name in result["microseconds"]))
    yield row(["µs", *names, "speed-up", "limit", "of limit", "bound by"])
    yield row(["---", *["--:"] * (len(names) + 3), "---"])
    for result in results:
        medians = [result["microseconds"].get(name, {}).get("median") for name in names]
        limit = result["limit"]
        yield row(
            [
                label(result),
                *map(microseconds, medians),
                f"{result['speedup']:.2f}",
                microseconds(limit["microseconds"]),
                f"{limit['fraction']:.0%}",
                limit["bound"],
            ]
        )
    yield ""
    means = record["geometric_means"]
    columns = list(dict.fromkeys(name for mean in means.values() for name in mean))
    titles = {"best": "best peer", "limit": "best peer, at the limit"}
    yield row(["geometric mean", *(titles.get(name, name) for name in columns)])
    yield row(["---", *["--:"] * len(columns)])
    for cell, mean in means.items():
        yield row([cell if cell == "all" else cell.upper(), *(f"{mean[name]:.2f}" for name in columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="written by bench --limit --json")
    print("\n".join(tables(json.loads(parser.parse_args().json.read_text()))))


if __name__ == "__main__":
    main()
