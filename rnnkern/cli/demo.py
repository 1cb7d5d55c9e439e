"""`demo`: the examples by name."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
INSTALLED = PACKAGE / "examples"
FOLDER = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent / "examples"  # of the checkout


def examples() -> dict[str, str]:
    """By name, what they show in a line: the programs, which have a function `main`, among the files."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(part, ast.FunctionDef) and part.name == "main" for part in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def run(options: argparse.Namespace) -> int:
    """List the examples, or run one in this process as if it had been called by its path."""
    choices = examples()
    if not choices:
        options.fail(f"there are no examples in {FOLDER}")
    if options.list:
        width = max(map(len, choices))
        print(*(f"{name:<{width}}  {line}".rstrip() for name, line in choices.items()), sep="\n")
        return 0
    if options.name not in choices:
        given = "a name is missing" if options.name is None else f"there is no {options.name!r}"
        options.fail(f"{given}; choose from {', '.join(choices)}")
    arguments = ["--short"][: options.short] + options.arguments[options.arguments[:1] == ["--"] :]
    sys.path.insert(0, str(FOLDER))  # they import each other
    sys.argv = [str(FOLDER / f"{options.name}.py"), *arguments]
    try:
        example = importlib.import_module(options.name)
        return int(example.main(arguments))
    except ModuleNotFoundError as error:
        missing = getattr(error.__cause__, "name", error.name)
        extra = "torch" if missing == "torch" else "examples"  # there are many builds of torch
        print(f"{options.name}: {error}; it comes with: pip install 'rnnkern[{extra}]'", file=sys.stderr)
        return 2
