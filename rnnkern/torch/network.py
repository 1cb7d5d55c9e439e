"""The kernels of a network on PyTorch's tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import _core
from .._core import Layout
from ..options import check_activations
from ..spec import Family, Spec

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
"""What the kernels compute in."""

PLAIN = (Tensor, nn.Parameter)
"""Tensors of other classes have a behaviour of their own."""

_READER = _core.TensorReader(getattr(Tensor, "__dlpack_c_exchange_api__", None), PLAIN)


_interpreter = torch._C._functorch.peek_interpreter_stack
_tracing_state = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_autocast_enabled = torch.is_autocast_enabled


def kernels_may_run() -> bool:
    """Whether nothing is switched on for which every operation must be PyTorch's own."""
    return (
        _interpreter() is None
        and _tracing_state() is None
        and _dispatch_modes() == 0
        and forward_ad._current_level < 0
        and not _is_autocast_enabled("cpu")
    )


class Refused(Exception):
    """The kernels don't do that with these tensors, or it is wrong: PyTorch's own path will tell."""


@dataclass(frozen=True)
class Options:
    """What a network is besides its sizes."""

    family: Family
    activations: Any = None
    """Names, None for the usual ones, or what `rnnkern.options.check_activations` returns."""
    clip: Optional[float] = None
    peephole: bool = False
    coupled: Any = None
    text: str = field(init=False, repr=False, compare=False)
    """All of it, without blanks."""

    def __post_init__(self) -> None:
        values = [self.family, self.activations, self.clip, self.peephole, self.coupled]
        object.__setattr__(self, "text", json.dumps(values, separators=(",", ":")))

    @classmethod
    def from_text(cls, text: str) -> Options:
        family, activations, *rest = json.loads(text)
        return cls(family, _as_tuples(activations), *rest)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


STOCK = {
    "RNN_TANH": Options("rnn", ("Tanh",)),
    "RNN_RELU": Options("rnn", ("Relu",)),
    "LSTM": Options("lstm"),
    "GRU": Options("gru_reset_after"),
}
"""What PyTorch's layers compute, by their mode."""


class Network:
    """A network of one dtype: its sizes, and its kernels."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.kernels = _core.TensorNetwork(spec, _READER)
        self.output_size = spec.output_size
        self.hidden_size = spec.hidden_size
        self.width = spec.num_directions * spec.output_size
        self.parts = spec.num_layers * spec.num_directions
        self.has_cell_state = spec.has_cell_state

    def tape_numel(self, total: int, padded: int, masked: bool) -> int:
        """Elements of a tape for `total` steps of all sequences together, `padded` of them with the padding."""
        per_step, per_padded_step = self.kernels.tape_size(masked)
        return per_step * total + per_padded_step * padded


@lru_cache(maxsize=1024)
def network_of(
    options: str | Options,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    proj_size: int,
    dtype: torch.dtype,
) -> Network:
    """The one network of these options, or of a mode of PyTorch's, and sizes."""
    if isinstance(options, str):
        options = STOCK[options]
    activations = options.activations
    if not activations or isinstance(activations[0], str):
        activations = check_activations(activations, options.family, 2 if bidirectional else 1)
    return Network(
        Spec(
            options.family,
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            bias,
            proj_size,
            options.peephole,
            options.coupled,
            options.clip,
            activations,
            DTYPES[dtype],
        )
    )


class Call:
    """One call of a network: how its sequences are laid out.

    Parameters
    ----------
    network : Network
    layout : Layout
        Of x and y.
    shape : torch.Size
        Of x; of the rows (N, I) of a packed sequence.
    batch_sizes : array (T) of int64, optional
        Of the packed sequence: x, y and their gradients are its rows.
    """

    _sequence_axes: tuple[int, ...]
    _state_axes: tuple[int, ...]
    __slots__ = ("_sequence_axes", "_state_axes", "batch", "batch_sizes", "layout", "lengths", "network", "steps")

    def __init__(
        self,
        network: Network,
        layout: Layout,
        shape: Sequence[int],
        batch_sizes: Optional[np.ndarray[Any, np.dtype[np.int64]]] = None,
    ) -> None:
        self.network = network
        self.layout = layout
        self.batch_sizes = batch_sizes
        self.lengths = None
        parts = network.parts
        if batch_sizes is not None:
            self.steps, self.batch = len(batch_sizes), int(batch_sizes[0])
            self.lengths = lengths_of(batch_sizes)
            self._sequence_axes, self._state_axes = (shape[0],), (parts, self.batch)
        elif layout is Layout.TIME_MAJOR:
            self.steps, self.batch = shape[0], shape[1]
            self._sequence_axes, self._state_axes = (self.steps, self.batch), (parts, self.batch)
        elif layout is Layout.BATCH_FIRST:
            self.batch, self.steps = shape[0], shape[1]
            self._sequence_axes, self._state_axes = (self.batch, self.steps), (parts, self.batch)
        elif layout is Layout.UNBATCHED:
            self.steps, self.batch = shape[0], 1
            self._sequence_axes, self._state_axes = (self.steps,), (parts,)
        else:
            self.steps, self.batch = 1, shape[0]
            self._sequence_axes = self._state_axes = (self.batch,)

    # Results. Sizes given one by one cost new_empty half of what a tuple does.

    def new_sequence(self, x: Tensor, width: int) -> Tensor:
        """An uninitialised sequence for the outputs of x, laid out as those of PyTorch's layers: steps outermost."""
        if self.layout is Layout.BATCH_FIRST:
            return torch.empty_permuted((*self._sequence_axes, width), (1, 0, 2), dtype=x.dtype, device="cpu")
        return x.new_empty(*self._sequence_axes, width)

    def new_state(self, like: Tensor, size: int) -> Tensor:
        """An uninitialised state."""
        return like.new_empty(*self._state_axes, size)

    # Padding

    def padded(self, rows: Tensor) -> Tensor:
        """A packed sequence as the kernels take it, with any padding; another one as it is."""
        if self.batch_sizes is None:
            return rows
        rows = rows.contiguous()
        sequence = self.padded_for(rows)
        self._copy_rows(_core.unpack_rows, rows, sequence)
        return sequence

    def padded_for(self, rows: Tensor) -> Tensor:
        """Where the kernels write what `packed` then puts into `rows`: itself where there is no padding."""
        return rows if self.batch_sizes is None else rows.new_empty((self.steps, self.batch, rows.shape[1]))

    def packed(self, sequence: Tensor, into: Tensor) -> Tensor:
        """Without the padding again."""
        if self.batch_sizes is not None:
            self._copy_rows(_core.pack_rows, into, sequence)
        return into

    def _copy_rows(self, copy: Any, rows: Tensor, sequence: Tensor) -> None:
        row_bytes = rows.shape[1] * rows.element_size()
        copy(rows.data_ptr(), sequence.data_ptr(), self.batch_sizes, self.batch, row_bytes)

    # For PyTorch's own operations

    def time_major(self, x: Tensor) -> Tensor:
        """(T, B, N), with padding of zeros; differentiable."""
        if self.batch_sizes is not None:
            return pad_packed_sequence(PackedSequence(x, torch.from_numpy(self.batch_sizes)))[0]
        if self.layout is Layout.BATCH_FIRST:
            return x.transpose(0, 1)
        if self.layout is Layout.UNBATCHED:
            return x.unsqueeze(1)
        return x.unsqueeze(0) if self.layout is Layout.ONE_STEP else x

    def as_given(self, sequence: Tensor) -> Tensor:
        """(T, B, N) laid out as x is; differentiable."""
        if self.lengths is not None:
            return pack_padded_sequence(sequence, torch.from_numpy(self.lengths)).data
        if self.layout is Layout.BATCH_FIRST:
            return sequence.transpose(0, 1)
        return self.state_as_given(sequence)

    def batched(self, state: Tensor) -> Tensor:
        """(L*D, B, size)."""
        return state.view(self.network.parts, self.batch, -1)

    def state_as_given(self, state: Tensor) -> Tensor:
        """(L*D, B, size), or (T, B, N), without the axis that this layout has not got."""
        if self.layout is Layout.UNBATCHED:
            return state.squeeze(1)
        return state.squeeze(0) if self.layout is Layout.ONE_STEP else state

    # Running

    def run(
        self,
        weights: Any,
        x: Tensor,
        h0: Optional[Tensor],
        c0: Optional[Tensor],
        masks: Sequence[Tensor] = (),
        keep: bool = False,
    ) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
        """Forward.

        Parameters
        ----------
        weights : `_core.TensorPanels`, or tensors in the order of `Spec.weight_shapes`
        x : as the call was made for
        h0, c0 : (L*D, B, size), (L*D, size) unbatched, (B, size) for one step; optional
        masks : dropout's factors (T, B, D*O) of each layer's output but the last one's
        keep : whether to keep a tape

        Returns
        -------
        y, hn, cn, tape : those that there are; for one step hn is y and not made

        Raises
        ------
        Refused
            The kernels don't do that with these tensors.
        """
        network = self.network
        y = self.new_sequence(x, network.width)
        hn = None if self.layout is Layout.ONE_STEP else self.new_state(x, network.output_size)
        cn = self.new_state(x, network.hidden_size) if network.has_cell_state else None
        tape = None
        start: Any = network.kernels.run
        if keep:
            padded = self.steps * self.batch
            total = padded if self.batch_sizes is None else len(x)
            tape = x.new_empty(network.tape_numel(total, padded, bool(masks)))
            start = network.kernels.forward
        outputs = self.padded_for(y)
        results = (outputs, hn, cn, self.lengths)
        rest = (tape,) if keep else ()
        threads = torch.get_num_threads()
        given: Any = (weights, self.layout, self.padded(x), h0, c0)
        if not start(threads, *given, *results, masks, *rest):
            if not isinstance(weights, _core.TensorPanels):
                weights = contiguous(weights)
            given = (weights, self.layout, *contiguous((given[2], h0, c0)))
            if not start(threads, *given, *results, contiguous(masks), *rest):
                raise Refused
        return self.packed(outputs, y), hn, cn, tape

    def backward(
        self,
        weights: Sequence[Tensor],
        x: Tensor,
        h0: Optional[Tensor],
        c0: Optional[Tensor],
        masks: Sequence[Tensor],
        y: Tensor,
        tape: Tensor,
        outputs: Sequence[Optional[Tensor]],
        wanted: Sequence[bool],
        dense: bool = False,
    ) -> list[Optional[Tensor]]:
        """The gradients by x, h0, c0 and each of the weights, None where they are not wanted, from those by y, hn, cn.

        The gradients of a layer and direction's weights are made together or not at all. That of x has x's strides, or
        is dense.

        Raises
        ------
        Refused
            The kernels don't do that with these tensors.
        """
        dy, dhn, dcn = outputs
        if self.batch_sizes is not None:
            x, y, dy = self.padded(x), self.padded(y), None if dy is None else self.padded(dy)
        tensors = [x, h0, c0, y, tape, dy, dhn, dcn]
        found = self._backward(weights, masks, tensors, wanted, dense)
        if found is None:
            found = self._backward(contiguous(weights), contiguous(masks), contiguous(tensors), wanted, dense)
        if found is None:
            raise Refused
        if self.batch_sizes is not None and found[0] is not None:
            found[0] = self.packed(found[0], found[0].new_empty((int(self.batch_sizes.sum()), found[0].shape[2])))
        return found

    def _backward(
        self, weights: Any, masks: Any, tensors: Any, wanted: Sequence[bool], dense: bool
    ) -> Optional[list[Optional[Tensor]]]:
        """None: refused."""
        x, h0, c0, y, tape, dy, dhn, dcn = tensors
        dx = None
        if wanted[0]:
            dx = torch.empty_like(x, memory_format=torch.contiguous_format) if dense else torch.empty_like(x)
        dh0 = torch.empty_like(h0) if wanted[1] else None
        dc0 = torch.empty_like(c0) if wanted[2] else None
        want_weights = wanted[3:]
        dweights: list[Optional[Tensor]] = []
        if all(want_weights):
            dweights = [torch.empty_like(weight) for weight in weights]
        elif any(want_weights):
            size = len(weights) // self.network.parts
            for first in range(0, len(weights), size):
                part = slice(first, first + size)
                want = any(want_weights[part])
                dweights += [torch.empty_like(weight) if want else None for weight in weights[part]]
        if not self.network.kernels.backward(
            torch.get_num_threads(),
            weights,
            self.layout,
            x,
            h0,
            c0,
            y,
            self.lengths,
            masks,
            tape,
            dy,
            dhn,
            dcn,
            dx,
            dh0,
            dc0,
            dweights,
        ):
            return None
        kept = [gradient if want else None for gradient, want in zip(dweights, want_weights)]
        return [dx, dh0, dc0, *(kept or [None] * len(weights))]


def contiguous(tensors: Sequence[Any]) -> list[Any]:
    """Those that there are, copied where need be.

    Raises
    ------
    Refused
        If one is no tensor, or sparse.
    """
    for tensor in tensors:
        if tensor is not None and not (isinstance(tensor, Tensor) and tensor.layout is torch.strided):
            raise Refused
    return [None if tensor is None else tensor.resolve_neg().contiguous() for tensor in tensors]


def lengths_of(batch_sizes: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of the sequences that are packed: how many steps have more than b of them."""
    first = len(batch_sizes) - np.searchsorted(batch_sizes[::-1], np.arange(batch_sizes[0]), side="right")
    return first.astype(np.int64)


def batch_sizes_of(packed: PackedSequence) -> Optional[np.ndarray[Any, np.dtype[np.int64]]]:
    """As an array; None: these can't be the sizes of a packed sequence."""
    tensor = packed.batch_sizes
    if type(tensor) is not Tensor or tensor.dtype is not torch.int64 or tensor.dim() != 1 or not tensor.is_cpu:
        return None
    sizes: np.ndarray[Any, np.dtype[np.int64]] = np.array(tensor.numpy())  # its owner may change it
    if not len(sizes) or sizes[-1] < 1 or (sizes[1:] > sizes[:-1]).any() or sizes.sum() != len(packed.data):
        return None
    return sizes
