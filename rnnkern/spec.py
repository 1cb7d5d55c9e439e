"""What a recurrent network is: its cell, sizes and options, and the names and shapes of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Literal, Optional, Tuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
State = Array | tuple[Array, Array]
"""h, or (h, c) for an LSTM; each of shape (L*D, B, size), or (L*D, size) where the input is not batched."""

if TYPE_CHECKING:
    import typing_extensions  # type checkers bring it; its defaults let users write a plain `Layer`

    S = typing_extensions.TypeVar("S", bound=State, default=Any)
else:
    S = TypeVar("S")
"""A class's own kind of state: an array, or (h, c) for an LSTM."""
Family = Literal["rnn", "lstm", "gru_reset_after", "gru_reset_before", "jordan"]
Activation = Tuple[str, float, float]
"""ONNX's name of an activation (or "Identity"), alpha, beta."""

Row = TypeVar("Row")


def of_each_cell(rows: dict[Family, Row]) -> dict[Family, Row]:
    """Return the table; an ImportError where a cell has no row in it."""
    if rows.keys() != set(get_args(Family)):
        raise ImportError(f"expected a row for each of {', '.join(get_args(Family))}, got {', '.join(rows)}")
    return rows


GATES = of_each_cell(
    {
        "rnn": ("h",),
        "lstm": ("i", "f", "g", "o"),
        "gru_reset_after": ("r", "z", "n"),
        "gru_reset_before": ("r", "z", "n"),
        "jordan": ("h",),
    }
)
"""The gates of each cell in the order of the stored weights (PyTorch's)."""


@dataclass(frozen=True)
class Spec:
    """The options of a network. Sizes are validated by whoever makes one."""

    family: Family
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    proj_size: int = 0
    """Of an LSTM's projection, or of a Jordan network's output."""
    peephole: bool = False
    coupled: Optional[Literal["i", "f"]] = None
    clip: Optional[float] = None
    activations: tuple[tuple[Activation, ...], ...] = ()
    """One tuple per direction, each in ONNX's order: RNN (f,), GRU (f, g), LSTM (f, g, h)."""
    dtype: np.dtype[Any] = np.dtype(np.float32)
    softmax: bool = False
    """Of a Jordan network's output."""

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def num_gates(self) -> int:
        return len(GATES[self.family])

    @property
    def output_size(self) -> int:
        """Size of what is fed back and handed on, in one direction: h, its projection or Jordan's output."""
        return self.proj_size or self.hidden_size

    @property
    def has_cell_state(self) -> bool:
        return self.family == "lstm"

    def parts(self) -> Iterator[tuple[int, int, str]]:
        """(layer, direction, suffix of the weights' names), in the order of the states."""
        for layer in range(self.num_layers):
            for direction in range(self.num_directions):
                yield layer, direction, f"_l{layer}" + ("_reverse" if direction else "")

    def layer_input_size(self, layer: int) -> int:
        return self.input_size if layer == 0 else self.num_directions * self.output_size

    @property
    def part_weights(self) -> tuple[str, ...]:
        """Names, without suffix, of what one layer and direction may have, in the order of `weight_shapes`."""
        output = ("weight_ho", "bias_ho") if self.family == "jordan" else ("weight_hr", "bias_hr")
        return ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *output, "weight_peephole")

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight, in PyTorch's order."""
        rows = self.num_gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, _, suffix in self.parts():
            shapes["weight_ih" + suffix] = (rows, self.layer_input_size(layer))
            shapes["weight_hh" + suffix] = (rows, self.output_size)
            if self.bias:
                shapes["bias_ih" + suffix] = (rows,)
                shapes["bias_hh" + suffix] = (rows,)
            if self.family == "jordan":
                shapes["weight_ho" + suffix] = (self.output_size, self.hidden_size)
                if self.bias:
                    shapes["bias_ho" + suffix] = (self.output_size,)
            elif self.proj_size:
                shapes["weight_hr" + suffix] = (self.proj_size, self.hidden_size)
            if self.peephole:
                shapes["weight_peephole" + suffix] = (3, self.hidden_size)
        return shapes
