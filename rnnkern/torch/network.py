"""The kernels of a network on PyTorch's tensors: what is checked is laid out here and run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .. import _core
from ..options import check_activations
from ..spec import Family, Spec

DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
"""What the kernels compute in."""


@dataclass(frozen=True)
class Options:
    """What a network is besides its sizes; hashable."""

    family: Family
    activations: Any = None
    """Names, None for the usual ones, or what `rnnkern.options.check_activations` returns."""
    clip: Optional[float] = None
    peephole: bool = False
    coupled: Any = None


class Network:
    """A network of one dtype: its sizes, and its kernels."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.raw = _core.RawNetwork(spec)
        self.weight_shapes = tuple(torch.Size(shape) for shape in spec.weight_shapes().values())
        self.part_size = len(self.weight_shapes) // (spec.num_layers * spec.num_directions)
        self.input_size = spec.input_size
        self.output_size = spec.output_size
        self.hidden_size = spec.hidden_size
        self.width = spec.num_directions * spec.output_size
        self.states = spec.num_layers * spec.num_directions
        self.has_cell_state = spec.has_cell_state

    def tape_numel(self, total: int, padded: int, masked: bool) -> int:
        """Elements of a tape for `total` steps of all sequences together, `padded` of them with the padding."""
        per_step, per_padded_step, constant = self.raw.tape_size(masked)
        return per_step * total + per_padded_step * padded + constant


@lru_cache(maxsize=1024)
def network_of(
    options: Options,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    proj_size: int,
    dtype: torch.dtype,
) -> Network:
    """The one network of these options and sizes."""
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
    """One call of a network: x and the sizes it has.

    Parameters
    ----------
    network : Network
    x : (T, B, I), or (B, T, I) with `batch_first`, or (T, I), or the rows of a packed sequence (N, I)
    steps, batch : T and B
    batch_first : whether x has them the other way round
    batch_sizes : of the packed sequence; None: x is none
    """

    __slots__ = ("batch", "batch_first", "batch_sizes", "lengths", "network", "rank", "steps")

    def __init__(
        self, network: Network, x: Tensor, steps: int, batch: int, batch_first: bool, batch_sizes: Optional[Tensor]
    ) -> None:
        self.network = network
        self.rank = x.dim()
        self.steps = steps
        self.batch = batch
        self.batch_first = batch_first and self.rank == 3
        self.batch_sizes = batch_sizes
        self.lengths = None if batch_sizes is None else lengths_of(batch_sizes, batch)

    # Results

    def new_sequence(self, like: Tensor, width: int) -> Tensor:
        """An uninitialised sequence laid out as the output of PyTorch's layers is: steps outermost."""
        if self.rank == 2:
            return like.new_empty((len(like), width))
        if self.batch_first:
            return torch.empty_permuted((self.batch, self.steps, width), (1, 0, 2), dtype=like.dtype)
        return like.new_empty((self.steps, self.batch, width))

    def new_state(self, like: Tensor, size: int) -> Tensor:
        """An uninitialised state; without the axis of the batch where x has none."""
        if self.rank == 2 and self.batch_sizes is None:
            return like.new_empty((self.network.states, size))
        return like.new_empty((self.network.states, self.batch, size))

    # Padding

    def padded(self, rows: Tensor) -> Tensor:
        """The sequence as the kernels take it, elements next to each other: a packed one with any padding."""
        if rows.stride(-1) != 1:
            rows = rows.contiguous()
        if self.batch_sizes is None:
            return rows
        sequence = rows.new_empty((self.steps, self.batch, rows.shape[1]))
        self._copy_rows(_core.unpack_rows, rows.contiguous(), sequence)
        return sequence

    def packed(self, sequence: Tensor, into: Tensor) -> Tensor:
        """Without the padding again."""
        if self.batch_sizes is not None:
            self._copy_rows(_core.pack_rows, into, sequence)
        return into

    def padded_for(self, rows: Tensor) -> Tensor:
        """Where the kernels write what `packed` then puts into `rows`: itself where there is no padding."""
        if self.batch_sizes is None:
            return rows
        return rows.new_empty((self.steps, self.batch, rows.shape[1]))

    def _copy_rows(self, copy: Any, rows: Tensor, sequence: Tensor) -> None:
        assert self.batch_sizes is not None
        copy(
            rows.data_ptr(),
            sequence.data_ptr(),
            self.batch_sizes.data_ptr(),
            self.steps,
            self.batch,
            rows.shape[1] * rows.element_size(),
        )

    def strides(self, sequence: Tensor) -> tuple[int, int]:
        """From one step, and from one sequence, to the next."""
        if sequence.dim() == 2:
            return sequence.stride(0), 0
        first, second, _ = sequence.stride()
        return (second, first) if self.batch_first else (first, second)

    # For PyTorch's own operations

    def time_major(self, x: Tensor) -> Tensor:
        """Return x as (T, B, I), with padding of zeros; differentiable."""
        if self.batch_sizes is not None:
            return torch.nn.utils.rnn.pad_packed_sequence(PackedSequence(x, self.batch_sizes))[0]
        if self.rank == 2:
            return x.unsqueeze(1)
        return x.transpose(0, 1) if self.batch_first else x

    def as_given(self, sequence: Tensor) -> Tensor:
        """(T, B, N) laid out as x is; differentiable."""
        if self.batch_sizes is not None:
            assert self.lengths is not None
            return torch.nn.utils.rnn.pack_padded_sequence(sequence, torch.from_numpy(self.lengths.copy())).data
        if self.rank == 2:
            return sequence.squeeze(1)
        return sequence.transpose(0, 1) if self.batch_first else sequence

    def batched(self, state: Tensor) -> Tensor:
        """With the axis of the batch, whether x has it or not."""
        return state.unsqueeze(1) if state.dim() == 2 else state

    def state_as_given(self, state: Tensor) -> Tensor:
        return state.squeeze(1) if self.rank == 2 and self.batch_sizes is None else state

    # Running

    def _raw(
        self, x: Tensor, h0: Optional[Tensor], c0: Optional[Tensor], y: Tensor, masks: Sequence[Tensor]
    ) -> _core.RawCall:
        lengths = 0 if self.lengths is None else self.lengths.ctypes.data
        return _core.RawCall(
            self.steps,
            self.batch,
            lengths,
            x.data_ptr(),
            *self.strides(x),
            address(h0),
            address(c0),
            y.data_ptr(),
            [mask.data_ptr() for mask in masks],
        )

    def run(
        self,
        weights: Any,
        x: Tensor,
        h0: Optional[Tensor],
        c0: Optional[Tensor],
        masks: Sequence[Tensor] = (),
        keep: bool = False,
        state: bool = True,
    ) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
        """Forward.

        Parameters
        ----------
        weights : `_core.RawPanels`, or contiguous tensors in the order of `Spec.weight_shapes`
        x : as the call was made for
        h0, c0 : contiguous (L*D, B, size), optional
        masks : dropout's factors (T, B, D*O), contiguous, of each layer's output but the last one's
        keep : whether to keep a tape
        state : whether the last h is wanted; the last c always is

        Returns
        -------
        y, hn, cn, tape : those that there are
        """
        network = self.network
        y = self.new_sequence(x, network.width)
        hn = self.new_state(x, network.output_size) if state else None
        cn = self.new_state(x, network.hidden_size) if network.has_cell_state else None
        inputs, outputs = self.padded(x), self.padded_for(y)
        call = self._raw(inputs, h0, c0, outputs, masks)
        threads = torch.get_num_threads()
        if not isinstance(weights, _core.RawPanels):
            weights = [weight.data_ptr() for weight in weights]
        tape = None
        if keep:
            total = self.steps * self.batch if self.batch_sizes is None else len(x)
            tape = x.new_empty(network.tape_numel(total, self.steps * self.batch, bool(masks)))
            network.raw.forward(threads, weights, call, address(hn), address(cn), tape.data_ptr())
        else:
            network.raw.run(threads, weights, call, address(hn), address(cn))
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
        wanted: tuple[bool, bool, bool, Sequence[bool]],
    ) -> tuple[Optional[Tensor], Optional[Tensor], Optional[Tensor], list[Optional[Tensor]]]:
        """The gradients of x, h0, c0 and the weights, None where they are not wanted, from those of y, hn and cn.

        The gradients of a layer and direction's weights are made together or not at all.
        """
        dy, dhn, dcn = outputs
        want_x, want_h0, want_c0, want_weights = wanted
        inputs = self.padded(x)
        call = self._raw(inputs, h0, c0, self.padded(y), masks)
        gradients = None if dy is None else self.padded(dy)
        dhn = None if dhn is None else dhn.contiguous()
        dcn = None if dcn is None else dcn.contiguous()
        dx = torch.empty_like(x) if want_x else None
        if dx is not None and dx.stride(-1) != 1:
            dx = x.new_empty(x.shape)
        dx_padded = None if dx is None else self.padded_for(dx)
        dh0 = torch.empty_like(h0) if want_h0 and h0 is not None else None
        dc0 = torch.empty_like(c0) if want_c0 and c0 is not None else None
        dweights: list[Optional[Tensor]] = []
        size = self.network.part_size
        for first in range(0, len(weights), size):
            part = any(want_weights[first : first + size])
            dweights += [torch.empty_like(weight) if part else None for weight in weights[first : first + size]]
        self.network.raw.backward(
            torch.get_num_threads(),
            [weight.data_ptr() for weight in weights],
            call,
            tape.data_ptr(),
            address(gradients),
            *((0, 0) if gradients is None else self.strides(gradients)),
            address(dhn),
            address(dcn),
            address(dx_padded),
            *((0, 0) if dx_padded is None else self.strides(dx_padded)),
            address(dh0),
            address(dc0),
            [address(gradient) for gradient in dweights] if any(want_weights) else [],
        )
        if dx is not None and dx_padded is not None:
            self.packed(dx_padded, dx)
        return dx, dh0, dc0, [gradient if want else None for gradient, want in zip(dweights, want_weights)]


class StepCall(Call):
    """One step: x is (B, I) or (I,), y and the states are (B, H) or (H,)."""

    __slots__ = ()

    def __init__(self, network: Network, x: Tensor) -> None:
        super().__init__(network, x, 1, len(x) if x.dim() == 2 else 1, False, None)

    def new_sequence(self, like: Tensor, width: int) -> Tensor:
        return like.new_empty((*like.shape[:-1], width))

    def new_state(self, like: Tensor, size: int) -> Tensor:
        return like.new_empty((*like.shape[:-1], size))

    def time_major(self, x: Tensor) -> Tensor:
        return x.reshape(1, self.batch, -1)

    def as_given(self, sequence: Tensor) -> Tensor:
        return sequence.squeeze(0) if self.rank == 2 else sequence.squeeze(0).squeeze(0)

    def batched(self, state: Tensor) -> Tensor:
        return self.time_major(state)

    def state_as_given(self, state: Tensor) -> Tensor:
        return self.as_given(state)

    def strides(self, sequence: Tensor) -> tuple[int, int]:
        return 0, sequence.stride(0)


def address(tensor: Optional[Tensor]) -> int:
    """0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def lengths_of(batch_sizes: Tensor, batch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of the sequences that are packed: how many steps have more than b of them."""
    falling = batch_sizes.numpy()[::-1]
    return len(falling) - np.searchsorted(falling, np.arange(batch), side="right")


def is_packing(batch_sizes: Tensor, rows: int) -> bool:
    """Whether these may be the sizes of a packed sequence of so many rows."""
    if type(batch_sizes) is not Tensor or batch_sizes.dtype is not torch.int64 or batch_sizes.dim() != 1:
        return False
    if not batch_sizes.is_cpu or not batch_sizes.is_contiguous() or len(batch_sizes) == 0:
        return False
    sizes = batch_sizes.numpy()
    return bool(sizes[-1] > 0 and (sizes[1:] <= sizes[:-1]).all() and sizes.sum() == rows and rows < sys.maxsize)
