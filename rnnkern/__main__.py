"""The command line: `python -m rnnkern` or `rnnkern`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.case import CELLS, DTYPES, Shape
from .cli.files import PICTURE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The arguments after the program's name; the process's own if None.

    Returns
    -------
    int
        Exit code: 0, 1 when a check fails, 2 for wrong options, 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without µ is no reason to lose the results
    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="rnnkern", description="Fused RNN, LSTM and GRU kernels for the CPU.")
    commands = root.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("info", help="what was built, and what this machine offers")
    command.set_defaults(run=info)

    command = commands.add_parser("check", help="every kernel against the reference: a table of errors")
    command.set_defaults(run=check, fail=command.error)

    command = commands.add_parser("bench", help="this machine against the installed peers: a table and a picture")
    command.set_defaults(run=bench, fail=command.error)
    command.add_argument("--cell", action="append", choices=CELLS, help="repeatable; default: all")
    command.add_argument("--shape", action="append", type=shape, metavar="T,B,I,H", help="repeatable; default: a grid")
    command.add_argument("--layers", type=positive, default=1, metavar="L", help="on top of each other (default: 1)")
    command.add_argument("--bidirectional", action="store_true", help="both directions")
    command.add_argument("--ragged", action="store_true", help="sequences of lengths uniform in T/4..T")
    command.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")
    command.add_argument("--train", action="store_true", help="time forward and all gradients instead of inference")
    command.add_argument("--threads", type=positive, metavar="N", help="for every contender (default: rnnkern's)")
    command.add_argument("--seconds", type=positive, default=100, metavar="S", help="aim to end within (default: 100)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    command.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        default=PICTURE,
        help="draw the picture (png, svg, pdf, ...; default: %(default)s)",
    )
    command.add_argument("--no-plot", dest="plot", action="store_const", const=None, help="draw none")
    command.add_argument(
        "--limit", action="store_true", help="measure what the machine can do, and show how near we are"
    )
    command.add_argument("--roofline", type=Path, metavar="FILE", help="with --limit: draw FLOP/s under the roofs")

    command = commands.add_parser("demo", help="one of the examples: `demo --list` has their names")
    command.set_defaults(run=demo, fail=command.error)
    command.add_argument("--list", action="store_true", help="print the names, each with what it shows")
    command.add_argument("--short", action="store_true", help="take less than half a minute")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="passed on; try NAME --help")
    return root


def positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return value


def shape(text: str) -> Shape:
    parts = text.split(",")
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"expected four sizes T,B,I,H, got {text!r}")
    return Shape(*map(positive, parts))


def info(options: argparse.Namespace) -> int:
    from .cli.info import run

    return run()


def check(options: argparse.Namespace) -> int:
    from .cli.check import run

    return run()


def bench(options: argparse.Namespace) -> int:
    require(options, "rich", "threadpoolctl", *(["matplotlib"] if options.plot or options.roofline else []))
    from .cli.bench import run

    return run(options)


def demo(options: argparse.Namespace) -> int:
    from .cli.demo import run

    return run(options)


def require(options: argparse.Namespace, *modules: str) -> None:
    """Leave with a message that says what to install when a module of the extra `bench` is missing."""
    for module in modules:
        try:
            __import__(module)
        except ImportError as error:
            options.fail(f"{error}; it comes with: pip install 'rnnkern[bench]'")


if __name__ == "__main__":
    sys.exit(main())
