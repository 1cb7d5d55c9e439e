"""What is measured: a cell, its sizes, its weights and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..spec import GATES, Array

CELLS = ("lstm", "gru", "rnn")

Results = Mapping[str, Array]
"""By name: y (T, B, H), h and c (B, H); of training also dx, dh, dc and the gradient d<name> of each weight."""


class Shape(NamedTuple):
    """Steps, sequences, input features, hidden units."""

    T: int
    B: int
    I: int  # noqa: E741
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


GRID = (
    Shape(1, 1, 128, 128),
    Shape(100, 1, 64, 64),
    Shape(100, 1, 256, 256),
    Shape(100, 1, 512, 512),
    Shape(100, 1, 1024, 1024),
    Shape(100, 32, 64, 64),
    Shape(100, 32, 128, 128),
    Shape(100, 32, 256, 256),
    Shape(100, 32, 512, 512),
    Shape(50, 128, 256, 256),
    Shape(24, 32, 40, 40),
)
"""From one step of one sequence to what no cache holds."""


@dataclass(frozen=True)
class Case:
    """One layer, one direction, float32."""

    cell: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.cell.upper()} {self.shape}"

    @property
    def gates(self) -> int:
        return len(GATES["gru_reset_after" if self.cell == "gru" else self.cell])

    @property
    def flops(self) -> int:
        """Of the forward products."""
        return 2 * self.shape.T * self.shape.B * self.gates * self.shape.H * (self.shape.I + self.shape.H)

    @property
    def nbytes(self) -> int:
        """About what a contender that keeps every intermediate result of training holds."""
        steps, batch, inputs, hidden = self.shape
        return 4 * (3 * self.gates * hidden * (inputs + hidden + 2) + steps * batch * (2 * inputs + 20 * hidden))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        rows = self.gates * self.shape.H
        return {
            "weight_ih_l0": (rows, self.shape.I),
            "weight_hh_l0": (rows, self.shape.H),
            "bias_ih_l0": (rows,),
            "bias_hh_l0": (rows,),
        }


class Problem:
    """A case with numbers in it, the same for all contenders: weights (PyTorch's names), x, zero states, dy."""

    def __init__(self, case: Case) -> None:
        self.case = case
        steps, batch, inputs, hidden = case.shape
        random = np.random.default_rng(0)
        bound = np.float32(hidden**-0.5)
        self.weights: dict[str, Array] = {
            name: random.uniform(-bound, bound, size).astype(np.float32) for name, size in case.weight_shapes().items()
        }
        self.x: Array = random.standard_normal((steps, batch, inputs), np.float32)
        self.dy: Array = random.standard_normal((steps, batch, hidden), np.float32)
        self.state: tuple[Array, ...] = tuple(
            np.zeros((1, batch, hidden), np.float32) for _ in range(2 if case.cell == "lstm" else 1)
        )

    def results(self, y: Array, state: tuple[Array, ...]) -> dict[str, Array]:
        """Name the results of inference, whatever axes of size one the states have."""
        shape = (self.case.shape.B, self.case.shape.H)
        return {"y": y, **{name: np.reshape(array, shape) for name, array in zip("hc", state, strict=False)}}

    def gradients(self, dx: Array, dstate: tuple[Array, ...], dweights: Mapping[str, Array]) -> dict[str, Array]:
        """Name the gradients."""
        named = {f"d{name}": array for name, array in self.results(dx, dstate).items() if name != "y"}
        return {"dx": dx, **named, **{f"d{name}": array for name, array in dweights.items()}}
