"""ONNX's activation functions and their slopes.

Equations: https://onnx.ai/onnx/operators/onnx__LSTM.html; slopes at the kinks are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..spec import Activation, Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow and with full relative accuracy on both sides."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)  # type: ignore[no-any-return]


class Function(NamedTuple):
    value: Callable[[Array, float, float], Array]
    """f(x, alpha, beta)"""
    slope: Callable[[Array, Array, float, float], Array]
    """f'(x) given x, f(x), alpha, beta"""


ACTIVATIONS: dict[str, Function] = {
    "Affine": Function(lambda x, a, b: a * x + b, lambda x, y, a, b: np.full_like(x, a)),
    "Elu": Function(
        lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
        lambda x, y, a, b: np.where(x <= 0, y + a, 1),
    ),
    "HardSigmoid": Function(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda x, y, a, b: np.where((a * x + b <= 0) | (a * x + b >= 1), 0, a),
    ),
    "Identity": Function(lambda x, a, b: x, lambda x, y, a, b: np.ones_like(x)),
    "LeakyRelu": Function(lambda x, a, b: np.where(x < 0, a * x, x), lambda x, y, a, b: np.where(x <= 0, a, 1)),
    "Relu": Function(lambda x, a, b: np.maximum(x, 0), lambda x, y, a, b: np.where(x <= 0, 0, 1)),
    "ScaledTanh": Function(
        lambda x, a, b: a * np.tanh(b * x), lambda x, y, a, b: a * b * (1 - np.tanh(b * x)) * (1 + np.tanh(b * x))
    ),
    "Sigmoid": Function(lambda x, a, b: sigmoid(x), lambda x, y, a, b: y * (1 - y)),
    "Softplus": Function(
        lambda x, a, b: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), lambda x, y, a, b: sigmoid(x)
    ),
    "Softsign": Function(lambda x, a, b: x / (1 + np.abs(x)), lambda x, y, a, b: 1 / (1 + np.abs(x)) ** 2),
    "Tanh": Function(lambda x, a, b: np.tanh(x), lambda x, y, a, b: 1 - y * y),
    "ThresholdedRelu": Function(lambda x, a, b: np.where(x <= a, 0, x), lambda x, y, a, b: np.where(x <= a, 0, 1)),
}
"""By ONNX's name; and the identity, which ONNX lacks."""


def activate(x: Array, activation: Activation, clip: float | None = None) -> tuple[Array, Array]:
    """Value and slope of the activation of x bounded to ±clip: the slope is 0 where x is outside."""
    name, alpha, beta = activation
    function = ACTIVATIONS[name]
    bounded = x if clip is None else np.clip(x, -clip, clip)
    value = function.value(bounded, alpha, beta).astype(x.dtype, copy=False)
    slope = function.slope(bounded, value, alpha, beta).astype(x.dtype, copy=False)
    return value, slope if clip is None else np.where(np.abs(x) <= clip, slope, 0).astype(x.dtype, copy=False)
