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
        a_r, a_z = x_r + r_r, x_z + r_z
        r, z = self.gate(0, a_r), self.gate(0, a_z)
        a_n = x_n + self.recurrent_candidate()(r * h0)
        n = self.gate(1, a_n)
        h = (1 - z) * n + z * h0
        return (h,), {"x": x, "h0": h0, "a_r": a_r, "a_z": a_z, "a_n": a_n, "r": r, "z": z, "n": n, "h": h}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        (dh,) = dstate
        h0, r, z, n = (saved[key] for key in ("h0", "r", "z", "n"))
        da_z = self.gate_backward(0, saved["a_z"], dh * (h0 - n))
        da_n = self.gate_backward(1, saved["a_n"], dh * (1 - z))
        dreset = self.recurrent_candidate().backward(r * h0, da_n)
        da_r = self.gate_backward(0, saved["a_r"], dreset * h0)
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], np.hstack([da_r, da_z, da_n]))
        dh0 = self.recurrent_gates().backward(h0, np.hstack([da_r, da_z]))
        return dx, (dh0 + dh * z + dreset * r,)

    def recurrent_gates(self) -> Linear:
        return Linear(self, "weight_hh", "bias_hh", slice(0, 2 * self.spec.hidden_size))

    def recurrent_candidate(self) -> Linear:
        return Linear(self, "weight_hh", "bias_hh", slice(2 * self.spec.hidden_size, None))
