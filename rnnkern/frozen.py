"""Inference only: a layer's snapshot with packed weights, and a stream that keeps its state between calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Optional

import numpy as np

from .options import check_bool, check_size, describe
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
    """A frozen layer with a state of its own. Not for several Python threads at once.

    A copy goes on from the same state by itself, a pickled one also in another process. Copies share the frozen layer.
    """

    def __init__(self, frozen: FrozenLayer[S], batch_size: int = 1, state: Optional[S] = None) -> None:
        if frozen._spec.bidirectional:
            raise ValueError("stream: a bidirectional layer reads the whole sequence, it can't run step by step")
        self._frozen = frozen
        self._network = frozen._network
        self._spec = frozen._spec
        self._batch_first = frozen._batch_first
        self._batch_size = check_size("batch_size", batch_size)
        self._state: Any = None
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
            if x_t.ndim == self._batch_size == 1:
                return self._unbatched(self._network.step, x_t, out)
            expected = f"{self._spec.dtype} array of shape ({self._batch_size}, {self._spec.input_size})"
            raise ValueError(f"x_t: expected a {expected}, got {x_t.dtype} array of shape {x_t.shape}")
        y, self._state = self._network.step(x_t, self._state, out)
        return y  # type: ignore[no-any-return]

    def run(self, x: Array) -> Array:
        """Run a piece of the sequences on from the current state.

        Parameters
        ----------
        x : array (T, batch_size, I), or as the layer lays sequences out, or (T, I) where batch_size is 1

        Returns
        -------
        y : array (T, batch_size, H), or as x
        """
        if isinstance(x, np.ndarray):
            if x.ndim == 2 and self._batch_size == 1:
                return self._unbatched(self._network.run, x)
            axes = (self._batch_size, "T") if self._batch_first else ("T", self._batch_size)
            if x.ndim != 3 or x.shape[axes.index(self._batch_size)] != self._batch_size:
                expected = f"{self._spec.dtype} array of shape ({axes[0]}, {axes[1]}, {self._spec.input_size})"
                raise ValueError(f"x: expected a {expected}, got {x.dtype} array of shape {x.shape}")
        y, self._state = self._network.run(x, self._state)
        return y  # type: ignore[no-any-return]

    def _unbatched(self, run: Callable[..., tuple[Array, Any]], x: Array, *out: Optional[Array]) -> Array:
        """Run the only sequence without the axis of the batch."""
        members = self._members()
        y, state = run(x, self._from([member[:, 0] for member in members]), *out)
        last = state if self._spec.has_cell_state else (state,)
        self._state = self._from([member[:, None] for member in last])
        return y

    def _members(self) -> tuple[Array, ...]:
        """h, or h and c."""
        return self._state if self._spec.has_cell_state else (self._state,)

    def _from(self, members: Iterable[Array]) -> Any:
        """The state of these members."""
        h, *c = members
        return (h, *c) if c else h

    @property
    def state(self) -> S:
        """A copy of the current state, h or (h, c), arrays (L, batch_size, H); assigning copies in."""
        return self._from(member.copy() for member in self._members())  # type: ignore[no-any-return]

    @state.setter
    def state(self, value: Optional[S]) -> None:
        if value is None:
            self.reset()
            return
        spec, B = self._spec, self._batch_size
        no_steps = np.empty((B, 0, spec.input_size) if self._batch_first else (0, B, spec.input_size), spec.dtype)
        members = self._network.check(no_steps, value, None)[1]
        self._state = self._from(member.copy() for member in members)

    def reset(self, rows: Any = None) -> None:
        """Set the state to zeros: all of it, or that of some rows of the batch (any NumPy index).

        Raises
        ------
        TypeError, ValueError
            If `rows` is no such index; the state is then unchanged.
        """
        zeros = self._zeros()
        if rows is not None:
            others = ~self._chosen(rows)
            for zero, member in zip(zeros, self._members()):
                zero[:, others] = member[:, others]
        self._state = self._from(zeros)

    def _zeros(self) -> list[Array]:
        spec = self._spec
        sizes = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
        return [np.zeros((spec.num_layers, self._batch_size, size), spec.dtype) for size in sizes]

    def _chosen(self, rows: Any) -> Array:
        """Of each sequence whether an index chooses it."""
        chosen = np.zeros((1, self._batch_size), bool)
        expected = f"rows: expected an index into {self._batch_size} sequences, got {describe(rows)}"
        if isinstance(rows, (str, bytes, float, complex, np.ma.MaskedArray)):
            raise TypeError(expected)
        try:
            chosen[:, rows] = True
        except TypeError as error:
            raise TypeError(f"{expected}: {error}") from None
        except (IndexError, OverflowError, ValueError) as error:
            raise ValueError(f"{expected}: {error}") from None
        return chosen.ravel()

    def generate(self, x0: Array, fn: Callable[[Array], Array], steps: int) -> Array:
        """Feed back: the first input is x0, each next one is ``fn(y_t)``.

        Whatever `fn` raises comes out, and the state is then as it was before.

        Returns
        -------
        y : array (steps, batch_size, H), or (steps, H) where x0 is (I,)
        """
        before = self._state
        x_t, outputs = x0, []
        try:
            for remaining in range(check_size("steps", steps, 0), 0, -1):
                outputs.append(self.step(x_t))
                if remaining > 1:
                    x_t = fn(outputs[-1].copy())
            if outputs:
                return np.stack(outputs)
        except BaseException:
            self._state = before
            raise
        return np.empty((0, *np.shape(x0)[:-1], self._spec.output_size), self._spec.dtype)

    def __reduce__(self) -> tuple[type[Stream[S]], tuple[FrozenLayer[S], int, Any]]:
        return type(self), (self._frozen, self._batch_size, self._state)

    def __repr__(self) -> str:
        return f"<rnnkern.Stream: {self._batch_size} sequences>"
