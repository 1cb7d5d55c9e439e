"""Inference only: a snapshot of a layer or cell with packed weights."""

from __future__ import annotations

from typing import Any, NoReturn, Optional

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .layers import Layer, Outputs
from .network import DTYPES, Call, Refused, kernels_may_run
from .swap import BACK, SWAPS

_NO_PARAMETERS = "a frozen layer has no Parameters: change the layer it was made of and freeze that again"


class FrozenLayer(nn.Module):
    """An immutable snapshot of a recurrent layer or cell, made by `freeze`; called as that is, with the same bits.

    It owns packed copies of the weights and has no Parameters. Asking it for them, or `load_state_dict`, is a
    RuntimeError, so that nobody trains or loads something that has no effect; within a larger model it adds nothing to
    the model's Parameters and state_dict. Dropout is off. `deepcopy` and pickle work.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Not an attribute that torch.nn.Module would take for a submodule of its own.
        self.__dict__["_snapshot"] = _snapshot(module)
        self._pack()
        self.eval()

    def _pack(self) -> None:
        weights = self._snapshot.weights_now()
        network = self._snapshot.network(weights[0].dtype)
        self._panels = network.kernels.pack(torch.get_num_threads(), weights)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Arguments, results and errors of the layer or cell.

        Raises
        ------
        RuntimeError
            If a gradient is wanted, and as the layer.
        """
        if torch.is_grad_enabled() and _requires_grad((input, hx)):
            raise RuntimeError("a frozen layer is for inference only: expected no_grad, or inputs that require no grad")
        if not torch.compiler.is_compiling() and kernels_may_run():
            try:
                return self._snapshot.forward_kernels(input, hx, self._run)
            except Refused:
                pass
        return self._snapshot.forward(input, hx)

    def _run(self, call: Call, x: Tensor, h0: Optional[Tensor], c0: Optional[Tensor]) -> Outputs:
        y, hn, cn, _ = call.run(self._panels, x, h0, c0)
        return y, hn, cn

    def matches(self, module: nn.Module) -> bool:
        """Whether a layer or cell has the options, and bit for bit the weights, that this one was made of.

        Raises
        ------
        TypeError
            If it is not a recurrent layer or cell of PyTorch's or ours.
        """
        other = _snapshot(module)
        mine = dict(self._snapshot.named_parameters())
        return (
            type(other) is type(self._snapshot)
            and repr(other) == repr(self._snapshot)
            and all(_same_bits(mine[name], weight) for name, weight in other.named_parameters())
        )

    def requires_grad_(self, requires_grad: bool = True) -> FrozenLayer:
        """Nothing to do, as there are no Parameters; to want gradients is an error."""
        if requires_grad:
            raise RuntimeError(_NO_PARAMETERS)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing to do, as there are no Parameters."""

    # What it has not got

    def parameters(self, recurse: bool = True) -> NoReturn:
        raise RuntimeError(_NO_PARAMETERS)

    def named_parameters(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(_NO_PARAMETERS)

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
        return {name: value for name, value in self.__dict__.items() if name != "_panels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()

    def extra_repr(self) -> str:
        return repr(self._snapshot)


def freeze(module: nn.Module) -> FrozenLayer:
    """Make an inference-only module with packed weights from a recurrent layer or cell, for serving.

    A snapshot: changes of `module` after this don't reach it. The weights of a live layer are packed or transposed at
    every call, which for a few steps of a few sequences is most of the work; a frozen one's are not.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell, or ours
        Of float32 or float64, on the CPU; also parametrized.

    Raises
    ------
    TypeError
        If it is another module, or its weights are of another dtype or on another device.
    """
    return FrozenLayer(module)


def _snapshot(module: Any) -> Any:
    """A layer or cell of ours with copies of the weights."""
    kind = parametrize.type_before_parametrizations(module) if isinstance(module, nn.Module) else type(module)
    ours = SWAPS.get(kind, kind if kind in BACK else None)
    if ours is None:
        known = ", ".join(stock.__name__ for stock in SWAPS)
        raise TypeError(f"module: expected one of {known} of torch.nn or rnnkern.torch, got {kind.__name__}")
    names = ["input_size", "hidden_size", "bias"]
    if issubclass(ours, Layer):
        names += ["num_layers", "batch_first", "bidirectional"]
    if issubclass(ours, nn.LSTM):
        names.append("proj_size")
    if issubclass(ours, (nn.RNN, nn.RNNCell)):
        names.append("nonlinearity")
    held = module._flat_weights_names if issubclass(ours, Layer) else ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = {name: getattr(module, name) for name in held if getattr(module, name) is not None}
    for name, weight in weights.items():
        if weight.device.type != "cpu" or weight.dtype not in DTYPES:
            raise TypeError(
                f"module: expected float32 or float64 on the CPU, got {name} {weight.dtype} on {weight.device}"
            )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        snapshot: Any = ours(**{name: getattr(module, name) for name in names}, dtype=weights[held[0]].dtype)
        if (own := getattr(module, "_own_options", None)) is not None:
            snapshot.set_own_options(own)
        for name, weight in weights.items():
            getattr(snapshot, name).copy_(weight)
    if not snapshot.has_kernels():
        raise TypeError(f"module: expected what the kernels do, got {module}")
    return snapshot.requires_grad_(False).eval()


def _requires_grad(value: Any) -> bool:
    """Whether a tensor, or any in a tuple or list, does."""
    if isinstance(value, (tuple, list)):
        return any(map(_requires_grad, value))
    return isinstance(value, Tensor) and value.requires_grad


def _same_bits(a: Tensor, b: Tensor) -> bool:
    integers = torch.int32 if a.dtype is torch.float32 else torch.int64
    return a.dtype is b.dtype and torch.equal(a.view(integers), b.view(integers))
