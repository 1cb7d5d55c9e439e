"""The Elman network: h' = f(W x + R h + b) (Elman 1990)."""

from __future__ import annotations

from ..spec import Array
from .cell import Cell, Linear, Saved, State


class RNN(Cell):
    trace = ("h",)

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        (h0,) = state
        h, slope = self.gate(0, Linear(self, "weight_ih", "bias_ih")(x) + Linear(self, "weight_hh", "bias_hh")(h0))
        return (h,), {"x": x, "h0": h0, "h": h, "slope": slope}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        da = dstate[0] * saved["slope"]
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], da)
        dh0 = Linear(self, "weight_hh", "bias_hh").backward(saved["h0"], da)
        return dx, (dh0,)
