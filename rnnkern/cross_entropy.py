"""The output layer of a network with its loss."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Optional, overload

from . import _core
from .gradients import shape_of
from .options import check_bool, check_choice, check_size
from .spec import Array


class OutputGradients(NamedTuple):
    """The gradients of `linear_cross_entropy`."""

    h: Array
    """Of the shape of h, zero where nothing counts."""
    weight: Array
    """(V, H)."""
    bias: Optional[Array]
    """(V,); None without a bias."""

    def __repr__(self) -> str:
        return f"OutputGradients({', '.join(f'{name}={shape_of(array)}' for name, array in self._asdict().items())})"


@overload
def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Optional[Array],
    targets: Array,
    *,
    mask: Optional[Array] = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    gradient: Literal[False] = False,
) -> Any: ...
@overload
def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Optional[Array],
    targets: Array,
    *,
    mask: Optional[Array] = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    gradient: Literal[True],
) -> tuple[Any, OutputGradients]: ...
def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Optional[Array],
    targets: Array,
    *,
    mask: Optional[Array] = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    gradient: bool = False,
) -> Any:
    """Cross-entropy between the softmax of a linear layer and the classes that should have come.

    ``o = h @ weight.T + bias``, ``loss = -log softmax(o)[target]``, over the positions that count: those that `mask`
    chooses, less those whose target is `ignore_index`. The probabilities are never held whole: memory beyond arguments
    and results is a few MB and, with gradients, the logits of up to 256 positions and, of more than 4096 positions, the
    size of the weight once more; it does not grow further with their number, but for 24 bytes each. Results are the
    same bits on any number of threads.

    Parameters
    ----------
    h : ndarray, shape (..., H), float32 or float64
        What the network puts out at each position. Where a position doesn't count it may be anything, also NaN.
    weight : ndarray, shape (V, H), dtype of h
    bias : ndarray, shape (V,), dtype of h, or None
    targets : ndarray of integers, shape (...)
        Classes in 0..V-1. Where `mask` is False they may be anything.
    mask : ndarray of bool, shape (...), optional
        True: the position counts. Default: all of them.
    ignore_index : int
        The target of positions that don't count.
    reduction : {"mean", "sum"}
        Mean over the positions that count, NaN if there are none, or their sum.
    gradient : bool
        Return the gradients of the loss, too.

    Returns
    -------
    loss : scalar of the dtype of h
    grads : OutputGradients
        Gradients ``h``, ``weight`` and ``bias``, of their shapes. Only with ``gradient=True``.

    Raises
    ------
    TypeError, ValueError
        Wrong kind, dtype, shape or value of an argument, or a target that counts and is no class.
    MemoryError
        Not enough memory.

    Notes
    -----
    Definition and treatment of infinities as `torch.nn.functional.cross_entropy`, whose result is NaN, too, where a
    logit is NaN or infinity, or all logits of a position are minus infinity.
    """
    mean = check_choice("reduction", reduction, ("mean", "sum")) == "mean"
    wanted = check_bool("gradient", gradient)
    ignored = check_size("ignore_index", ignore_index, -(2**63), 2**63 - 1)
    loss, *gradients = _core.linear_cross_entropy(h, weight, bias, targets, mask, ignored, mean, wanted)
    loss = h.dtype.type(loss)
    return (loss, OutputGradients(*gradients)) if wanted else loss
