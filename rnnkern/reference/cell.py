"""What the cells share: the interface that network.py knows, and the linear map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..spec import Activation, Array, Spec
from .activations import activate, activate_backward

State = tuple[Array, ...]
"""(h,) or (h, c): (N, O) and (N, H) for the N sequences of a step."""
Saved = dict[str, Array]
"""What backward needs of one step, and what `Cell.trace` names, each (N, ...)."""


class Linear:
    """x W^T + b with rows of the named weights; `backward` adds the gradients of W and b to the cell's."""

    def __init__(self, cell: Cell, weight: str, bias: str = "", rows: slice = slice(None)) -> None:
        self.weight, self.dweight = cell.weights[weight][rows], cell.gradients[weight][rows]
        self.has_bias = bias in cell.weights
        if self.has_bias:
            self.bias, self.dbias = cell.weights[bias][rows], cell.gradients[bias][rows]

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T
        return y + self.bias if self.has_bias else y

    def backward(self, x: Array, dy: Array) -> Array:
        """Gradient by x, given the gradient by the result."""
        self.dweight += dy.T @ x
        if self.has_bias:
            self.dbias += dy.sum(axis=0)
        dx: Array = dy @ self.weight
        return dx


class Cell:
    """One layer in one direction, a step at a time.

    Parameters
    ----------
    spec
        The options of the network.
    activations
        Of this direction, in ONNX's order.
    weights
        By PyTorch's names without suffix: weight_ih (G*H, I), weight_hh (G*H, O), ...
    """

    trace: ClassVar[tuple[str, ...]]
    """Names of the saved values that a user may ask for; the last one is what is fed back."""

    def __init__(self, spec: Spec, activations: tuple[Activation, ...], weights: Mapping[str, Array]) -> None:
        self.spec, self.activations, self.weights = spec, activations, weights
        self.gradients = {name: np.zeros_like(weight) for name, weight in weights.items()}

    def gate(self, which: int, a: Array) -> Array:
        """Activation number `which` of the pre-activation a, clipped."""
        return activate(a, self.activations[which], self.spec.clip)

    def gate_backward(self, which: int, a: Array, gradient: Array) -> Array:
        """The gradient by the pre-activation a, given that by the gate."""
        return activate_backward(gradient, a, self.activations[which], self.spec.clip)

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        """Return the next state and what `backward` needs, given x (N, I) and the state."""
        raise NotImplementedError

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        """Return the gradients by x and the previous state, given that by the next; add the weights' to `gradients`."""
        raise NotImplementedError
