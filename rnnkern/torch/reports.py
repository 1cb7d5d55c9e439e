"""Which recurrent modules of a model run on the kernels, which not, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from .frozen import FrozenLayer
from .kinds import RECURRENT, kind_of, name_of, replaced_method
from .layers import Cell, Recurrent
from .network import DTYPES
from .swap import SWAPS, check_module


@dataclass(frozen=True)
class Report:
    """Which recurrent modules of a model run on the kernels."""

    swapped: dict[str, str] = field(default_factory=dict)
    """By name in the model: the module's repr."""
    left: dict[str, str] = field(default_factory=dict)
    """By name in the model: why it was left alone, or what else to know."""
    allow_rnn: bool = False
    """torch._dynamo.config.allow_rnn: whether torch.compile goes through recurrent modules without a break."""
    frozen: dict[str, str] = field(default_factory=dict)
    """By name in the model: the repr of what `freeze` made, which runs on the kernels too."""

    def __str__(self) -> str:
        parts = (("on the kernels", self.swapped), ("frozen", self.frozen), ("left alone", self.left))
        lines = [
            f"{title:17} {name or 'the model itself'}: {what}" for title, part in parts for name, what in part.items()
        ]
        lines = lines or ["no recurrent modules"]
        return "\n".join([*lines, f"torch.compile     torch._dynamo.config.allow_rnn is {self.allow_rnn}"])


def report(model: nn.Module) -> Report:
    """Tell which of a model's recurrent modules run on the kernels, which not, and why.

    Raises
    ------
    TypeError
        If it is not a module.
    """
    check_module(model)
    found = Report(allow_rnn=bool(torch._dynamo.config.allow_rnn))
    parts: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in parts:
            continue
        if why := _why_left(module):
            found.left[name] = why
            if not isinstance(module, RECURRENT):
                parts.update(module.modules())  # a quantized layer has its cells inside
        elif isinstance(module, FrozenLayer):
            found.frozen[name] = repr(module)
        elif isinstance(module, Recurrent):
            found.swapped[name] = repr(module)
    return found


def _why_left(module: nn.Module) -> str:
    """Why a recurrent module does not run on the kernels as it is now; empty: it does, or is none."""
    kind = kind_of(module)
    full_name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(module, torch.jit.ScriptModule):
        scripted = module.original_name in {stock.__name__ for stock in SWAPS}
        return f"{module.original_name} in TorchScript, which runs PyTorch's own" if scripted else ""
    if kind.__module__.startswith("torch.ao.nn.") and any(stock.__name__ in kind.__name__ for stock in SWAPS):
        return f"{full_name}: quantized, PyTorch's own path"
    if not isinstance(module, (*RECURRENT, FrozenLayer)):
        return ""
    if replaced := replaced_method(module):
        method, by = replaced
        return f"{full_name}: its {method} was replaced, by {name_of(by)}, which decides what runs"
    if kind in SWAPS:
        return f"torch.nn.{kind.__name__}: not accelerated"
    if isinstance(module, Recurrent) and type(module).forward is Recurrent.forward:
        return _never_on_kernels(module)
    return "" if isinstance(module, FrozenLayer) else f"{full_name}: a subclass, which may compute something else"


def _never_on_kernels(module: nn.Module) -> str:
    """Why a module of ours does not run on the kernels as it is now; empty: it does."""
    for weight in module.parameters():
        if weight.dtype not in DTYPES:
            return f"its weights are {weight.dtype}: PyTorch's own path"
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}: PyTorch's own path"
    if isinstance(module, Cell) and module.hidden_size == 0:
        return "hidden_size is 0: PyTorch's own path"
    return ""
