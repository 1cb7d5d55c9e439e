"""The GRU whose reset gate multiplies h before the product (Cho et al. 2014; ONNX linear_before_reset=0).

r = f(W_r x + R_r h + b_r)
z = f(W_z x + R_z h + b_z)
n = g(W_n x + b_in + R_n (r * h) + b_hn)
h' = (1 - z) * n + z * h
"""

from __future__ import annotations

import numpy as np

from ..spec import Array
from .cell import Cell, Linear, Saved, State


class GRUResetBefore(Cell):
    trace = ("r", "z", "n", "h")

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        (h0,) = state
        x_r, x_z, x_n = np.split(Linear(self, "weight_ih", "bias_ih")(x), 3, axis=1)
        r_r, r_z = np.split(self.recurrent_gates()(h0), 2, axis=1)
        r, slope_r = self.gate(0, x_r + r_r)
        z, slope_z = self.gate(0, x_z + r_z)
        n, slope_n = self.gate(1, x_n + self.recurrent_candidate()(r * h0))
        h = (1 - z) * n + z * h0
        slopes = {"slope_r": slope_r, "slope_z": slope_z, "slope_n": slope_n}
        return (h,), {"x": x, "h0": h0, "r": r, "z": z, "n": n, "h": h, **slopes}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        (dh,) = dstate
        h0, r, z, n = (saved[key] for key in ("h0", "r", "z", "n"))
        da_z = dh * (h0 - n) * saved["slope_z"]
        da_n = dh * (1 - z) * saved["slope_n"]
        dreset = self.recurrent_candidate().backward(r * h0, da_n)
        da_r = dreset * h0 * saved["slope_r"]
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], np.hstack([da_r, da_z, da_n]))
        dh0 = self.recurrent_gates().backward(h0, np.hstack([da_r, da_z]))
        return dx, (dh0 + dh * z + dreset * r,)

    def recurrent_gates(self) -> Linear:
        return Linear(self, "weight_hh", "bias_hh", slice(0, 2 * self.spec.hidden_size))

    def recurrent_candidate(self) -> Linear:
        return Linear(self, "weight_hh", "bias_hh", slice(2 * self.spec.hidden_size, None))
