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
from .nodes import Kind, check_layout, check_tensors, kernel_dtype, make_layer
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
        try:
            outputs = super().run(*args, **kwargs)
        except TypeError as error:  # whose words don't tell which input is meant, as its cause does
            raise error.__cause__ or error from None
        return tuple(array if name else None for name, array in zip(self.output, outputs))

    def _run(
        self,
        X: Any = None,
        W: Any = None,
        R: Any = None,
        B: Any = None,
        sequence_lens: Any = None,
        initial_h: Any = None,
        initial_c: Any = None,
        P: Any = None,
        *more: Any,
        **attributes: Any,
    ) -> tuple[Array, ...]:
        if more:
            raise ValueError(f"{self.kind}: expected at most 8 inputs, got {8 + len(more)}")
        if X is None:
            raise ValueError("X: expected a tensor, the node has no such input")
        given = {"X": X, "W": W, "R": R, "B": B, "initial_h": initial_h, "initial_c": initial_c, "P": P}
        tensors = check_tensors(self.kind, given)
        batch_first = check_layout(attributes.get("layout") or 0)
        layer = self._layer(attributes, {name: tensors[name] for name in "WRBP" if name in tensors})
        (directions, _, inputs), hidden_size = W.shape, R.shape[-1]

        def read(array: Array) -> Array:
            return (array.swapaxes(0, 1) if batch_first else array).astype(kernel_dtype(X.dtype), copy=False)

        x, state = read(X), None
        steps, batch = x.shape[:2]
        check_shape("X", X, (*X.shape[:2], inputs))
        lengths = check_lengths(sequence_lens, steps, batch)
        sizes = (batch, directions, hidden_size) if batch_first else (directions, batch, hidden_size)
        for name in ("initial_h", "initial_c"):
            if name in tensors:
                check_shape(name, tensors[name], sizes)
        if initial_h is not None or initial_c is not None:
            zeros = np.zeros((directions, batch, hidden_size), x.dtype)
            h, c = (zeros if member is None else read(member) for member in (initial_h, initial_c))
            state = (h, c) if self.kind == "LSTM" else (h,)
        y, last = run_sequences(layer, x, state, lengths, bool(self.output[0]))

        if self.output[0]:
            y = y.reshape(steps, batch, directions, hidden_size)
            y = y.transpose((1, 0, 2, 3) if batch_first else (0, 2, 1, 3))
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


def check_shape(name: str, tensor: Array, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tensor.shape}")


def check_lengths(sequence_lens: Any, steps: int, batch: int) -> Optional[Array]:
    """The lengths as they are, if they are `batch` integers in 0..`steps`; None for none."""
    if sequence_lens is None:
        return None
    is_tensor = isinstance(sequence_lens, (np.ndarray, np.generic)) and not isinstance(sequence_lens, np.ma.MaskedArray)
    if not is_tensor or sequence_lens.dtype.kind not in "iu":
        got = sequence_lens.dtype if is_tensor else type(sequence_lens).__name__
        raise TypeError(f"sequence_lens: expected a tensor of integers, got {got}")
    lengths = np.asarray(sequence_lens)
    check_shape("sequence_lens", lengths, (batch,))
    values = lengths.tolist()
    if batch and not (min(values) >= 0 and max(values) <= steps):
        raise ValueError(f"sequence_lens: expected integers in 0..{steps}, got {values}")
    return lengths


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
