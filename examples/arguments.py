"""What the examples' command lines share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def new_file(text: str) -> Path:
    """A path that can be written to, as a type of argparse's."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    return path


def parse_with_short(parser: argparse.ArgumentParser, argv: Sequence[str] | None, **short: Any) -> argparse.Namespace:
    """With --short these are the defaults; what is given goes before them."""
    parser.set_defaults(**short if parser.parse_args(argv).short else {})
    return parser.parse_args(argv)
