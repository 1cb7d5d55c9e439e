"""Subclasses of PyTorch's recurrent layers and cells that run on the kernels wherever these can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .. import options
from . import composite, operators
from .function import recurrence
from .network import DTYPES, Call, Network, Options, StepCall, is_packing, network_of

STOCK = {
    "RNN_TANH": Options("rnn", ("Tanh",)),
    "RNN_RELU": Options("rnn", ("Relu",)),
    "LSTM": Options("lstm"),
    "GRU": Options("gru_reset_after"),
}
"""What PyTorch's layers compute, by their mode."""

_PLAIN = {Tensor, nn.Parameter}
"""Tensors of other classes have a behaviour of their own."""


def _kernels_may_run() -> bool:
    """Whether nothing is switched on for which every operation must be PyTorch's own."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._get_tracing_state() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch.autograd.forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


def _is_plain(tensor: Any, dtype: torch.dtype) -> bool:
    """Whether the elements are where the kernels can read them."""
    return (
        type(tensor) in _PLAIN
        and tensor.dtype is dtype
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    )


def _plain_weights(weights: Sequence[Any], network: Network, dtype: torch.dtype) -> Optional[list[Tensor]]:
    """The weights, contiguous; None: they are not what the network expects."""
    if len(weights) != len(network.weight_shapes):
        return None
    for weight, shape in zip(weights, network.weight_shapes):
        if not _is_plain(weight, dtype) or weight.shape != shape:
            return None
    return [weight if weight.is_contiguous() else weight.contiguous() for weight in weights]


def _plain_state(hx: Any, network: Network, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """(h0, c0) of `shape` and their sizes, contiguous, None for what there is not; False: not what is expected."""
    if hx is None:
        return None, None
    if not network.has_cell_state:
        members = (hx,)
    elif isinstance(hx, (tuple, list)) and len(hx) == 2:
        members = tuple(hx)
    else:
        return False
    for member, size in zip(members, (network.output_size, network.hidden_size)):
        if not _is_plain(member, dtype) or member.shape != (*shape, size):
            return False
    contiguous = [member if member.is_contiguous() else member.contiguous() for member in members]
    return contiguous if network.has_cell_state else (contiguous[0], None)


class Bound(NamedTuple):
    """A call's arguments, checked."""

    call: Call
    x: Tensor
    h0: Optional[Tensor]
    c0: Optional[Tensor]
    packed: Optional[PackedSequence] = None

    def results(self, y: Tensor, hn: Any, cn: Optional[Tensor]) -> Any:
        """As PyTorch's layers return them."""
        output: Any = y
        if self.packed is not None:
            _, batch_sizes, sorted_indices, unsorted_indices = self.packed
            output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
            if unsorted_indices is not None:
                hn = hn.index_select(1, unsorted_indices)
                cn = None if cn is None else cn.index_select(1, unsorted_indices)
        return output, hn if cn is None else (hn, cn)


class Recurrent:
    """What the accelerated layers and cells share. It stands before PyTorch's class among the bases."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Arguments, results and errors of PyTorch's own."""
        if torch.compiler.is_compiling():
            return self._forward_compiled(input, hx)
        if _kernels_may_run():
            result = self._forward_kernels(input, hx)
            if result is not None:
                return result
        return self.forward_elsewhere(input, hx)

    def bind(self, input: Any, hx: Any) -> Optional[Bound]:
        """The arguments of a call, checked; None: the kernels don't do that, or it is wrong."""
        raise NotImplementedError

    def weights_for(self, network: Network, dtype: torch.dtype) -> Optional[list[Tensor]]:
        """The weights as they are now, contiguous; None: they are not what the network expects."""
        raise NotImplementedError

    def forward_elsewhere(self, input: Any, hx: Any) -> Any:
        """PyTorch's own path, which raises its own errors for what is wrong."""
        return super().forward(input, hx)  # type: ignore[misc]

    def _forward_kernels(self, input: Any, hx: Any) -> Any:
        raise NotImplementedError

    def _forward_compiled(self, input: Any, hx: Any) -> Any:
        return self.forward_elsewhere(input, hx)

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles instead."""
        from .swap import restored

        return restored(self)


class Layer(Recurrent):
    """The layers; torch.nn.RNNBase holds what is declared here."""

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    training: bool
    _all_weights: list[list[str]]
    _flat_weights: Any
    _own_options: Optional[Options] = None
    """What PyTorch's layers have not got."""

    def network(self, dtype: torch.dtype) -> Network:
        return network_of(*self._what(), dtype)

    def description(self) -> str:
        """Of the network, for a graph."""
        return operators.describe(*self._what())

    def _what(self) -> tuple[Any, ...]:
        return (
            self._own_options or STOCK[self.mode],
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.bidirectional,
            self.proj_size,
        )

    def dropout_masks(self, like: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """Of the outputs of each layer but the last one; the ones that PyTorch's layers draw."""
        if not self.training or self.dropout == 0:
            return []
        return [F.dropout(like.new_ones(shape), self.dropout) for _ in range(self.num_layers - 1)]

    def weights_for(self, network: Network, dtype: torch.dtype) -> Optional[list[Tensor]]:
        self._update_flat_weights()  # type: ignore[attr-defined]
        return _plain_weights(self._flat_weights, network, dtype)

    def bind(self, input: Any, hx: Any) -> Optional[Bound]:
        if type(input) is PackedSequence:
            return self._bind_packed(input, hx)
        if not isinstance(input, Tensor) or input.dtype not in DTYPES or not _is_plain(input, input.dtype):
            return None
        network = self.network(input.dtype)
        state_shape: tuple[int, ...] = (network.states,)
        shape = input.shape
        if len(shape) == 3:
            batch, steps = (shape[0], shape[1]) if self.batch_first else (shape[1], shape[0])
            state_shape = (network.states, batch)
        elif len(shape) == 2:
            steps, batch = shape[0], 1
        else:
            return None
        state = _plain_state(hx, network, state_shape, input.dtype)
        if shape[-1] != network.input_size or steps == 0 or batch == 0 or state is False:
            return None
        return Bound(Call(network, input, steps, batch, self.batch_first, None), input, *state)

    def _bind_packed(self, input: PackedSequence, hx: Any) -> Optional[Bound]:
        rows, batch_sizes, sorted_indices, _ = input
        if rows.dtype not in DTYPES or not _is_plain(rows, rows.dtype):
            return None
        network = self.network(rows.dtype)
        if rows.dim() != 2 or rows.shape[1] != network.input_size or not is_packing(batch_sizes, len(rows)):
            return None
        batch = int(batch_sizes[0])
        state = _plain_state(hx, network, (network.states, batch), rows.dtype)
        if state is False:
            return None
        if sorted_indices is not None:
            state = [None if member is None else member.index_select(1, sorted_indices) for member in state]
        h0, c0 = state
        return Bound(Call(network, rows, len(batch_sizes), batch, False, batch_sizes), rows, h0, c0, input)

    def _forward_kernels(self, input: Any, hx: Any) -> Any:
        bound = self.bind(input, hx)
        if bound is None:
            return None
        call, x = bound.call, bound.x
        weights = self.weights_for(call.network, x.dtype)
        if weights is None:
            return None
        masks: Sequence[Tensor] = ()
        if self.training and self.dropout > 0:
            shape = (call.steps, call.batch) if bound.packed is None else (len(x),)
            masks = [call.padded(mask) for mask in self.dropout_masks(x, (*shape, call.network.width))]
        return bound.results(*recurrence(call, weights, x, bound.h0, bound.c0, masks))

    def _forward_compiled(self, input: Any, hx: Any) -> Any:
        result = operators.forward(self, input, hx)
        return self.forward_elsewhere(input, hx) if result is None else result

    def forward_elsewhere(self, input: Any, hx: Any) -> Any:
        if self._own_options is None:
            return super().forward_elsewhere(input, hx)
        return composite.layer_forward(self, input, hx)

    def set_own_options(self, own: Options) -> None:
        """Be what PyTorch's layer can't be, with the weights that this needs."""
        if own == STOCK[self.mode]:
            return
        self._own_options = own
        if own.peephole:
            self._add_peepholes()

    def _add_peepholes(self) -> None:
        names: list[str] = []
        for part in self._all_weights:
            suffix = part[0].removeprefix("weight_ih")
            weight: Any = self._flat_weights[0]
            setattr(self, "weight_peephole" + suffix, nn.Parameter(weight.new_empty((3, self.hidden_size))))
            part.append("weight_peephole" + suffix)
            names += part
        self._flat_weights_names = names
        self._init_flat_weights()  # type: ignore[attr-defined]
        self.reset_parameters()  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        shown: str = super().extra_repr()  # type: ignore[misc]
        if self._own_options is not None:
            own, default = self._own_options, STOCK[self.mode]
            shown += "".join(
                f", {name}={getattr(own, name)!r}"
                for name in ("family", "activations", "clip", "peephole", "coupled")
                if getattr(own, name) != getattr(default, name)
            )
        return shown


def _activations(value: Any, family: Any, bidirectional: bool) -> Any:
    """Checked, as `Options` has them."""
    return None if value is None else options.check_activations(value, family, 2 if bidirectional else 1)


class RNN(Layer, nn.RNN):
    """`torch.nn.RNN` on the kernels of rnnkern.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.RNN`; nonlinearity may be "linear" too.
    activations, clip
        As of `rnnkern.RNN`.
    """

    def __init__(self, *args: Any, activations: Any = None, clip: Optional[float] = None, **kwargs: Any) -> None:
        linear = False
        if len(args) > 3 and args[3] == "linear":
            linear, args = True, (*args[:3], "tanh", *args[4:])
        elif kwargs.get("nonlinearity") == "linear":
            linear, kwargs = True, {**kwargs, "nonlinearity": "tanh"}
        super().__init__(*args, **kwargs)
        default = STOCK[self.mode]
        usual = ("Identity",) if linear else default.activations
        own = _activations(activations, "rnn", self.bidirectional) or usual
        self.set_own_options(Options("rnn", own, options.check_clip(clip)))


class LSTM(Layer, nn.LSTM):
    """`torch.nn.LSTM` on the kernels of rnnkern.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.LSTM`.
    peephole, coupled, activations, clip
        As of `rnnkern.LSTM`.
    """

    def __init__(
        self,
        *args: Any,
        peephole: bool = False,
        coupled: Any = False,
        activations: Any = None,
        clip: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        own = Options(
            "lstm",
            _activations(activations, "lstm", self.bidirectional),
            options.check_clip(clip),
            options.check_bool("peephole", peephole),
            options.check_coupled(coupled),
        )
        self.set_own_options(own)


class GRU(Layer, nn.GRU):
    """`torch.nn.GRU` on the kernels of rnnkern.

    Parameters
    ----------
    *args, **kwargs
        Those of `torch.nn.GRU`.
    reset_after, activations, clip
        As of `rnnkern.GRU`.
    """

    def __init__(
        self,
        *args: Any,
        reset_after: bool = True,
        activations: Any = None,
        clip: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        family: Any = "gru_reset_after" if options.check_bool("reset_after", reset_after) else "gru_reset_before"
        own = Options(family, _activations(activations, family, self.bidirectional), options.check_clip(clip))
        self.set_own_options(own)


class Cell(Recurrent):
    """The cells; torch.nn.RNNCellBase holds what is declared here."""

    input_size: int
    hidden_size: int
    bias: bool
    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any

    def _mode(self) -> str:
        """By the name of the layer's."""
        raise NotImplementedError

    def network(self, dtype: torch.dtype) -> Network:
        bias = self.bias_ih is not None
        return network_of(STOCK[self._mode()], self.input_size, self.hidden_size, 1, bias, False, 0, dtype)

    def bind(self, input: Any, hx: Any) -> Optional[Bound]:
        if not isinstance(input, Tensor) or input.dtype not in DTYPES or not _is_plain(input, input.dtype):
            return None
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size or input.numel() == 0:
            return None
        if self._mode() not in STOCK or self.hidden_size == 0:
            return None
        network = self.network(input.dtype)
        state = _plain_state(hx, network, tuple(input.shape[:-1]), input.dtype)
        return None if state is False else Bound(StepCall(network, input), input, *state)

    def weights_for(self, network: Network, dtype: torch.dtype) -> Optional[list[Tensor]]:
        weights = [self.weight_ih, self.weight_hh]
        if self.bias_ih is not None:
            weights += [self.bias_ih, self.bias_hh]
        return _plain_weights(weights, network, dtype)

    def _forward_kernels(self, input: Any, hx: Any) -> Any:
        bound = self.bind(input, hx)
        weights = None if bound is None else self.weights_for(bound.call.network, input.dtype)
        if bound is None or weights is None:
            return None
        h, _, c = recurrence(bound.call, weights, input, bound.h0, bound.c0, state=False)
        return h if c is None else (h, c)


class RNNCell(Cell, nn.RNNCell):
    """`torch.nn.RNNCell` on the kernels of rnnkern."""

    def _mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"


class LSTMCell(Cell, nn.LSTMCell):
    """`torch.nn.LSTMCell` on the kernels of rnnkern."""

    def _mode(self) -> str:
        return "LSTM"


class GRUCell(Cell, nn.GRUCell):
    """`torch.nn.GRUCell` on the kernels of rnnkern."""

    def _mode(self) -> str:
        return "GRU"
