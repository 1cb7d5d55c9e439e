"""Our own layers over the grid of `python -m rnnkern bench`, to compare one version of rnnkern with another."""

from __future__ import annotations

import pytest

from rnnkern.cli.case import CELLS, GRID, Case, Problem
from rnnkern.cli.contenders import Frozen, Live

CASES = [Case(cell, shape) for cell in CELLS for shape in GRID]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frozen(benchmark, case):
    benchmark(Frozen(Problem(case)).infer)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_live(benchmark, case):
    benchmark(Live(Problem(case)).infer)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training(benchmark, case):
    benchmark(Live(Problem(case)).train)
