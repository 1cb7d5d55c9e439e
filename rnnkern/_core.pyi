"""The compiled part of rnnkern: checks of arguments, kernels, threads."""

from collections.abc import Sequence
from contextvars import ContextVar
from enum import Enum
from typing import Any, Optional

import numpy as np

from .spec import Array, Spec

Tensors = Sequence[Any]
"""Of a framework, in a list or tuple."""

thread_variable: ContextVar[Optional[int]]
"""Threads for the calls of a context; None: those of the process."""

most_threads: int

def context_threads() -> int: ...
def set_process_threads(threads: int) -> None: ...
def processors() -> int: ...
def set_processors(count: int) -> None: ...
def cpu_quota(root: str) -> float: ...
def barrier_seconds() -> float:
    """What two threads took to wait for each other when a team last measured it."""

def openmp_runtime() -> str: ...
def compiler() -> str: ...
def cells() -> list[str]:
    """The cells by the names of their NumPy twins."""

def default_isa() -> str: ...
def isas() -> list[tuple[str, bool, bool]]:
    """(name, can run here, may be the default) of the instruction sets that were built."""

def math(name: str, x: Array, isa: Optional[str] = None) -> Array:
    """exp, sigmoid or tanh of a vector, as the kernels compute it."""

def probe(name: str, dtype: np.dtype[Any], threads: int = 1, bytes: int = 0, isa: Optional[str] = None) -> float:
    """Measure what the machine can do at most, best of many repeats.

    All threads together, with `threads` at once: multiply_add (FLOP/s), read (bytes/s, of a block of `bytes` each),
    sigmoid and tanh (per second). In seconds: barrier (a wait of the team), multiply_add_latency, sigmoid_latency and
    tanh_latency (of one that waits for the one before).
    """

class Tape:
    @property
    def nbytes(self) -> int: ...

class Network:
    """A network's options and live weights; checks every argument, then runs without the GIL."""

    def __init__(
        self, spec: Spec, batch_first: bool, weights: Sequence[Sequence[Optional[Array]]], isa: Optional[str] = None
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    def run(
        self, x: Array, state: Any = None, lengths: Any = None, return_sequence: bool = True
    ) -> tuple[Array, Any]: ...
    def step(self, x_t: Array, state: Any = None, out: Optional[Array] = None) -> tuple[Array, Any]: ...
    def forward(
        self, x: Array, state: Any, lengths: Any, masks: list[Array], recompute: bool, return_sequence: bool
    ) -> tuple[Array, Any, Tape]: ...
    def backward(
        self, tape: Tape, dy: Optional[Array], dstate: Any, want_x: bool, want_state: bool, want_weights: bool
    ) -> tuple[Optional[Array], Any, list[Array]]: ...
    def trace(self, x: Array, state: Any, lengths: Any) -> list[list[Array]]: ...
    def freeze(self) -> Network: ...
    def check(
        self, x: Array, state: Any, lengths: Any
    ) -> tuple[Array, Optional[tuple[Array, ...]], Optional[Array], bool]:
        """Return x as (T, B, I), state as (L*D, B, size) arrays, lengths, unbatched: checked as for a call."""

    def check_step(
        self, x_t: Array, state: Any, out: Optional[Array]
    ) -> tuple[Array, Optional[tuple[Array, ...]], bool]:
        """Return x_t as (1, B, I), state as (L*D, B, size) arrays, unbatched: checked as for a step."""

    def check_gradients(
        self, steps: int, batch: int, unbatched: bool, return_sequence: bool, dy: Optional[Array], dstate: Any
    ) -> tuple[Optional[Array], Optional[tuple[Array, ...]]]:
        """Return dy as (T, B, D*H) or (B, D*H), dstate as (L*D, B, size) arrays: checked as for backward."""

    def plan(self, steps: int, batch: int, lengths: Any) -> dict[str, int]: ...

class Layout(Enum):
    """How a sequence has its steps, sequences and values: (T, B, N), (B, T, N), (T, N) or, with one step, (B, N)."""

    TIME_MAJOR = ...
    BATCH_FIRST = ...
    UNBATCHED = ...
    ONE_STEP = ...

class TensorReader:
    """Reads a framework's tensors.

    Parameters
    ----------
    api : capsule or None
        DLPack's exchange interface of the tensors' type, ``__dlpack_c_exchange_api__``; None: by the methods that
        PyTorch's tensors have.
    types : tuple
        Of tensors; others are refused.
    """

    def __init__(self, api: object, types: tuple[type, ...]) -> None: ...

class TensorPanels:
    """Weights packed for the kernels."""

class TensorNetwork:
    """A network on a framework's tensors.

    Shapes: weights in the order of `Spec.weight_shapes`, x and dx with I values, y, dy and masks (T, B, D*O) with D*O,
    in the layout of the call; the states (L*D, B, size), (L*D, size) unbatched, (B, size) for one step; lengths (B).
    x, y and their gradients may have any strides but between values, everything else is C-contiguous. What there is not
    is None. A tensor that is not so, or not floating-point numbers of the network's dtype on the CPU, is refused: then
    nothing is done and the methods return None. What they return is new, made by ``x.new_empty`` and its like.
    """

    def __init__(self, spec: Spec, reader: TensorReader, isa: Optional[str] = None) -> None: ...
    def pack(self, threads: int, weights: Tensors) -> Optional[TensorPanels]: ...
    def run(
        self,
        threads: int,
        weights: Tensors | TensorPanels,
        layout: Layout,
        x: Any,
        h0: Any,
        c0: Any,
        lengths: Optional[Array],
        masks: Tensors,
        keep: bool,
    ) -> Optional[tuple[Any, Any, Any, Any]]:
        """Return y, hn, cn and a tape: hn but for one step, where it is y, cn of an LSTM, the tape if it is to be kept.

        With Layout.BATCH_FIRST y is (T, B, D*O) in memory. To keep a tape takes live weights.
        """

    def backward(
        self,
        threads: int,
        weights: Tensors,
        layout: Layout,
        x: Any,
        h0: Any,
        c0: Any,
        lengths: Optional[Array],
        masks: Tensors,
        y: Any,
        tape: Any,
        dy: Any,
        dhn: Any,
        dcn: Any,
        wanted: Sequence[bool],
        dense: bool,
    ) -> Optional[list[Any]]:
        """Return the gradients by x, h0, c0 and each of the weights, None where they are not wanted.

        y: with lengths only; else the tape has it.
        dx is C-contiguous if dense, else its steps and sequences are in memory in the order of those of x.
        """

    def tape_size(self, masked: bool, outputs: bool) -> tuple[int, int]:
        """Elements for each step of each sequence, and for each step and sequence with the padding."""

def unpack_rows(reader: TensorReader, packed: Any, padded: Any, batch_sizes: Array) -> bool:
    """Copy rows (N, width), batch_sizes[t] of each step t, into (T, B, width); False: these are not such tensors."""

def pack_rows(reader: TensorReader, packed: Any, padded: Any, batch_sizes: Array) -> bool:
    """Copy the rows of `unpack_rows` back."""

def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Optional[Array],
    targets: Array,
    mask: Optional[Array],
    ignore_index: int,
    mean: bool,
    gradients: bool,
    isa: Optional[str] = None,
) -> tuple[float, Any, Any, Any]:
    """Return the loss and the gradients by h, weight and bias, None where there are none; checks every argument."""
