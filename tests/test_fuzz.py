"""A few attacks of every kind; `python tests/fuzz KIND` makes more of them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

COUNTS = {"arguments": 1000, "ways": 40, "tensors": 400, "memory": 60, "kills": 6}
NEEDED = {"tensors": "torch"}


@pytest.mark.parametrize("kind", COUNTS)
def test_attacks(kind):
    """In a process of their own, which they may bring down."""
    for package in ("rich", NEEDED.get(kind, "rich")):
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    if kind == "memory" and sys.platform != "linux":
        pytest.skip("limits the address space, which Linux does")
    command = [sys.executable, Path(__file__).parent / "fuzz", kind, "--count", str(COUNTS[kind])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-8000:]}"
