"""What is measured: a cell, its sizes, its weights and its inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from ..spec import Array, Family, Spec

CELLS = ("lstm", "gru", "rnn")
FAMILIES: Mapping[str, Family] = {"lstm": "lstm", "gru": "gru_reset_after", "rnn": "rnn"}
DType = Literal["float32", "float64"]
DTYPES: tuple[DType, ...] = ("float32", "float64")

Results = Mapping[str, Array]
"""By name: y (T, B, D*H), h and c (L*D, B, H); of training also dx, dh, dc and the gradient d<name> of each weight."""


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
    cell: str
    shape: Shape
    num_layers: int = 1
    bidirectional: bool = False
    ragged: bool = False
    """The sequences have lengths of their own, uniform in T/4..T."""
    dtype: DType = "float32"

    def __str__(self) -> str:
        return f"{self.cell.upper()} {self.label}"

    @property
    def label(self) -> str:
        """All but the cell: the sizes, and what is not as usual."""
        unusual = {
            f"x{self.num_layers}": self.num_layers > 1,
            "bi": self.bidirectional,
            "ragged": self.ragged,
            self.dtype: self.dtype != "float32",
        }
        return " ".join([str(self.shape), *(name for name, holds in unusual.items() if holds)])

    @cached_property
    def spec(self) -> Spec:
        return Spec(
            FAMILIES[self.cell],
            self.shape.I,
            self.shape.H,
            self.num_layers,
            self.bidirectional,
            dtype=np.dtype(self.dtype),
        )

    @property
    def gates(self) -> int:
        return self.spec.num_gates

    @cached_property
    def lengths(self) -> Array | None:
        """Of the sequences, always the same ones (B,); None if none is shorter than T."""
        steps, batch, *_ = self.shape
        if not self.ragged:
            return None
        return np.random.default_rng(0).integers(-(-steps // 4), steps + 1, batch, np.int64)

    @cached_property
    def active_rows(self) -> Array:
        """How many sequences there still are at each step (T,)."""
        steps, batch, *_ = self.shape
        if self.lengths is None:
            return np.full(steps, batch)
        rows: Array = (np.arange(steps)[:, None] < self.lengths).sum(1)
        return rows

    @property
    def flops(self) -> int:
        """Of the forward products."""
        weights = sum(rows * columns[0] for rows, *columns in self.weight_shapes().values() if columns)
        return 2 * int(self.active_rows.sum()) * weights

    @property
    def parameters(self) -> int:
        """How many weights and biases there are."""
        return sum(math.prod(size) for size in self.weight_shapes().values())

    @property
    def nbytes(self) -> int:
        """About what a contender that keeps every intermediate result of training holds."""
        steps, batch, inputs, hidden = self.shape
        parts = self.num_layers * self.spec.num_directions
        return self.spec.dtype.itemsize * (3 * self.parameters + steps * batch * (2 * inputs + parts * 20 * hidden))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.spec.weight_shapes()


DEEP = (Shape(100, 1, 256, 256), Shape(100, 32, 256, 256))
"""Where the default cases also have two layers, and two directions."""


def default_cases(cell: str) -> list[Case]:
    """The grid, nets of two layers and of two directions, and a ragged batch."""
    plain = [Case(cell, shape) for shape in GRID]
    deep = [case for shape in DEEP for case in (Case(cell, shape, num_layers=2), Case(cell, shape, bidirectional=True))]
    return [*plain, *deep, Case(cell, DEEP[-1], ragged=True)]


class Problem:
    """A case with numbers in it, the same for all contenders: weights (PyTorch's names), x, zero states, dy."""

    def __init__(self, case: Case) -> None:
        self.case = case
        steps, batch, inputs, hidden = case.shape
        directions = case.spec.num_directions
        random = np.random.default_rng(0)
        bound = hidden**-0.5

        def normal(width: int) -> Array:
            return random.standard_normal((steps, batch, width), np.float32).astype(case.dtype)

        self.weights: dict[str, Array] = {
            name: random.uniform(-bound, bound, size).astype(case.dtype) for name, size in case.weight_shapes().items()
        }
        self.x: Array = normal(inputs)
        self.dy: Array = normal(directions * hidden)
        self.state: tuple[Array, ...] = tuple(
            np.zeros((case.num_layers * directions, batch, hidden), case.dtype)
            for _ in range(1 + case.spec.has_cell_state)
        )

    def results(self, y: Array, state: tuple[Array, ...]) -> dict[str, Array]:
        """Name the results of inference."""
        return {"y": y, **dict(zip("hc", state, strict=False))}

    def gradients(self, dx: Array, dstate: tuple[Array, ...], dweights: Mapping[str, Array]) -> dict[str, Array]:
        """Name the gradients."""
        named = {f"d{name}": array for name, array in zip("hc", dstate, strict=False)}
        return {"dx": dx, **named, **{f"d{name}": array for name, array in dweights.items()}}
