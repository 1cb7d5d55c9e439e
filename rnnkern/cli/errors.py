"""How far results are apart, and how far they may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..spec import Array

FACTOR = 8
"""Covers the largest of many elements and the few ulp of the activations."""


def bound(dtype: np.dtype[Any], depth: int, steps: int) -> float:
    """Largest relative error of what `steps` sums of `depth` products, one after the other, lead to."""
    return FACTOR * float(np.finfo(dtype).eps) * math.sqrt(depth * steps)


def relative_error(actual: Array, truth: Array) -> float:
    """Return the largest difference relative to the largest of `truth`; NaN when there is a NaN on one side only.

    Shapes that differ are infinitely far apart.
    """
    if actual.shape != truth.shape:
        return math.inf
    if not truth.size:
        return 0.0
    wide = np.promote_types(actual.dtype, truth.dtype)
    scale = max(float(np.abs(truth).max()), float(np.finfo(actual.dtype).tiny))
    return float(np.abs(actual.astype(wide) - truth).max()) / scale
