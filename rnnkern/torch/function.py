"""The kernels under autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from . import composite
from .network import Call, Refused, kernels_may_run


class Recurrence(torch.autograd.Function):
    """A call of a network that can be differentiated, any number of times."""

    @staticmethod
    def forward(ctx: Any, call: Call, masks: Sequence[Tensor], x: Tensor, *states_and_weights: Tensor) -> Any:
        h0, c0, *weights = states_and_weights
        y, hn, cn, tape = call.run(weights, x, h0, c0, masks, keep=True)
        ctx.call, ctx.masks = call, len(masks)
        ctx.save_for_backward(x, tape, *masks, *states_and_weights)
        # Not saved, but referred to: unlike x and the weights, y may be changed in place, as PyTorch's own may.
        ctx.y = y.detach()
        ctx.set_materialize_grads(False)
        return y, hn, cn

    @staticmethod
    def backward(ctx: Any, *gradients: Optional[Tensor]) -> Any:
        call: Call = ctx.call
        x, tape, *rest = ctx.saved_tensors
        masks, (h0, c0, *weights) = rest[: ctx.masks], rest[ctx.masks :]
        wanted = ctx.needs_input_grad[2:]
        if all(gradient is None for gradient in gradients):
            return (None,) * len(ctx.needs_input_grad)
        tensors = (x, h0, c0, *weights)
        if torch.is_grad_enabled():
            return None, None, *composite.gradients(call, masks, tensors, wanted, gradients, create_graph=True)
        y = ctx.y
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.y = None
        try:
            if not kernels_may_run():
                raise Refused
            if y is None or y._version > 0:
                y = call.run(weights, x, h0, c0, masks)[0]
            return None, None, *call.backward(weights, x, h0, c0, masks, y, tape, gradients, wanted)
        except Refused:
            return None, None, *composite.gradients(call, masks, tensors, wanted, gradients, create_graph=False)


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
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (x, h0, c0, *weights)):
        found: tuple[Tensor, Optional[Tensor], Optional[Tensor]] = _apply(call, masks, x, h0, c0, *weights)
        return found
    y, hn, cn, _ = call.run(weights, x, h0, c0, masks)
    return y, hn, cn
