"""The kernels under autograd."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, Optional

import torch
from torch import Tensor

from . import composite
from .network import Call, Refused, no_transform_or_mode


class Recurrence(torch.autograd.Function):
    """A call of a network that can be differentiated, any number of times.

    All that the kernels read in backward is saved, so hooks on saved tensors see it and a change in place is an error,
    as in PyTorch's own layers. What these don't save may be changed: y, of which backward has a copy, and weights that
    are not `needed`. Of those only gradients of gradients read any, and raise if they were changed.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, masks: Sequence[Tensor], needed: Sequence[bool], x: Tensor, *states_and_weights: Tensor
    ) -> Any:
        h0, c0, *weights = states_and_weights
        y, hn, cn, tape = call.run(weights, x, h0, c0, masks, keep=True)
        ctx.call, ctx.masks = call, len(masks)
        kept = None if call.batch_sizes is None else y.clone()  # else it is on the tape
        ctx.save_for_backward(tape, kept, x, h0, c0, *masks, *compress(weights, needed))
        ctx.others = [None if need else weight for weight, need in zip(weights, needed)]
        ctx.versions = _versions(ctx.others)
        ctx.set_materialize_grads(False)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *gradients: Optional[Tensor]) -> Any:
        call: Call = ctx.call
        tape, y, x, h0, c0, *rest = ctx.saved_tensors
        masks, kept = rest[: ctx.masks], iter(rest[ctx.masks :])
        weights = [next(kept) if other is None else other for other in ctx.others]
        wanted = ctx.needs_input_grad[3:]
        if all(gradient is None for gradient in gradients):
            return (None,) * len(ctx.needs_input_grad)
        create_graph = torch.is_grad_enabled()
        found: Sequence[Optional[Tensor]]
        try:
            if create_graph or not no_transform_or_mode():
                raise Refused
            found = call.backward(weights, x, h0, c0, masks, y, tape, gradients, wanted)
        except Refused:
            if _versions(ctx.others) != ctx.versions:
                raise RuntimeError(_CHANGED) from None
            with torch.autocast("cpu", enabled=False):  # as it was in the forward pass
                inputs = (x, h0, c0, *weights)
                found = composite.gradients(call, masks, inputs, wanted, gradients, create_graph)
        return None, None, None, *found


_CHANGED = "one of the variables needed for gradient computation has been modified by an inplace operation: a weight"


def _versions(tensors: Sequence[Optional[Tensor]]) -> list[int]:
    """How often each was changed in place, as far as PyTorch counts."""
    return [tensor._version for tensor in tensors if tensor is not None and not tensor.is_inference()]


# `Recurrence.apply` without its detour for transforms: within one, or on what is left of one, no kernels run.
_apply: Any = super(torch.autograd.Function, Recurrence).apply


def recurrence(
    call: Call,
    weights: Sequence[Tensor],
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    masks: Sequence[Tensor] = (),
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Run a call, with the graph where autograd wants it: y, hn, cn of `Call.run`."""
    if torch.is_grad_enabled():
        wanted = tuple([tensor is not None and tensor.requires_grad for tensor in (x, h0, c0, *weights)])
        if True in wanted:
            keeps_x, needed = call.network.saved_by_stock(wanted, call.is_one_step(x))
            if not keeps_x or call.reorders(x):
                x = x.clone()
            found: tuple[Tensor, Optional[Tensor], Optional[Tensor]]
            found = _apply(call, masks, needed, x, h0, c0, *weights)
            return found
    y, hn, cn, _ = call.run(weights, x, h0, c0, masks)
    return y, hn, cn
