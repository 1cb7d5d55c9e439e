"""Jordan's network, whose output is fed back (Jordan 1986).

h = f(W x + b_ih + R y + b_hh)
y' = softmax(V h + c)                          linear: y' = V h + c
"""

from __future__ import annotations

import numpy as np

from ..spec import Array
from .cell import Cell, Linear, Saved, State


class Jordan(Cell):
    trace = ("h", "y")

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        (y0,) = state
        a = Linear(self, "weight_ih", "bias_ih")(x) + Linear(self, "weight_hh", "bias_hh")(y0)
        h = self.gate(0, a)
        y = Linear(self, "weight_ho", "bias_ho")(h)
        if self.spec.softmax:
            y = softmax(y)
        return (y,), {"x": x, "y0": y0, "a": a, "h": h, "y": y}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        (dy,) = dstate
        if self.spec.softmax:
            dy = saved["y"] * (dy - (saved["y"] * dy).sum(axis=1, keepdims=True))
        da = self.gate_backward(0, saved["a"], Linear(self, "weight_ho", "bias_ho").backward(saved["h"], dy))
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], da)
        dy0 = Linear(self, "weight_hh", "bias_hh").backward(saved["y0"], da)
        return dx, (dy0,)


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=1, keepdims=True))
    y: Array = e / e.sum(axis=1, keepdims=True)
    return y
