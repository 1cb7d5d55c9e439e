"""Threads, the configuration in words, and how a layer's work is split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _core
from .options import check_size
from .version import __version__

if TYPE_CHECKING:
    from .frozen import FrozenLayer
    from .layer import Layer


def set_num_threads(n: int) -> None:
    """Set the number of threads that a call may use, process-wide.

    It starts as ``OMP_NUM_THREADS``, or the processors that this process may use (its affinity, and the CPU quota of
    its container, rounded up); in a forked child as 1. More threads than these processors are never used. Results do
    not depend on it.

    Parameters
    ----------
    n : int
        In 1..1024.

    Raises
    ------
    TypeError, ValueError
        If n is not such an integer.
    """
    _core.set_process_threads(check_size("n", n, most=_core.most_threads))


def get_num_threads() -> int:
    """Threads that a call from here may use: those of the context, else of the process."""
    return _core.context_threads()


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use at most n threads in calls of this context (this Python thread or asynchronous task) only.

    Raises
    ------
    TypeError, ValueError
        If n is not an integer in 1..1024.
    """
    token = _core.thread_variable.set(check_size("n", n, most=_core.most_threads))
    try:
        yield
    finally:
        _core.thread_variable.reset(token)


def config() -> dict[str, Any]:
    """What `show_config` prints."""
    isas = _core.isas()
    return {
        "version": __version__,
        "compiler": _core.compiler(),
        "instruction sets built": [name for name, _, selectable in isas if selectable],
        "instruction sets that run here": [name for name, runs, selectable in isas if runs and selectable],
        "instruction set in use": _core.default_isa(),
        "threads": get_num_threads(),
        "processors": _core.processors(),
        "OpenMP runtime": _core.openmp_runtime(),
    }


def show_config() -> None:
    """Print the version, compiler, instruction sets built and the one in use, threads and OpenMP runtime."""
    for name, value in config().items():
        print(f"{name + ':':<32}{', '.join(value) if isinstance(value, list) else value}")


def explain(layer: Layer | FrozenLayer, T: int, B: int, lengths: Any = None) -> str:
    """Tell in words how the layer's work for an input of this size is split over the threads.

    Parameters
    ----------
    layer : Layer or FrozenLayer
        Where its back end is the reference, what the native one would do.
    T, B : int
        Steps and sequences.
    lengths : sequence of B ints, optional
        Lengths in 1..T.

    Returns
    -------
    str
        What each thread works on, the instruction set, block of time, and the bytes that `forward` keeps.
    """
    plan_of = getattr(getattr(layer, "_network", None), "plan", None)
    if plan_of is None:
        raise TypeError(f"layer: expected a layer of rnnkern, got {type(layer).__name__}")
    T, B = check_size("T", T, 0), check_size("B", B, 0)
    plan = plan_of(T, B, lengths)
    spec = layer._spec
    parts = []
    if plan["directions"] > 1:
        parts.append("both directions at the same time")
    if plan["rows"] > 1:
        parts.append(f"the batch in {plan['rows']} groups of sequences, which never wait for each other")
    if plan["units"] > 1:
        parts.append(f"the hidden units in {plan['units']} groups, which wait for each other at every step")
    split = "; ".join(parts) or "nothing is split: one thread does it all"
    steps = plan["steps"]
    between = 3 if getattr(layer, "dropout", 0) else 1  # outputs of inner layers; with their masks and products
    inner = (spec.num_layers - 1) * T * B * spec.num_directions * spec.output_size * between
    values = steps * spec.hidden_size * plan["kept_values"] * spec.num_directions * spec.num_layers
    kept = (values + inner) * spec.dtype.itemsize
    return "\n".join(
        (
            f"{layer!r}",
            f"T = {T}, B = {B}, {steps} steps in all, {layer._network.isa}, "
            f"{plan['threads']} of {get_num_threads()} threads on {_core.processors()} processors",
            f"split: {split}",
            f"blocks of {plan['block_steps']} steps: the input product of a block is made at once",
            f"forward keeps {kept:,} bytes for backward",
        )
    )
