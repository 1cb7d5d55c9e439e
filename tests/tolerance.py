"""How close is close enough: the only tolerances of the tests.

Rounding a sum of `depth` products is off by about eps * sqrt(depth) of its scale, and `steps` of those follow each
other. FACTOR covers the largest of many elements and the activations' own few ulp. Nothing here is fitted to a test.
"""

from __future__ import annotations

import math

import numpy as np

FACTOR = 8


def tolerance(dtype, depth=1, steps=1, order=1.0):
    """Allowed error relative to the scale of a quantity; `order` is the power of eps that its method reaches."""
    return FACTOR * float(np.finfo(dtype).eps) ** order * math.sqrt(depth * steps)


CENTRAL_DIFFERENCE = 2 / 3
"""The order of (f(x + d) - f(x - d)) / 2d with d = eps ** (1 / 3)."""


def excess(actual, expected, depth=1, steps=1, *, order=1.0, scale=None):
    """The largest error of `actual` as a part of what is allowed.

    Allowed is `tolerance` of the largest finite value of `expected` (or of `scale`). Shapes and dtypes are equal,
    except that `expected` may be of higher precision. NaN only matches NaN in the same place, infinity only the same
    infinity, or the result is NaN or infinite itself. Numbers below the smallest normal one may be anything below it.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype.kind == "f", actual.dtype
    assert actual.dtype.itemsize <= expected.dtype.itemsize, f"{actual.dtype}, expected {expected.dtype}"
    finite = np.isfinite(expected)
    odd = ~finite
    if not np.array_equal(actual[odd], expected[odd].astype(actual.dtype), equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    if scale is None:
        scale = np.abs(expected[finite]).max()
    allowed = tolerance(actual.dtype, depth, steps, order) * scale + float(np.finfo(actual.dtype).tiny)
    return float(np.abs(actual[finite].astype(expected.dtype) - expected[finite]).max() / allowed)


def assert_close(actual, expected, depth=1, steps=1, *, order=1.0, scale=None, name="result"):
    """`actual` is `expected` within what `excess` allows."""
    assert_allowed(excess(actual, expected, depth, steps, order=order, scale=scale), name)


def assert_allowed(worst, name):
    assert worst <= 1, f"{name}: the largest error is {worst:.3g} of what is allowed"  # not so for NaN
