"""A copy of a recurrent module as it computes, whatever computes its weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .kinds import kind_of, name_of, replaced_method
from .layers import Layer
from .network import DTYPES, PLAIN
from .swap import BACK, SWAPS

_CONSTRUCTED = ("input_size", "hidden_size", "bias", "num_layers", "batch_first", "bidirectional", "proj_size")
_COMPUTES_A_WEIGHT = {kind.__call__ for kind in (WeightNorm, SpectralNorm, BasePruningMethod)}
"""Of PyTorch's forward pre-hooks: what they do is to set a weight of the module they are called with."""


def snapshot(module: Any) -> Any:
    """A layer or cell of ours, in evaluation mode, with copies of the weights that a module computes with in that mode.

    Raises
    ------
    TypeError
        If it is not a recurrent layer or cell of PyTorch's or ours, or its weights are of another dtype or elsewhere.
    ValueError
        If something besides its class decides what a call of it computes.
    """
    kind = kind_of(module)
    ours = SWAPS.get(kind, kind if kind in BACK else None)
    if ours is None:
        known = ", ".join(stock.__name__ for stock in SWAPS)
        raise TypeError(f"module: expected one of {known} of torch.nn or rnnkern.torch, got {kind.__name__}")
    _check_call(module)
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        weights = _weights(module, weight_names(module))
        made = _plain(ours, module, weights)
    if not made.has_kernels():
        raise TypeError(f"module: expected what the kernels do, got {module}")
    return made.requires_grad_(False).eval()


def weight_names(module: Any) -> tuple[str, ...]:
    """In the order of the kernels, also those of biases that there are not."""
    if isinstance(module, nn.RNNBase):
        return tuple(module._flat_weights_names)
    return "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def _check_call(module: nn.Module) -> None:
    if replaced := replaced_method(module):
        method, by = replaced
        raise ValueError(
            f"module: expected one that its class computes, got one whose {method} was replaced, by {name_of(by)}"
        )
    for what, hooks in (("pre-hook", module._forward_pre_hooks), ("hook", module._forward_hooks)):
        for hook in hooks.values():
            if what == "hook" or type(hook).__call__ not in _COMPUTES_A_WEIGHT:
                raise ValueError(
                    f"module: expected one whose results no hook can change, got the forward {what} {name_of(hook)}: "
                    "remove it, freeze, and register it with the frozen layer if that is to have it"
                )


def _weights(module: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """What hooks and parametrizations make of copies; each tensor of the module is read once and none is changed."""
    copied = nn.Module()
    vars(copied).update(vars(module))
    copied._parameters = {name: _copy(tensor) for name, tensor in module._parameters.items()}
    copied._buffers = {name: _copy(tensor) for name, tensor in module._buffers.items()}
    copied._modules = {name: copy.deepcopy(child) for name, child in module._modules.items()}
    for name in names:
        if name in vars(copied):
            vars(copied)[name] = _copy(vars(copied)[name])
    copied.eval()
    for hook in module._forward_pre_hooks.values():
        hook(copied, ())
    weights: dict[str, Any] = {}
    for name in names:
        parametrized = parametrize.is_parametrized(copied, name)
        weights[name] = copied.parametrizations[name]() if parametrized else getattr(copied, name)
    return {name: weight for name, weight in weights.items() if weight is not None}


def _copy(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().clone()


def _plain(ours: Any, module: Any, weights: dict[str, Tensor]) -> Any:
    """A module of ours with a module's options and these weights."""
    for name, weight in weights.items():
        if type(weight) not in PLAIN or weight.device.type != "cpu" or weight.dtype not in DTYPES:
            what = f"{type(weight).__name__} of {weight.dtype} on {weight.device}"
            raise TypeError(f"module: expected weights of float32 or float64 on the CPU, got {name}, a {what}")
    options = {name: getattr(module, name) for name in _CONSTRUCTED if hasattr(module, name)}
    if not issubclass(ours, nn.LSTM):
        options.pop("proj_size", None)
    if issubclass(ours, (nn.RNN, nn.RNNCell)):
        options["nonlinearity"] = module.nonlinearity
    dtype = next(iter(weights.values())).dtype
    made = ours(**options, dtype=dtype, device="cpu")
    if issubclass(ours, Layer):
        made.dropout = module.dropout  # not by the constructor, which may warn
    if (own := getattr(module, "_own_options", None)) is not None:
        made.set_own_options(own)
    for name, weight in weights.items():
        getattr(made, name).copy_(weight)
    return made
