"""What the examples' command lines share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console


def new_file(text: str) -> Path:
    """A path that can be written to, as a type of argparse's."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    return path


def picture(text: str) -> Path:
    """A path that matplotlib can draw to: asked before the work, not after it."""
    from matplotlib.figure import Figure

    path, formats = new_file(text), sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:] not in formats:
        raise argparse.ArgumentTypeError(f"{path} must end in one of .{', .'.join(formats)}")
    return path


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    """The option --plot, as all examples have it."""
    parser.add_argument("--plot", type=picture, metavar="FILE", help=f"draw {what} (png, svg, pdf, ...)")


def save(figure: Any, path: Path, console: Console, dpi: int) -> None:
    """Write a picture of matplotlib, and say where it is."""
    figure.savefig(path, dpi=dpi)
    console.print(f"wrote {path.resolve()}", soft_wrap=True)


def parse_with_short(parser: argparse.ArgumentParser, argv: Sequence[str] | None, **short: Any) -> argparse.Namespace:
    """With --short these are the defaults; what is given goes before them."""
    parser.set_defaults(**short if parser.parse_args(argv).short else {})
    return parser.parse_args(argv)
