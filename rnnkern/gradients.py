"""What `Layer.backward` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Optional, TypeVar

import numpy as np

from .spec import Array

if TYPE_CHECKING:
    import typing_extensions  # type checkers bring it

    DX = typing_extensions.TypeVar("DX", covariant=True, default=Optional[Array])
    DS = typing_extensions.TypeVar("DS", covariant=True, default=Any)
else:
    DX, DS = TypeVar("DX", covariant=True), TypeVar("DS", covariant=True)

# Values of `wrt` by what they ask for, so that a type checker knows which gradients there are.
_X = Literal["x"]
_State = Literal["state"]
_Weights = Literal["weights"]
_Any = Literal["x", "state", "weights"]
WithX = tuple[_X] | tuple[_X, _Weights] | tuple[_Weights, _X]
WithState = tuple[_State] | tuple[_State, _Weights] | tuple[_Weights, _State]
WithXAndState = tuple[_X, _State] | tuple[_State, _X] | tuple[_Any, _Any, _Any]
WeightsOnly = tuple[_Weights]
Wrt = tuple[str, ...] | list[str] | set[str] | frozenset[str]


@dataclass(frozen=True, repr=False)
class Gradients(Generic[DX, DS]):
    """What `Layer.backward` returns; what was not asked for is None, or an empty dict for the weights."""

    x: DX
    """Of the shape of x, zero in the padding."""
    state: DS
    """Of the structure of the state, h or (h, c), also where the initial state was None."""
    weights: dict[str, Array]
    """By the names of `Layer.weights`."""

    def __repr__(self) -> str:
        return (
            f"Gradients(x={shape_of(self.x)}, state={shape_of(self.state)}, "
            f"weights={{{', '.join(f'{name}: {shape_of(array)}' for name, array in self.weights.items())}}})"
        )


def shape_of(value: Any) -> str:
    """An array's shape instead of its values, alone or in a tuple."""
    if isinstance(value, tuple):
        return f"({', '.join(map(shape_of, value))})"
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
