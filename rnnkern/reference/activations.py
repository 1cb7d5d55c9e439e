"""ONNX's activation functions and their gradients.

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
    """y = f(x, alpha, beta)"""
    backward: Callable[[Array, Array, Array, float, float], Array]
    """The gradient by x given that by y, x, y, alpha, beta; 0 where f is held, whatever comes"""


ACTIVATIONS: dict[str, Function] = {
    "Affine": Function(lambda x, a, b: a * x + b, lambda dy, x, y, a, b: dy * a),
    "Elu": Function(
        lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
        lambda dy, x, y, a, b: np.where(x <= 0, dy * (a * np.exp(np.minimum(x, 0))), dy),
    ),
    "HardSigmoid": Function(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda dy, x, y, a, b: np.where((a * x + b > 0) & (a * x + b < 1), dy * a, 0),
    ),
    "Identity": Function(lambda x, a, b: x, lambda dy, x, y, a, b: dy),
    "LeakyRelu": Function(
        lambda x, a, b: np.where(x < 0, a * x, x), lambda dy, x, y, a, b: np.where(x > 0, dy, dy * a)
    ),
    "Relu": Function(lambda x, a, b: np.maximum(x, 0), lambda dy, x, y, a, b: np.where(x <= 0, 0, dy)),
    "ScaledTanh": Function(
        lambda x, a, b: a * np.tanh(b * x),
        lambda dy, x, y, a, b: dy * (a * b * (1 - np.tanh(b * x)) * (1 + np.tanh(b * x))),
    ),
    "Sigmoid": Function(lambda x, a, b: sigmoid(x), lambda dy, x, y, a, b: dy * (y * (1 - y))),
    "Softplus": Function(
        lambda x, a, b: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), lambda dy, x, y, a, b: dy * sigmoid(x)
    ),
    "Softsign": Function(lambda x, a, b: x / (1 + np.abs(x)), lambda dy, x, y, a, b: dy / (1 + np.abs(x)) ** 2),
    "Tanh": Function(lambda x, a, b: np.tanh(x), lambda dy, x, y, a, b: dy * (1 - y * y)),
    "ThresholdedRelu": Function(lambda x, a, b: np.where(x <= a, 0, x), lambda dy, x, y, a, b: np.where(x <= a, 0, dy)),
}
"""By ONNX's name; and the identity, which ONNX lacks."""


def activate(x: Array, activation: Activation, clip: float | None = None) -> Array:
    """The activation of x bounded to ±clip."""
    name, alpha, beta = activation
    bounded = x if clip is None else np.clip(x, -clip, clip)
    return ACTIVATIONS[name].value(bounded, alpha, beta).astype(x.dtype, copy=False)


def activate_backward(dy: Array, x: Array, activation: Activation, clip: float | None = None) -> Array:
    """The gradient by x given that by its activation: 0 where x is outside ±clip."""
    name, alpha, beta = activation
    y, bounded = activate(x, activation, clip), x if clip is None else np.clip(x, -clip, clip)
    dx = ACTIVATIONS[name].backward(dy, bounded, y, alpha, beta)
    return (dx if clip is None else np.where(np.abs(x) > clip, 0, dx)).astype(x.dtype, copy=False)
