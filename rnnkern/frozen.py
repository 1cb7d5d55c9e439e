"""Inference only: a layer's snapshot with packed weights, and a stream that keeps its state between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Optional

import numpy as np

from .options import check_bool, check_size
from .spec import Array, S

if TYPE_CHECKING:
    from .layer import Layer


def freeze(layer: Layer[S]) -> FrozenLayer[S]:
    """Freeze it again, as unpickling does."""
    return layer.freeze()


class FrozenLayer(Generic[S]):
    """An immutable snapshot of a layer. Made by `Layer.freeze`; called as the layer is, with the same bits."""

    def __init__(self, network: Any, snapshot: Layer[S]) -> None:
        self._network = network
        self._snapshot = snapshot
        self._spec = snapshot._spec
        self._batch_first = snapshot.batch_first

    def __call__(
        self, x: Array, state: Optional[S] = None, *, lengths: Any = None, return_sequence: bool = True
    ) -> tuple[Array, S]:
        """Run the sequences: arguments, results and errors of `Layer.__call__`."""
        return self._network.run(x, state, lengths, check_bool("return_sequence", return_sequence))  # type: ignore[no-any-return]

    def step(self, x_t: Array, state: Optional[S] = None) -> tuple[Array, S]:
        """Run one time step: arguments, results and errors of `Layer.step`."""
        return self._network.step(x_t, state)  # type: ignore[no-any-return]

    def stream(self, batch_size: int = 1, state: Optional[S] = None) -> Stream[S]:
        """Start a stream of `batch_size` sequences that keeps its own state between calls.

        Parameters
        ----------
        batch_size : int
            At least 1.
        state : as for a call, optional
            The initial state; None means zeros.

        Raises
        ------
        ValueError
            If the layer is bidirectional, or for wrong sizes.
        """
        return Stream(self, batch_size, state)

    def __repr__(self) -> str:
        return f"{self._snapshot!r}.freeze()"

    def __copy__(self) -> FrozenLayer[S]:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenLayer[S]:
        return self

    def __reduce__(self) -> tuple[Callable[[Layer[S]], FrozenLayer[S]], tuple[Layer[S]]]:
        return freeze, (self._snapshot,)


class Stream(Generic[S]):
    """A frozen layer with a state of its own. Not for several Python threads at once."""

    def __init__(self, frozen: FrozenLayer[S], batch_size: int = 1, state: Optional[S] = None) -> None:
        if frozen._spec.bidirectional:
            raise ValueError("stream: a bidirectional layer reads the whole sequence, it can't run step by step")
        self._network = frozen._network
        self._spec = frozen._spec
        self._batch_first = frozen._batch_first
        self._batch_size = check_size("batch_size", batch_size)
        self._state: Any = None
        if state is not None:
            self.state = state

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def step(self, x_t: Array, out: Optional[Array] = None) -> Array:
        """Run one time step on from the current state.

        Parameters
        ----------
        x_t : array (batch_size, I), or (I,) where batch_size is 1
        out : contiguous array (batch_size, H), or (H,), optional
            Where to put the result instead of a fresh array.

        Returns
        -------
        y_t : array (batch_size, H) or (H,)

        Raises
        ------
        TypeError, ValueError
            As `Layer.step`; the state is then unchanged.
        """
        if isinstance(x_t, np.ndarray) and x_t.shape[:-1] != (self._batch_size,):
            return self._step_unbatched(x_t, out)
        y, self._state = self._network.step(x_t, self._state, out)
        return y  # type: ignore[no-any-return]

    def _step_unbatched(self, x_t: Array, out: Optional[Array]) -> Array:
        if x_t.ndim != 1 or self._batch_size != 1:
            expected = f"({self._batch_size}, {self._spec.input_size})"
            came = f"{x_t.dtype} array of shape {x_t.shape}"
            raise ValueError(f"x_t: expected a {self._spec.dtype} array of shape {expected}, got {came}")
        y, self._state = self._network.step(x_t[None], self._state, out[None] if isinstance(out, np.ndarray) else out)
        return y[0] if out is None else out

    def run(self, x: Array) -> Array:
        """Run a piece of the sequences on from the current state.

        Parameters
        ----------
        x : array (T, batch_size, I), or as the layer lays sequences out, or (T, I) where batch_size is 1

        Returns
        -------
        y : array (T, batch_size, H), or as x
        """
        unbatched = isinstance(x, np.ndarray) and x.ndim == 2 and self._batch_size == 1
        axis = 0 if self._batch_first else 1
        if unbatched:
            x = np.expand_dims(x, axis)
        elif isinstance(x, np.ndarray) and x.ndim == 3 and x.shape[axis] != self._batch_size:
            raise ValueError(f"x: expected {self._batch_size} sequences, got {x.shape[axis]}")
        y, self._state = self._network.run(x, self._state)
        return np.squeeze(y, axis) if unbatched else y  # type: ignore[no-any-return]

    @property
    def state(self) -> S:
        """A copy of the current state, h or (h, c), arrays (L, batch_size, H); assigning copies in."""
        if self._state is None:
            self._state = self._zeros()
        copied: Any = tuple(a.copy() for a in self._state) if self._spec.has_cell_state else self._state.copy()
        return copied  # type: ignore[no-any-return]

    @state.setter
    def state(self, value: Optional[S]) -> None:
        if value is None:
            self._state = None
            return
        shape = (
            (self._batch_size, 0, self._spec.input_size)
            if self._batch_first
            else (0, self._batch_size, self._spec.input_size)
        )
        members = self._network.check(np.empty(shape, self._spec.dtype), value, None)[1]
        copies = tuple(member.copy() for member in members)
        self._state = copies if self._spec.has_cell_state else copies[0]

    def _zeros(self) -> Any:
        spec = self._spec
        h = np.zeros((spec.num_layers, self._batch_size, spec.output_size), spec.dtype)
        return (
            (h, np.zeros((spec.num_layers, self._batch_size, spec.hidden_size), spec.dtype))
            if spec.has_cell_state
            else h
        )

    def reset(self, rows: Any = None) -> None:
        """Set the state to zeros: all of it, or that of some rows of the batch (any NumPy index)."""
        if rows is None:
            self._state = None
            return
        state: Any = self.state
        for member in state if self._spec.has_cell_state else (state,):
            member[:, rows] = 0
        self._state = state

    def generate(self, x0: Array, fn: Callable[[Array], Array], steps: int) -> Array:
        """Feed back: the first input is x0, each next one is ``fn(y_t)``.

        Returns
        -------
        y : array (steps, batch_size, H), or (steps, H) where x0 is (I,)
        """
        x_t, outputs = x0, []
        for remaining in range(check_size("steps", steps, 0), 0, -1):
            outputs.append(self.step(x_t))
            if remaining > 1:
                x_t = fn(outputs[-1])
        if outputs:
            return np.stack(outputs)
        return np.empty((0, *np.shape(x0)[:-1], self._spec.output_size), self._spec.dtype)

    def __repr__(self) -> str:
        return f"<rnnkern.Stream: {self._batch_size} sequences>"
