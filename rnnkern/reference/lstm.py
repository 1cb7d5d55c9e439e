"""The LSTM and its variants.

Hochreiter & Schmidhuber 1997; with peepholes (Gers et al. 2002), coupled gates (Greff et al. 2017) and projection
(Sak et al. 2014).

    i = f(W_i x + R_i h + b_i + p_i * c)
    f = f(W_f x + R_f h + b_f + p_f * c)       coupled: i = 1 - f, or f = 1 - i
    g = g(W_g x + R_g h + b_g)
    c' = f * c + i * g
    o = f(W_o x + R_o h + b_o + p_o * c')
    h' = o * h(c')                             projected: h' = P (o * h(c'))
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..spec import GATES, Activation, Array, Spec
from .activations import activate, activate_backward
from .cell import Cell, Linear, Saved, State


class LSTM(Cell):
    trace = ("i", "f", "g", "o", "c", "h")

    def __init__(self, spec: Spec, activations: tuple[Activation, ...], weights: Mapping[str, Array]) -> None:
        if spec.coupled is not None:
            weights = {name: weight.copy() for name, weight in weights.items()}
        super().__init__(spec, activations, weights)
        self.forget_derived(self.weights)

    def forward(self, x: Array, state: State) -> tuple[State, Saved]:
        h0, c0 = state
        a = Linear(self, "weight_ih", "bias_ih")(x) + Linear(self, "weight_hh", "bias_hh")(h0)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        if self.spec.peephole:
            p_i, p_f, p_o = self.weights["weight_peephole"]
            a_i, a_f = a_i + p_i * c0, a_f + p_f * c0
        i, f, g = self.gate(0, a_i), self.gate(0, a_f), self.gate(1, a_g)
        if self.spec.coupled == "i":
            i = 1 - f
        elif self.spec.coupled == "f":
            f = 1 - i
        c = f * c0 + i * g
        if self.spec.peephole:
            a_o = a_o + p_o * c
        o = self.gate(0, a_o)
        m = activate(c, self.activations[2])
        h = Linear(self, "weight_hr")(o * m) if self.spec.proj_size else o * m
        values = {"x": x, "h0": h0, "c0": c0, "i": i, "f": f, "g": g, "o": o, "c": c, "m": m, "h": h}
        return (h, c), {**values, "a_i": a_i, "a_f": a_f, "a_g": a_g, "a_o": a_o}

    def backward(self, saved: Saved, dstate: State) -> tuple[Array, State]:
        dh, dc = dstate
        c0, i, f, g, o, c, m = (saved[key] for key in ("c0", "i", "f", "g", "o", "c", "m"))
        if self.spec.proj_size:
            dh = Linear(self, "weight_hr").backward(o * m, dh)
        da_o = self.gate_backward(0, saved["a_o"], dh * m)
        dc = dc + activate_backward(dh * o, c, self.activations[2])
        if self.spec.peephole:
            dc = dc + da_o * self.weights["weight_peephole"][2]
        di, df = dc * g, dc * c0
        if self.spec.coupled == "i":
            df = df - di
        elif self.spec.coupled == "f":
            di = di - df
        none = np.zeros_like(dc)
        da_i = none if self.spec.coupled == "i" else self.gate_backward(0, saved["a_i"], di)
        da_f = none if self.spec.coupled == "f" else self.gate_backward(0, saved["a_f"], df)
        da_g = self.gate_backward(1, saved["a_g"], dc * i)
        dc0 = dc * f
        if self.spec.peephole:
            p_i, p_f, _ = self.weights["weight_peephole"]
            dc0 = dc0 + da_i * p_i + da_f * p_f
            self.gradients["weight_peephole"] += np.stack([da_i * c0, da_f * c0, da_o * c]).sum(axis=1)
        da = np.hstack([da_i, da_f, da_g, da_o])
        dx = Linear(self, "weight_ih", "bias_ih").backward(saved["x"], da)
        dh0 = Linear(self, "weight_hh", "bias_hh").backward(saved["h0"], da)
        self.forget_derived(self.gradients)
        return dx, (dh0, dc0)

    def forget_derived(self, arrays: Mapping[str, Array]) -> None:
        """Zeros for the rows of the derived gate: whatever is stored there has no effect, and no gradient."""
        if self.spec.coupled is None:
            return
        index, size = GATES["lstm"].index(self.spec.coupled), self.spec.hidden_size
        for name, array in arrays.items():
            if name == "weight_peephole":
                array[index] = 0
            elif name != "weight_hr":
                array[index * size : (index + 1) * size] = 0
