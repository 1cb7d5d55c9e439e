"""The GRU whose reset gate multiplies the recurrent product (PyTorch, cuDNN; ONNX linear_before_reset=1).

r = f(W_r x + R_r h + b_r)
z = f(W_z x + R_z h + b_z)
n = g(W_n x + b_in + r * (R_n h + b_hn))
h' = (1 - z) * n + z * h
"""

from __future__ import annotations

import numpy as np

from ..spec import Array
from .cell import Cell, Linear, Saved, State


class GRUResetAfter(Cell):
    trace = ("r", "z", "n", "h")

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        (h0,) = state
        x_r, x_z, x_n = np.split(Linear(self, "weight_ih", "bias_ih")(x), 3, axis=1)
        r_r, r_z, r_n = np.split(Linear(self, "weight_hh", "bias_hh")(h0), 3, axis=1)
        a_r, a_z = x_r + r_r, x_z + r_z
        r, z = self.gate(0, a_r), self.gate(0, a_z)
        a_n = x_n + r * r_n
        n = self.gate(1, a_n)
        h = (1 - z) * n + z * h0
        pre_activations = {"a_r": a_r, "a_z": a_z, "a_n": a_n}
        return (h,), {"x": x, "h0": h0, "r_n": r_n, **pre_activations, "r": r, "z": z, "n": n, "h": h}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        (dh,) = dstate
        h0, r, z, n, r_n = (saved[key] for key in ("h0", "r", "z", "n", "r_n"))
        da_z = self.gate_backward(0, saved["a_z"], dh * (h0 - n))
        da_n = self.gate_backward(1, saved["a_n"], dh * (1 - z))
        da_r = self.gate_backward(0, saved["a_r"], da_n * r_n)
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], np.hstack([da_r, da_z, da_n]))
        dh0 = Linear(self, "weight_hh", "bias_hh").backward(h0, np.hstack([da_r, da_z, da_n * r]))
        return dx, (dh0 + dh * z,)
