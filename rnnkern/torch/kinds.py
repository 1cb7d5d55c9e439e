"""What a recurrent module is, beneath what PyTorch's own tools put on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any, Optional

from torch import nn

RECURRENT = (nn.RNNBase, nn.RNNCellBase)

_TOOLS = ("torch.nn.utils.parametrize", "torch.distributed.")
"""Where a module gets a class of its own, the last of whose bases is the one it had: parametrizations, fully_shard."""


def _is_made_by_a_tool(kind: type) -> bool:
    return kind.__module__.startswith(_TOOLS) and issubclass(kind.__bases__[-1], RECURRENT)


def kind_of(module: Any) -> type[Any]:
    """The class of a module without what PyTorch's tools made of it."""
    kind = type(module)
    while _is_made_by_a_tool(kind):
        kind = kind.__bases__[-1]
    return kind


def with_kind(kind: type, to: Mapping[type, type]) -> Optional[type]:
    """The class to take a class's place, with the same tools on top of it; None: there is none."""
    if kind in to:
        return to[kind]
    if not _is_made_by_a_tool(kind):
        return None
    *tools, base = kind.__bases__
    new = with_kind(base, to)
    return None if new is None else type(kind.__name__, (*tools, new), dict(kind.__dict__))


_FORWARDS = {kind: kind.forward for kind in (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)}
"""What PyTorch's classes compute."""


def has_own_forward(kind: type[nn.Module]) -> bool:
    """Whether a class computes what it did before anybody replaced the `forward` of PyTorch's."""
    return kind.forward is _FORWARDS.get(kind, kind.forward)


def replaced_method(module: nn.Module) -> Optional[tuple[str, object]]:
    """The method that a call of a module goes through instead of the one of its class, by name; None: none.

    For this one module, or for all of one of PyTorch's classes.
    """
    for name in ("_call_impl", "forward"):
        own = MethodType(getattr(type(module), name), module)
        if (found := vars(module).get(name, own)) != own:
            return name, found
    kind = kind_of(module)
    return None if has_own_forward(kind) else ("forward", kind.forward)


def name_of(function: object) -> str:
    """What a message calls it."""
    return str(getattr(function, "__qualname__", repr(function)))
