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
from ..options import check_activations, check_parameters
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
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def no_transform_or_mode() -> bool:
    """Whether nothing is switched on that must see every operation."""
    return (
        _interpreter() is None and _tracing_state() is None and _dispatch_modes() == 0 and forward_ad._current_level < 0
    )


def kernels_may_run() -> bool:
    """Whether nothing is switched on for which every operation of a forward pass must be PyTorch's own."""
    return no_transform_or_mode() and not _is_autocast_enabled("cpu")


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
    """A network of one dtype: its sizes, its kernels, and how to call them on sequences of each layout."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.kernels = _core.TensorNetwork(spec, _READER)
        self.output_size = spec.output_size
        self.hidden_size = spec.hidden_size
        self.width = spec.num_directions * spec.output_size
        self.parts = spec.num_layers * spec.num_directions
        self.has_cell_state = spec.has_cell_state
        self.time_major = Call(self, Layout.TIME_MAJOR)
        self.batch_first = Call(self, Layout.BATCH_FIRST)
        self.unbatched = Call(self, Layout.UNBATCHED)
        self.one_step = Call(self, Layout.ONE_STEP)

    @lru_cache(maxsize=4096)  # noqa: B019 - networks are kept by a cache, too
    def saved_by_stock(self, wanted: tuple[bool, ...], one_step: bool) -> tuple[bool, tuple[bool, ...]]:
        """Whether PyTorch's own layer saves x, and which of the weights: those that gradients depend on.

        Parameters
        ----------
        wanted : whether there are gradients by x, h0, c0 and each of the weights
        one_step : whether T is 1
        """
        x, h0, _, *weights = wanted
        names = list(self.spec.weight_shapes())
        first = ("weight_ih_l0", "weight_ih_l0_reverse")
        state = h0 or not one_step or self.spec.family == "gru_reset_before"

        def needed(name: str) -> bool:
            if name.startswith("weight_hh"):
                return state
            return x if name in first else not name.startswith("bias")

        return any(want for name, want in zip(names, weights) if name in first), tuple(map(needed, names))

    def tape_numel(self, steps: int, masked: bool) -> int:
        """Elements of a tape for so many steps of all sequences together, where none is padded."""
        return sum(self.kernels.tape_size(masked, True)) * steps


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
    check_parameters(activations, DTYPES[dtype])
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
    """A way to call a network: how its sequences are laid out.

    Parameters
    ----------
    network : Network
    layout : Layout
        Of x and y.
    batch_sizes : array (T) of int64, optional
        Of a packed sequence: x, y and their gradients are its rows.
    """

    __slots__ = ("batch_sizes", "layout", "lengths", "network")

    def __init__(
        self, network: Network, layout: Layout, batch_sizes: Optional[np.ndarray[Any, np.dtype[np.int64]]] = None
    ) -> None:
        self.network = network
        self.layout = layout
        self.batch_sizes = batch_sizes
        self.lengths = None if batch_sizes is None else lengths_of(batch_sizes)

    def positions(self, x: Tensor) -> tuple[int, ...]:
        """The shape of what there is one of for each step of each sequence: (T, B), or (N) of packed rows."""
        if self.batch_sizes is not None:
            return (len(x),)
        if self.layout is Layout.BATCH_FIRST:
            return x.shape[1], x.shape[0]
        return (x.shape[0], 1) if self.layout is Layout.UNBATCHED else tuple(x.shape[:2])

    def is_one_step(self, x: Tensor) -> bool:
        if self.batch_sizes is not None:
            return len(self.batch_sizes) == 1
        return self.layout is Layout.ONE_STEP or x.shape[self.layout is Layout.BATCH_FIRST] == 1

    def reorders(self, x: Tensor) -> bool:
        """Whether PyTorch's own layer copies x, to have one step after the other.

        Raises
        ------
        Refused
            If it is not an array.
        """
        if self.layout is Layout.ONE_STEP:
            return False
        if x.layout is not torch.strided:
            raise Refused
        return not (x.transpose(0, 1) if self.layout is Layout.BATCH_FIRST else x).is_contiguous()

    # Padding

    def padded(self, rows: Tensor) -> Tensor:
        """A packed sequence as the kernels take it, with any padding; another one as it is.

        Raises
        ------
        Refused
            These rows are not in memory that the kernels can read.
        """
        if self.batch_sizes is None:
            return rows
        (rows,) = contiguous((rows,))
        sequence = rows.new_empty((len(self.batch_sizes), int(self.batch_sizes[0]), rows.shape[1]))
        if not _core.unpack_rows(_READER, rows, sequence, self.batch_sizes):
            raise Refused
        return sequence

    def packed(self, sequence: Tensor) -> Tensor:
        """The rows of a packed sequence again.

        Raises
        ------
        Refused
            As by `padded`.
        """
        assert self.batch_sizes is not None
        rows = sequence.new_empty((int(self.batch_sizes.sum()), sequence.shape[2]))
        if not _core.pack_rows(_READER, rows, sequence, self.batch_sizes):
            raise Refused
        return rows

    # For PyTorch's own operations

    def as_time_major(self, x: Tensor) -> Tensor:
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
        """(L*D, B, size) of a state as it is given; differentiable."""
        if self.layout is Layout.UNBATCHED:
            return state.unsqueeze(1)
        return state.unsqueeze(0) if self.layout is Layout.ONE_STEP else state

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
        run = self.network.kernels.run
        threads = torch.get_num_threads()
        if self.batch_sizes is not None:
            x = self.padded(x)
        made = run(threads, weights, self.layout, x, h0, c0, self.lengths, masks, keep)
        if made is None:
            if not isinstance(weights, _core.TensorPanels):
                weights = contiguous(weights)
            x, h0, c0 = contiguous((x, h0, c0))
            made = run(threads, weights, self.layout, x, h0, c0, self.lengths, contiguous(masks), keep)
            if made is None:
                raise Refused
        return made if self.batch_sizes is None else (self.packed(made[0]), *made[1:])

    def backward(
        self,
        weights: Sequence[Tensor],
        x: Tensor,
        h0: Optional[Tensor],
        c0: Optional[Tensor],
        masks: Sequence[Tensor],
        y: Optional[Tensor],
        tape: Tensor,
        outputs: Sequence[Optional[Tensor]],
        wanted: Sequence[bool],
        dense: bool = False,
    ) -> list[Optional[Tensor]]:
        """The gradients by x, h0, c0 and each of the weights, None where they are not wanted, from those by y, hn, cn.

        That of x has its axes in x's order in memory, or is dense. y: of a packed sequence, as it was; of others the
        tape has it.

        Raises
        ------
        Refused
            The kernels don't do that with these tensors.
        """
        backward: Any = self.network.kernels.backward
        dy, dhn, dcn = outputs
        if self.batch_sizes is not None:
            x, y, dy = (None if rows is None else self.padded(rows) for rows in (x, y, dy))
        threads = torch.get_num_threads()
        given: Sequence[Optional[Tensor]] = (y, tape, dy, dhn, dcn)
        found: Optional[list[Optional[Tensor]]]
        found = backward(threads, weights, self.layout, x, h0, c0, self.lengths, masks, *given, wanted, dense)
        if found is None:
            weights, masks, given = contiguous(weights), contiguous(masks), contiguous(given)
            x, h0, c0 = contiguous((x, h0, c0))
            found = backward(threads, weights, self.layout, x, h0, c0, self.lengths, masks, *given, wanted, dense)
            if found is None:
                raise Refused
        if self.batch_sizes is not None and found[0] is not None:
            found[0] = self.packed(found[0])
        return found


def contiguous(tensors: Sequence[Any]) -> list[Any]:
    """Those that there are, copied where need be.

    Raises
    ------
    Refused
        If one is no tensor, or sparse, or what is left of a transform, which has the graph of the tensor in it.
    """
    for tensor in tensors:
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or _is_wrapped(tensor):
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
