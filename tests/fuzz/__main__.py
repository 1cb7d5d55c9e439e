"""Attacks on the package, each a function of a random generator that fails if anything is wrong.

    python tests/fuzz KIND [--count N] [--seed S]

KIND is one of `KINDS`. Attempt number n of a seed is the same each time; what fails is printed with its number, so that
``--seed S --first n --count 1`` shows it again. tests/test_fuzz.py runs a few of each.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from rich.progress import track

KINDS = {
    "arguments": "odd values for every argument: a result or an honest error, and nothing changed that was given",
    "ways": "every way of asking for the same thing gives the same bits",
    "tensors": "odd tensors: PyTorch's layers and ours give the same results or both refuse",
    "memory": "too little memory at any moment: a MemoryError, and afterwards everything works",
    "kills": "killed while it saves: the file is the old one or the new one",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        "fuzz", description="\n".join(f"{kind:<11} {what}" for kind, what in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=10_000, help="attempts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="number of the first attempt (default: %(default)s)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    attempts = importlib.import_module(f"fuzz.{arguments.kind}")
    failed = 0
    for number in track(range(arguments.first, arguments.first + arguments.count), arguments.kind):
        try:
            attempts.attempt(arguments.seed, number)
        except Exception:
            failed += 1
            print(f"\n--seed {arguments.seed} --first {number} --count 1", file=sys.stderr)
            traceback.print_exc()
    print(f"{arguments.kind}: {arguments.count} attempts, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
