"""The option --slow, and how tests get hold of an example."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from rnnkern import _core

EXAMPLES = Path(__file__).parents[1] / "examples"


# More threads than there are processors are tested, too.
_core.set_processors(max(8, _core.processors()))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture
def load(monkeypatch):
    """`load(name, *packages)` imports examples/name.py, or skips where rich or one of its other packages is missing."""

    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name: str, *packages: str):
        for package in ("rich", *packages):
            if find_spec(package) is None:
                pytest.skip(f"needs the package {package}")
        return importlib.import_module(name)

    return load
