"""PyTorch's recurrent modules made ours in place, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Optional, TypeVar
from weakref import WeakSet

import torch
from torch import nn

from . import layers
from .kinds import has_own_forward, kind_of, with_kind

M = TypeVar("M", bound=nn.Module)

SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    nn.RNN: layers.RNN,
    nn.LSTM: layers.LSTM,
    nn.GRU: layers.GRU,
    nn.RNNCell: layers.RNNCell,
    nn.LSTMCell: layers.LSTMCell,
    nn.GRUCell: layers.GRUCell,
}
BACK = {ours: stock for stock, ours in SWAPS.items()}

_accelerated: WeakSet[nn.Module] = WeakSet()
"""What `accelerate` has swapped and `restore` has not."""

_allow_rnn_before: Optional[bool] = None
"""torch._dynamo.config.allow_rnn as it was before the first of them."""


def accelerate(model: M) -> M:
    """Run every recurrent layer and cell inside a model on the kernels, in place.

    The modules stay the same objects with the same Parameters, hooks, names and state_dict: only their class changes,
    to the subclass of the same name in `rnnkern.torch`. So it may be done before or after an optimiser, DDP,
    fully_shard, hooks or parametrizations are set up. `report` tells what was swapped, `restore` undoes it. For
    torch.compile it sets ``torch._dynamo.config.allow_rnn``, in the whole process; that imports PyTorch's compiler,
    which takes a second.

    Parameters
    ----------
    model : torch.nn.Module
        torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell themselves, or with any of them inside.

    Returns
    -------
    model
        The same object.

    Raises
    ------
    TypeError
        If it is not a module.
    """
    swapped = [module for module in _modules(model) if _swap(module, SWAPS)]
    _accelerated.update(swapped)
    if swapped:
        _allow_rnn()
    return model


def restore(model: M) -> M:
    """Undo `accelerate`: PyTorch's own classes again, the same Parameters.

    A layer with options that PyTorch has not got (peepholes, for example) is left as it is. Once nothing is left
    that was accelerated, ``torch._dynamo.config.allow_rnn`` is what it was before.

    Raises
    ------
    TypeError
        If it is not a module.
    """
    global _allow_rnn_before
    for module in _modules(model):
        if not _has_own_options(module) and _swap(module, BACK):
            _accelerated.discard(module)
    if not _accelerated and _allow_rnn_before is not None:
        torch._dynamo.config.allow_rnn, _allow_rnn_before = _allow_rnn_before, None
    return model


def restored(module: nn.Module) -> nn.Module:
    """A copy that shares the Parameters, of PyTorch's own class."""
    if _has_own_options(module):
        raise TypeError(f"{module}: PyTorch has no layer with these options")
    twin = copy.copy(module)
    _swap(twin, BACK)
    return twin


def check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _modules(model: Any) -> Iterator[nn.Module]:
    check_module(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: expected a module before torch.jit.script or trace, got one after it")
    return iter(list(model.modules()))


def _has_own_options(module: nn.Module) -> bool:
    return getattr(module, "_own_options", None) is not None


def _swap(module: nn.Module, to: dict[type[nn.Module], type[nn.Module]]) -> bool:
    """Give a module the class that takes its class's place; False: there is none."""
    new = with_kind(type(module), to)
    if new is None or not has_own_forward(kind_of(module)):
        return False
    module.__class__ = new
    return True


def _allow_rnn() -> None:
    global _allow_rnn_before
    if _allow_rnn_before is None:
        _allow_rnn_before = torch._dynamo.config.allow_rnn
    torch._dynamo.config.allow_rnn = True
