"""The standard's recurrent operators for `onnx.reference.ReferenceEvaluator`, with all their attributes.

`clip` bounds the pre-activations of gates and candidates, as in onnxruntime, and not c, which the LSTM's h also reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from onnx.reference.op_run import OpRun

from ..frozen import FrozenLayer
from ..spec import Array
from .nodes import Kind, kernel_dtype, make_layer
from .reversed import Reversed


@dataclass(frozen=True)
class Kept:
    """The layer of the last call, and what it was made from."""

    layer: FrozenLayer | Reversed
    attributes: dict[str, Any]
    weights: dict[str, Array]

    def fits(self, attributes: dict[str, Any], weights: dict[str, Array]) -> bool:
        return (
            attributes == self.attributes
            and weights.keys() == self.weights.keys()
            and all(is_same(array, self.weights[name]) for name, array in weights.items())
        )


def is_constant(array: Array) -> bool:
    """Whether it is a view of bytes, as an initializer, which can't change."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:
        owner = owner.base
    return isinstance(owner, bytes)


def is_same(array: Array, kept: Array) -> bool:
    if is_constant(kept) and array.__array_interface__ == kept.__array_interface__:
        return True
    return array.dtype == kept.dtype and np.array_equal(array, kept)


class _Recurrent(OpRun):
    op_domain = ""
    kind: Kind
    _kept: Optional[Kept] = None

    def run(self, *args: Any, **kwargs: Any) -> tuple[Optional[Array], ...]:
        """Compute the outputs; None for one without a name, since that is also the name of an input that is missing."""
        return tuple(array if name else None for name, array in zip(self.output, super().run(*args, **kwargs)))

    def _run(
        self,
        X: Array,
        W: Array,
        R: Array,
        B: Optional[Array] = None,
        sequence_lens: Optional[Array] = None,
        initial_h: Optional[Array] = None,
        initial_c: Optional[Array] = None,
        P: Optional[Array] = None,
        **attributes: Any,
    ) -> tuple[Array, ...]:
        weights = {name: array for name, array in zip("WRBP", (W, R, B, P)) if array is not None}
        layer = self._layer(attributes, weights)
        if X.ndim != 3:
            raise ValueError(f"X: expected three dimensions, got shape {X.shape}")
        batch_first = bool(attributes.get("layout"))

        def read(array: Array) -> Array:
            return (array.swapaxes(0, 1) if batch_first else array).astype(kernel_dtype(X.dtype), copy=False)

        x, state = read(X), None
        if initial_h is not None or initial_c is not None:
            zeros = np.zeros((len(R), x.shape[1], R.shape[-1]), x.dtype)
            h, c = (zeros if member is None else read(member) for member in (initial_h, initial_c))
            state = (h, c) if self.kind == "LSTM" else (h,)
        y, last = run_sequences(layer, x, state, sequence_lens, bool(self.output[0]))

        if self.output[0]:
            y = y.reshape(*y.shape[:2], len(R), R.shape[-1]).transpose((1, 0, 2, 3) if batch_first else (0, 2, 1, 3))
        if batch_first:
            last = [member.swapaxes(0, 1) for member in last]
        return tuple(array.astype(X.dtype, copy=False) for array in (y, *last))

    def _layer(self, attributes: dict[str, Any], weights: dict[str, Array]) -> FrozenLayer | Reversed:
        """The node as a layer that reads (T, B, I), packed again only where its weights have changed."""
        kept = self._kept
        if kept is None or not kept.fits(attributes, weights):
            layer = make_layer(self.kind, {**attributes, "layout": 0}, **weights).freeze()
            copies = {name: array if is_constant(array) else array.copy() for name, array in weights.items()}
            self._kept = kept = Kept(layer, attributes, copies)
        return kept.layer


def run_sequences(
    layer: FrozenLayer | Reversed,
    x: Array,
    state: Optional[tuple[Array, ...]],
    lengths: Optional[Array],
    return_sequence: bool,
) -> tuple[Array, list[Array]]:
    """Call the layer; a sequence of length 0 has outputs and last states of zeros, as in onnxruntime.

    Parameters
    ----------
    x : array (T, B, I)
    state : tuple of arrays (D, B, H), optional
        The initial h, or h and c.
    lengths : array (B,), optional

    Returns
    -------
    y : array (T, B, D*H), or (B, D*H) without the sequence
    last : list of arrays (D, B, H)
    """
    T, batch = x.shape[:2]
    counts = np.full(batch, T) if lengths is None else lengths
    if counts.shape != (batch,):
        raise ValueError(f"sequence_lens: expected shape {(batch,)}, got {counts.shape}")
    running = np.flatnonzero(counts)
    some = len(running) < batch
    if some:
        x, counts = x[:, running], counts[running]
        state = state and tuple(member[:, running] for member in state)
    initial: Any = state[0] if state and len(state) == 1 else state
    y, last = layer(x, initial, lengths=None if lengths is None else counts, return_sequence=return_sequence)
    results = [y, *(last if isinstance(last, tuple) else (last,))]
    if some:
        for index, part in enumerate(results):
            results[index] = np.zeros((*part.shape[:-2], batch, part.shape[-1]), part.dtype)
            results[index][..., running, :] = part
    return results[0], results[1:]


class RNN(_Recurrent):
    """The operator RNN (https://onnx.ai/onnx/operators/onnx__RNN.html)."""

    kind = "RNN"


class GRU(_Recurrent):
    """The operator GRU (https://onnx.ai/onnx/operators/onnx__GRU.html)."""

    kind = "GRU"


class LSTM(_Recurrent):
    """The operator LSTM (https://onnx.ai/onnx/operators/onnx__LSTM.html)."""

    kind = "LSTM"


new_ops: list[type[OpRun]] = [RNN, GRU, LSTM]
"""For ``onnx.reference.ReferenceEvaluator(model, new_ops=new_ops)``."""
