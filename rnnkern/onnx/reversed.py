"""Sequences read backwards, by a layer that reads them forwards."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ..frozen import FrozenLayer
from ..layer import Layer
from ..spec import Array, State


class Reversed:
    """A layer that reads each sequence from its own end to its beginning, as the standard's direction "reverse".

    It is called as `layer` is, and gives what the second half of a bidirectional layer would: outputs stand at the
    steps of their inputs, and the last state is that after step 0. `layer` itself, which runs forwards, holds the
    weights.
    """

    def __init__(self, layer: Layer | FrozenLayer) -> None:
        self.layer = layer

    def __call__(
        self, x: Array, state: Optional[State] = None, *, lengths: Any = None, return_sequence: bool = True
    ) -> tuple[Array, Any]:
        """Run the sequences: arguments, results and errors of `rnnkern.Layer.__call__`."""
        ends = self.layer._network.check(x, state, lengths)[2]
        y, last = self.layer(self._flip(x, ends), state, lengths=lengths, return_sequence=return_sequence)
        return self._flip(y, ends) if return_sequence else y, last

    def freeze(self) -> Reversed:
        """Return a snapshot for inference, as `rnnkern.Layer.freeze`."""
        return Reversed(self.layer.freeze()) if isinstance(self.layer, Layer) else self

    def __repr__(self) -> str:
        return f"Reversed({self.layer!r})"

    def _flip(self, sequences: Array, ends: Optional[Array]) -> Array:
        """The first `ends` (B,) steps of each sequence, the last one first; padding stays where it is."""
        batch_first = sequences.ndim == 3 and self.layer._batch_first
        axis = 1 if batch_first else 0
        if ends is None:
            return np.flip(sequences, axis)
        steps, ends = np.arange(sequences.shape[axis]), ends[:, None]
        order = np.where(steps < ends, ends - 1 - steps, steps)  # (B, T)
        order = (order if batch_first else order.T).reshape(*sequences.shape[:-1], 1)
        return np.take_along_axis(sequences, order, axis)
