"""What this machine can do at most: the limits that `python -m rnnkern bench --limit` compares with.

The exit code is 1 when figures contradict each other, as when other programs are at work.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import rnnkern
from rnnkern.__main__ import positive
from rnnkern.cli import files, machine, probes
from rnnkern.cli.case import DTYPES
from rnnkern.cli.report import console, limits_table, write_json


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what this machine can do at most.")
    parser.add_argument("--threads", type=positive, metavar="N", help="up to so many (default: rnnkern's)")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="repeatable; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args(argv)
    if options.json and (reason := files.unwritable(options.json)):
        parser.error(f"argument --json: {reason}")
    out = console()
    facts = machine.describe()
    counts = probes.thread_counts(options.threads or rnnkern.get_num_threads())
    measured, wrong = [], []
    for dtype in options.dtype or DTYPES:
        with out.status(f"measuring {dtype}"):
            try:
                teams = [probes.measure(dtype, threads) for threads in counts]
            except (RuntimeError, ValueError) as error:  # fewer threads than asked for, or more than there can be
                parser.error(f"argument --threads: {error}")
        out.print(limits_table(teams, f"{facts['processor']}, {dtype}"))
        measured += [team.as_dict() for team in teams]
        wrong += [f"{dtype}: {text}" for text in probes.contradictions(teams)]
    if options.json:
        record = {"rnnkern": rnnkern.config(), "machine": facts, "limits": measured, "contradictions": wrong}
        write_json(out, options.json, record)
    for text in wrong:
        out.print(f"contradiction: {text}", style="bold red")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
