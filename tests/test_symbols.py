"""What the objects of the build export: code for one instruction set must never stand in for another's.

The linker keeps one copy of every inline function with external linkage, from whichever object comes first. So nothing
but its table may leave an instruction set's object.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = os.environ.get("RNNKERN_BUILD_DIR", "build/*-cp*")  # where pip builds, see pyproject.toml
ISAS = {path.stem: path for path in (ROOT / "csrc" / "isa").glob("*.cpp")}
UNDEFINED = {
    "_GLOBAL_OFFSET_TABLE_",
    "__stack_chk_fail",
    "memcpy",
    "memmove",
    "memset",
}


def newest_object(isa):
    objects = list(ROOT.glob(f"{BUILD}/CMakeFiles/isa_{isa}.dir/**/{isa}.cpp.o"))
    if not objects:
        pytest.skip(f"no object for {isa} in {BUILD}: not built on this processor, or not from this folder")
    return max(objects, key=lambda path: path.stat().st_mtime)


def symbols(path):
    """(type, demangled name) of every external or undefined symbol."""
    if shutil.which("nm") is None:
        pytest.skip("nm is missing")
    command = ["nm", "--demangle", "--extern-only", str(path)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        yield line[17], line[19:]  # after a 16-digit address


@pytest.mark.skipif(sys.platform != "linux", reason="the names are those of ELF objects")
@pytest.mark.parametrize("isa", sorted(ISAS))
def test_only_the_table_leaves(isa):
    found = sorted(symbols(newest_object(isa)))
    defined = [(kind, name) for kind, name in found if kind != "U"]
    assert [name for _, name in defined] == [f"rnnkern::kernels_{isa}"]
    assert defined[0][0] in "DRB", "the table is a strong data symbol"
    assert {name for kind, name in found if kind == "U"} <= UNDEFINED


def test_what_these_files_include():
    """No header with inline functions of external linkage but templates that are never called at run time."""
    folders = [ROOT / "csrc" / name for name in ("isa", "core", "cells")]
    files = [path for folder in folders for path in folder.iterdir()]
    headers = {header for path in files for header in re.findall(r"#include <(.*)>", path.read_text())}
    assert headers <= {"arm_neon.h", "cstdint", "immintrin.h", "utility"}
