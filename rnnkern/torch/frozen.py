"""Inference only: a snapshot of a layer or cell with packed weights."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, Optional

import torch
from torch import Tensor, fx, nn

from . import operators
from .layers import Layer, Outputs, leaf_of_a_trace
from .network import Call, Refused, kernels_may_run
from .snapshot import snapshot, weight_names
from .swap import restored

_NO_PARAMETERS = "a frozen layer has no Parameters: change the layer it was made of and freeze that again"

_OPTIONS = (
    "mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size",
    "nonlinearity",
)  # fmt: skip
"""Attributes of PyTorch's layers and cells, those that they have."""


class FrozenLayer(nn.Module):
    """An immutable snapshot of a recurrent layer or cell, made by `freeze`; called as that is, with the same bits.

    It has the attributes that tell what the layer is (hidden_size, batch_first, ...) and `flatten_parameters`, so that
    a model's own code goes on working. It owns packed copies of the weights and has no Parameters. Asking it for them,
    `load_state_dict`, or setting one of those attributes is an error, so that nobody trains, loads or changes something
    that has no effect; within a larger model it adds nothing to the model's Parameters and state_dict. Dropout is off.
    `deepcopy` and pickle work.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Not an attribute that torch.nn.Module would take for a submodule of its own.
        self.__dict__["_snapshot"] = snapshot(module)
        self._pack()
        self.eval()

    def _pack(self) -> None:
        held = self._snapshot
        weights = held.weights_now()
        network = held.network(weights[0].dtype)
        self._panels = network.kernels.pack(torch.get_num_threads(), weights)
        # What a graph is made of is here itself, because TorchDynamo does not look into torch.nn.LSTM and its like.
        self.__dict__.update(_options(held))
        self._description = held.description() if isinstance(held, Layer) else None
        self._weight_names = weight_names(held)[: len(weights)]
        self.__dict__.update({"_" + name: weight.detach() for name, weight in zip(self._weight_names, weights)})

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Arguments, results and errors of the layer or cell.

        Raises
        ------
        RuntimeError
            If a gradient is wanted, and as the layer.
        """
        if torch.is_grad_enabled() and _requires_grad((input, hx)):
            raise RuntimeError("a frozen layer is for inference only: expected no_grad, or inputs that require no grad")
        if torch.compiler.is_compiling():
            return self._forward_compiled(input, hx)
        if kernels_may_run():
            try:
                return self._snapshot.forward_kernels(input, hx, self._run)
            except Refused:
                pass
        if isinstance(input, fx.Proxy):
            return leaf_of_a_trace(self, input, hx)
        return self._snapshot.forward(input, hx)

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles instead: PyTorch's module, with Parameters of its own."""
        return restored(copy.deepcopy(self._snapshot))

    def _run(self, call: Call, x: Tensor, h0: Optional[Tensor], c0: Optional[Tensor]) -> Outputs:
        y, hn, cn, _ = call.run(self._panels, x, h0, c0)
        return y, hn, cn

    def _forward_compiled(self, input: Any, hx: Any) -> Any:
        if self._description is None:  # a cell, of PyTorch's operations
            return self._snapshot.forward(input, hx)
        found = operators.forward(self, input, hx)
        return self._uncompiled(input, hx) if found is None else found

    @torch.compiler.disable
    def _uncompiled(self, input: Any, hx: Any) -> Any:
        return self._snapshot.forward(input, hx)

    # What a graph is made of

    def description(self) -> Any:
        return self._description

    def graph_weights(self) -> list[Tensor]:
        return [getattr(self, "_" + name) for name in self._weight_names]

    def dropout_masks(self, like: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """None: dropout is off."""
        return []

    def matches(self, module: nn.Module) -> bool:
        """Whether a layer or cell has the options, and bit for bit computes with the weights, that this one has.

        Raises
        ------
        TypeError, ValueError
            If it could not be frozen.
        """
        mine, other = self._snapshot, snapshot(module)
        weights = dict(mine.named_parameters())
        return (
            type(other) is type(mine)
            and {**_options(other), "dropout": None} == {**_options(mine), "dropout": None}
            and getattr(other, "_own_options", None) == getattr(mine, "_own_options", None)
            and all(_same_bits(weights[name], weight) for name, weight in other.named_parameters())
        )

    def requires_grad_(self, requires_grad: bool = True) -> FrozenLayer:
        """Nothing to do, as there are no Parameters; to want gradients is an error."""
        if requires_grad:
            raise RuntimeError(_NO_PARAMETERS)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing to do, as there are no Parameters."""

    def flatten_parameters(self) -> None:
        """Nothing to do, as the weights are packed."""

    # What it has not got

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return _no_parameters()

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return _no_parameters()

    def register_parameter(self, name: str, param: Any) -> NoReturn:
        raise RuntimeError(_NO_PARAMETERS)

    def reset_parameters(self) -> NoReturn:
        raise RuntimeError(_NO_PARAMETERS)

    def __getattr__(self, name: str) -> Any:
        if name in ("all_weights", "_flat_weights", *vars(self).get("_weight_names", ())):
            raise AttributeError(f"{name}: {_NO_PARAMETERS}")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OPTIONS or name in vars(self).get("_weight_names", ()):
            raise AttributeError(f"{name}: a frozen layer can't be changed: change the layer and freeze it again")
        super().__setattr__(name, value)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(_NO_PARAMETERS)

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenLayer:
        """What `to`, `half`, `cuda` and their like call: to where it is already, nothing happens."""
        weight = next(self._snapshot.parameters())
        if (moved := fn(weight)).dtype != weight.dtype or moved.device != weight.device:
            raise RuntimeError(
                "a frozen layer stays where it is: move or cast the layer it was made of and freeze that"
            )
        return self

    def __getstate__(self) -> dict[str, Any]:
        made = {"_panels", *("_" + name for name in self._weight_names)}
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()

    def _get_name(self) -> str:
        return "rnnkern.torch.FrozenLayer"

    def extra_repr(self) -> str:
        return f"{type(self._snapshot).__name__}({self._snapshot.extra_repr()})"


def freeze(module: nn.Module) -> FrozenLayer:
    """Make an inference-only module with packed weights from a recurrent layer or cell, for serving.

    A snapshot: changes of `module` after this don't reach it. The weights of a live layer are packed or transposed at
    every call, which for a few steps of a few sequences is most of the work; a frozen one's are not. It computes what
    `module` would in evaluation mode: parametrizations, and the hooks of PyTorch's `weight_norm`, `spectral_norm` and
    `prune`, compute the weights anew from copies, and `module` is not changed.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell, or ours
        Of float32 or float64, on the CPU; also parametrized.

    Raises
    ------
    TypeError
        If it is another module, or its weights are of another dtype or on another device.
    ValueError
        If its `forward` was replaced or it has other forward hooks, which a frozen layer would drop.
    """
    return FrozenLayer(module)


def _no_parameters() -> Iterator[Any]:
    """None for PyTorch's own code, such as `torch.export` and `torch.func.functional_call`; an error for others'."""
    if sys._getframe(2).f_globals.get("__name__", "").startswith("torch."):
        return iter(())
    raise RuntimeError(_NO_PARAMETERS)


def _options(held: Any) -> dict[str, Any]:
    return {name: getattr(held, name) for name in _OPTIONS if hasattr(held, name)}


def _requires_grad(value: Any) -> bool:
    """Whether a tensor, or any in a tuple or list, does."""
    if isinstance(value, (tuple, list)):
        return any(map(_requires_grad, value))
    return isinstance(value, Tensor) and value.requires_grad


def _same_bits(a: Tensor, b: Tensor) -> bool:
    integers = torch.int32 if a.dtype is torch.float32 else torch.int64
    return a.dtype is b.dtype and torch.equal(a.view(integers), b.view(integers))
