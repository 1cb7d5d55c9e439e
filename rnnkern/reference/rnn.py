"""The Elman network: h' = f(W x + R h + b) (Elman 1990)."""

from __future__ import annotations

from ..spec import Array
from .cell import Cell, Linear, Saved, State


class RNN(Cell):
    trace = ("h",)

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        (h0,) = state
        a = Linear(self, "weight_ih", "bias_ih")(x) + Linear(self, "weight_hh", "bias_hh")(h0)
        h = self.gate(0, a)
        return (h,), {"x": x, "h0": h0, "a": a, "h": h}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        (dh,) = dstate
        da = self.gate_backward(0, saved["a"], dh)
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], da)
        dh0 = Linear(self, "weight_hh", "bias_hh").backward(saved["h0"], da)
        return dx, (dh0,)
