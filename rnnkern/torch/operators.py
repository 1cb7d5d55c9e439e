"""The kernels as opaque operators, for torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Optional

import torch
from torch import Tensor

from ..version import __version__
from .network import DTYPES, STOCK, Call, Network, Options, Refused, network_of

if TYPE_CHECKING:
    from .frozen import FrozenLayer
    from .layers import Layer


def describe(options: str | Options, *sizes: int) -> str:
    """A network as a graph keeps it: options, sizes and, because torch.compile keeps graphs on disk, our version."""
    text = options if isinstance(options, str) else options.text
    return f"{text} {','.join([str(int(size)) for size in sizes])} {__version__}"


@lru_cache(maxsize=1024)
def described(network: str, dtype: torch.dtype) -> Network:
    text, sizes, _ = network.split(" ")
    options = text if text in STOCK else Options.from_text(text)
    input_size, hidden_size, num_layers, bias, bidirectional, proj_size = map(int, sizes.split(","))
    return network_of(options, input_size, hidden_size, num_layers, bool(bias), bool(bidirectional), proj_size, dtype)


# AOTInductor gives None for an empty list.
_SCHEMA = (
    "(Tensor x, Tensor? h0, Tensor? c0, Tensor[] weights, Tensor[]? masks, str network, bool keep)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("rnnkern::recurrence", mutates_args=(), schema=_SCHEMA)
def recurrence(
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    weights: Sequence[Tensor],
    masks: Optional[Sequence[Tensor]],
    network: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, hn, cn, tape of x (T, B, I); the last two without elements where there is none."""
    masks = masks or ()
    try:
        y, hn, cn, tape = _call(x, network).run(weights, x, h0, c0, masks, keep)
    except Refused as error:
        raise _wrong(network, x, h0, c0, *weights, *masks) from error
    assert hn is not None
    return y, hn, x.new_empty(0) if cn is None else cn, x.new_empty(0) if tape is None else tape


@recurrence.register_fake
def _(
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    weights: Sequence[Tensor],
    masks: Optional[Sequence[Tensor]],
    network: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = _call(x, network).network
    steps, batch, _ = x.shape
    cn = x.new_empty((made.parts, batch, made.hidden_size) if made.has_cell_state else 0)
    tape = x.new_empty(made.tape_numel(steps * batch, bool(masks)) if keep else 0)
    return x.new_empty((steps, batch, made.width)), x.new_empty((made.parts, batch, made.output_size)), cn, tape


@torch.library.custom_op("rnnkern::recurrence_backward", mutates_args=())
def recurrence_backward(
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    tape: Tensor,
    dy: Optional[Tensor],
    dhn: Optional[Tensor],
    dcn: Optional[Tensor],
    network: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients of x, h0, c0 and each of the weights, without elements where they are not wanted."""
    try:
        found = _call(x, network).backward(weights, x, h0, c0, masks, None, tape, (dy, dhn, dcn), wanted, dense=True)
    except Refused as error:
        raise _wrong(network, x, h0, c0, *weights, *masks, tape, dy, dhn, dcn) from error
    return [x.new_empty(0) if gradient is None else gradient for gradient in found]


@recurrence_backward.register_fake
def _(
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    tape: Tensor,
    dy: Optional[Tensor],
    dhn: Optional[Tensor],
    dcn: Optional[Tensor],
    network: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if want and tensor is not None
        else x.new_empty(0)
        for tensor, want in zip((x, h0, c0, *weights), wanted)
    ]


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, c0, weights, masks, ctx.network, _ = inputs
    *_, tape = output
    ctx.weights, ctx.masks = len(weights), None if masks is None else [None] * len(masks)
    ctx.save_for_backward(x, h0, c0, tape, *weights, *(masks or ()))
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Any, dhn: Any, dcn: Any, _: Any) -> Any:
    x, h0, c0, tape, *rest = ctx.saved_tensors
    weights, masks = rest[: ctx.weights], rest[ctx.weights :]
    if dcn is not None and dcn.numel() == 0:  # of a network without cell states
        dcn = None
    tensors = (x, h0, c0, *weights)
    wanted = [tensor is not None and tensor.requires_grad for tensor in tensors]
    gradients = recurrence_backward(x, h0, c0, weights, masks, tape, dy, dhn, dcn, ctx.network, wanted)
    dx, dh0, dc0, *dweights = (gradient if want else None for gradient, want in zip(gradients, wanted))
    return dx, dh0, dc0, dweights, ctx.masks, None, None


recurrence.register_autograd(_backward, setup_context=_setup_context)


def _wrong(network: str, *operands: Optional[Tensor]) -> RuntimeError:
    shapes = [None if tensor is None else list(tensor.shape) for tensor in operands]
    return RuntimeError(f"expected the operands of a network {network}, got {shapes}")


def _call(x: Tensor, network: str) -> Call:
    if x.dtype not in DTYPES:
        raise RuntimeError(f"x: expected float32 or float64, got {x.dtype}")
    return described(network, x.dtype).time_major


def forward(layer: Layer | FrozenLayer, input: Any, hx: Any) -> Any:
    """A layer's call in a graph; None: the kernels don't do that, or it is wrong."""
    if not isinstance(input, Tensor) or input.dtype not in DTYPES or input.device.type != "cpu":
        return None
    if input.dim() not in (2, 3) or torch.is_autocast_enabled("cpu") or torch.onnx.is_in_onnx_export():
        return None
    weights: Any = layer.graph_weights()
    x = input.unsqueeze(1) if input.dim() == 2 else input.transpose(0, 1) if layer.batch_first else input
    if any(weight.dtype != input.dtype for weight in weights) or x.shape[2] != layer.input_size:
        return None
    if x.shape[0] == 0 or x.shape[1] == 0:
        return None
    cell_state = layer.mode == "LSTM"
    h0: Any = None
    c0: Any = None
    if hx is not None:
        members = tuple(hx) if cell_state else (hx,)
        directions = 2 if layer.bidirectional else 1
        if any(member.dtype != input.dtype or member.dim() != input.dim() for member in members):
            return None
        members = tuple(member.unsqueeze(1) for member in members) if input.dim() == 2 else members
        sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
        for member, size in zip(members, sizes):
            if tuple(member.shape) != (layer.num_layers * directions, x.shape[1], size):
                return None
        h0, c0 = members if cell_state else (members[0], None)
    width = (2 if layer.bidirectional else 1) * (layer.proj_size or layer.hidden_size)
    masks = layer.dropout_masks(x, (x.shape[0], x.shape[1], width)) or None
    tensors = [x, *weights, *(member for member in (h0, c0) if member is not None)]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if keep:
        x = x.contiguous()  # backward reads it: a copy where PyTorch's own layer makes one
    y, hn, cn, _ = torch.ops.rnnkern.recurrence(x, h0, c0, weights, masks, layer.description(), keep)
    if input.dim() == 2:
        y, hn, cn = y.squeeze(1), hn.squeeze(1), cn.squeeze(1) if cell_state else cn
    elif layer.batch_first:
        y = y.transpose(0, 1)
    return y, (hn, cn) if cell_state else hn
