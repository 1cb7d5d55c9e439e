"""Output files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import whole

__all__ = ["unwritable", "whole"]

PICTURE = Path("rnnkern-bench.png")
"""Where the picture of `bench` goes if not told otherwise."""


def unwritable(path: Path) -> str | None:
    """Say why a file can't be written there, or None."""
    if path.is_dir():
        return f"{path} is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if not os.access(path.parent, os.W_OK):
        return f"the directory {path.parent} is not writable"
    return None
