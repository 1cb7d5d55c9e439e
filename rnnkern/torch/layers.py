"""Subclasses of PyTorch's recurrent layers and cells that run on the kernels wherever these can do it."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import PackedSequence

from .. import options
from .._core import Layout
from . import composite, operators
from .function import recurrence
from .kinds import kind_of
from .network import DTYPES, PLAIN, STOCK, Call, Network, Options, Refused, batch_sizes_of, kernels_may_run, network_of

Outputs = tuple[Tensor, Optional[Tensor], Optional[Tensor]]
"""y, hn, cn, those that there are."""

Start = Callable[[Call, Tensor, Optional[Tensor], Optional[Tensor]], Outputs]
"""Runs a call on x, h0, c0."""


def _members(hx: Any, cell_state: bool) -> tuple[Optional[Tensor], Optional[Tensor]]:
    """Take a state apart: h0 and c0, those that there are.

    Raises
    ------
    Refused
        If it is not one.
    """
    if hx is None:
        return None, None
    members = hx if cell_state else (hx, None)
    if not isinstance(members, (tuple, list)) or len(members) != 2:
        raise Refused
    h0, c0 = members
    if type(h0) not in PLAIN or (cell_state and type(c0) not in PLAIN):
        raise Refused
    return h0, c0


def _permuted(state: Optional[Tensor], order: Optional[Tensor]) -> Optional[Tensor]:
    """The sequences of a state in another order."""
    return state if state is None or order is None else state.index_select(1, order)


def leaf_of_a_trace(module: Any, input: fx.Proxy, hx: Any) -> fx.Proxy:
    """A module's call in a symbolic trace, of which PyTorch's own modules are leaves."""
    name = input.tracer.path_of_module(module)
    return input.tracer.create_proxy("call_module", name, (input,) if hx is None else (input, hx), {})


class Recurrent:
    """What the accelerated layers and cells share. It stands before PyTorch's class among the bases."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Arguments, results and errors of PyTorch's own."""
        if torch.compiler.is_compiling():
            return self._forward_compiled(input, hx)
        if kernels_may_run():
            try:
                return self.forward_kernels(input, hx, self._forward_live)
            except Refused:
                pass
        if isinstance(input, fx.Proxy):
            return leaf_of_a_trace(self, input, hx)
        return self.forward_elsewhere(input, hx)

    def forward_kernels(self, input: Any, hx: Any, start: Start) -> Any:
        """Check and lay out a call, start it, and put its results together.

        Raises
        ------
        Refused
            The kernels don't do that, or it is wrong.
        """
        raise NotImplementedError

    def forward_elsewhere(self, input: Any, hx: Any) -> Any:
        """PyTorch's own path, which raises its own errors for what is wrong."""
        return super().forward(input, hx)  # type: ignore[misc]

    def weights_now(self) -> list[Any]:
        """The weights in the order of the kernels."""
        raise NotImplementedError

    def _forward_live(self, call: Call, x: Tensor, h0: Optional[Tensor], c0: Optional[Tensor]) -> Outputs:
        return recurrence(call, self.weights_now(), x, h0, c0)

    def _forward_compiled(self, input: Any, hx: Any) -> Any:
        return self.forward_elsewhere(input, hx)

    def _get_name(self) -> str:
        """What repr shows: it tells ours from PyTorch's of the same name."""
        name = type(self).__name__
        return f"rnnkern.torch.{name}" if kind_of(self).__module__ == __name__ else name

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
    _parameters: dict[str, Any]
    _flat_weights: list[Any]
    check_input: Any
    _own_options: Optional[Options] = None
    """What PyTorch's layers have not got."""

    def has_kernels(self) -> bool:
        """Whether the kernels do what this layer computes: always."""
        return True

    def network(self, dtype: torch.dtype) -> Network:
        return network_of(*self._what(), dtype)

    def description(self) -> str:
        """Of the network, for a graph."""
        return operators.describe(*self._what())

    def _what(self) -> tuple[Any, ...]:
        return (
            self._own_options or self.mode,
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

    def weights_now(self) -> list[Any]:
        held = self._parameters
        if len(held) != len(self._flat_weights) or not all(map(is_, held.values(), self._flat_weights)):
            self._update_flat_weights()  # type: ignore[attr-defined]
        return self._flat_weights

    def graph_weights(self) -> list[Any]:
        """The weights, as a graph finds them."""
        return [getattr(self, name) for name in self._flat_weights_names]

    def forward_kernels(self, input: Any, hx: Any, start: Start) -> Any:
        if type(input) is PackedSequence:
            return self._forward_packed(input, hx, start)
        if type(input) not in PLAIN or input.dtype not in DTYPES:
            raise Refused
        network = self.network(input.dtype)
        axes = input.dim()
        if axes == 3:
            call = network.batch_first if self.batch_first else network.time_major
        elif axes == 2:
            call = network.unbatched
        else:
            raise Refused
        h0, c0 = _members(hx, network.has_cell_state)
        y, hn, cn = start(call, input, h0, c0)
        return y, hn if cn is None else (hn, cn)

    def _forward_packed(self, input: PackedSequence, hx: Any, start: Start) -> Any:
        rows, batch_sizes, sorted_indices, unsorted_indices = input
        sizes = batch_sizes_of(input)
        if sizes is None or type(rows) not in PLAIN or rows.dtype not in DTYPES or rows.dim() != 2:
            raise Refused
        network = self.network(rows.dtype)
        h0, c0 = _members(hx, network.has_cell_state)
        h0, c0 = _permuted(h0, sorted_indices), _permuted(c0, sorted_indices)
        y, hn, cn = start(Call(network, Layout.TIME_MAJOR, sizes), rows, h0, c0)
        hn, cn = _permuted(hn, unsorted_indices), _permuted(cn, unsorted_indices)
        output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return output, hn if cn is None else (hn, cn)

    def _forward_live(self, call: Call, x: Tensor, h0: Optional[Tensor], c0: Optional[Tensor]) -> Outputs:
        if not self.training or self.dropout == 0:
            return recurrence(call, self.weights_now(), x, h0, c0)
        if not x.is_cpu or x.layout is not torch.strided:
            raise Refused
        random = torch.get_rng_state()
        try:
            shape = (*call.positions(x), call.network.width)
            masks = [call.padded(mask) for mask in self.dropout_masks(x, shape)]
            return recurrence(call, self.weights_now(), x, h0, c0, masks)
        except Refused:
            torch.set_rng_state(random)  # PyTorch's own path draws the same masks
            raise

    def _forward_compiled(self, input: Any, hx: Any) -> Any:
        result = operators.forward(self, input, hx)
        if result is not None:
            return result
        # What PyTorch has for its LSTM on the CPU, its compiler can't differentiate.
        return self._uncompiled(input, hx) if self.mode == "LSTM" else self.forward_elsewhere(input, hx)

    @torch.compiler.disable
    def _uncompiled(self, input: Any, hx: Any) -> Any:
        return self.forward_elsewhere(input, hx)

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
        own, default = self._own_options, STOCK[self.mode]
        if own is None:
            return shown
        if own.family == "gru_reset_before":
            shown += ", reset_after=False"
        if own.activations == ("Identity",):
            shown += ", nonlinearity='linear'"
        elif own.activations != default.activations:
            shown += f", activations={_as_given(own.activations)!r}"
        return shown + "".join(
            f", {name}={getattr(own, name)!r}"
            for name in ("clip", "peephole", "coupled")
            if getattr(own, name) != getattr(default, name)
        )


def _as_given(activations: Any) -> tuple[Any, ...]:
    """As the argument is: names, each with its parameters if it has any, one direction after the other."""
    counts = {name: len(defaults) for name, defaults in options.ACTIVATIONS.items()}
    return tuple(
        (name, *parameters[: counts[name]]) if counts.get(name) else name
        for direction in activations
        for name, *parameters in direction
    )


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

    def has_kernels(self) -> bool:
        """Whether the kernels do what this cell computes."""
        return self._mode() in STOCK and self.hidden_size > 0

    def network(self, dtype: torch.dtype) -> Network:
        bias = self.bias_ih is not None
        return network_of(self._mode(), self.input_size, self.hidden_size, 1, bias, False, 0, dtype)

    def weights_now(self) -> list[Any]:
        weights = [self.weight_ih, self.weight_hh]
        return weights if self.bias_ih is None else [*weights, self.bias_ih, self.bias_hh]

    def forward_kernels(self, input: Any, hx: Any, start: Start) -> Any:
        if type(input) not in PLAIN or input.dtype not in DTYPES or not self.has_kernels():
            raise Refused
        network = self.network(input.dtype)
        h0, c0 = _members(hx, network.has_cell_state)
        unbatched = input.dim() == 1
        if unbatched:
            input, h0, c0 = (None if tensor is None else tensor.unsqueeze(0) for tensor in (input, h0, c0))
        if input.dim() != 2:
            raise Refused
        h, _, c = start(network.one_step, input, h0, c0)
        if unbatched:
            h, c = h.squeeze(0), None if c is None else c.squeeze(0)
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
