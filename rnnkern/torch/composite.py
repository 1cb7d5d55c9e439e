"""The networks step by step in PyTorch's own operations, for what the kernels don't do.

That is gradients of gradients; and, for the cells that PyTorch has not got, other devices, dtypes and transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..spec import GATES, Activation, Spec
from .network import Call

if TYPE_CHECKING:
    from .layers import Layer

_FUNCTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "Affine": lambda x, alpha, beta: alpha * x + beta,
    "Elu": lambda x, alpha, beta: F.elu(x, alpha),
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "Identity": lambda x, alpha, beta: x,
    "LeakyRelu": lambda x, alpha, beta: F.leaky_relu(x, alpha),
    "Relu": lambda x, alpha, beta: x.relu(),
    "ScaledTanh": lambda x, alpha, beta: alpha * (beta * x).tanh(),
    "Sigmoid": lambda x, alpha, beta: x.sigmoid(),
    "Softplus": lambda x, alpha, beta: F.softplus(x),
    "Softsign": lambda x, alpha, beta: F.softsign(x),
    "Tanh": lambda x, alpha, beta: x.tanh(),
    "ThresholdedRelu": lambda x, alpha, beta: F.threshold(x, alpha, 0.0),
}
"""ONNX's activations of x, alpha, beta."""

State = tuple[Tensor, ...]
"""h, or h and c; each (B, size)."""


class _Cell:
    """One layer and direction: a step of it."""

    def __init__(self, spec: Spec, activations: Sequence[Activation], weights: Sequence[Tensor]) -> None:
        self._spec = spec
        self._activations = activations
        named = iter(weights)
        self.weight_ih, self._weight_hh = next(named), next(named)
        self._bias_ih: Optional[Tensor] = next(named) if spec.bias else None
        self._bias_hh: Optional[Tensor] = next(named) if spec.bias else None
        self._weight_hr = next(named) if spec.proj_size else None
        self._peephole = next(named) if spec.peephole else None
        if spec.coupled is not None:
            self.weight_ih, self._weight_hh, self._bias_ih, self._bias_hh = map(
                self._without_derived, (self.weight_ih, self._weight_hh, self._bias_ih, self._bias_hh)
            )

    def _without_derived(self, rows: Any) -> Any:
        """Zeros for the rows of the derived gate, whose values have no effect and no gradient."""
        if rows is None:
            return None
        gates = list(rows.chunk(4))
        derived = GATES["lstm"].index(self._spec.coupled)
        gates[derived] = torch.zeros_like(gates[derived])
        return torch.cat(gates)

    def input_part(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_ih, self._bias_ih)

    def step(self, x: Tensor, state: State) -> State:
        """The next state, of the input's part (B, G*H)."""
        return getattr(self, "_" + self._spec.family)(x, *state)  # type: ignore[no-any-return]

    def _f(self, i: int, x: Tensor) -> Tensor:
        name, alpha, beta = self._activations[i]
        return _FUNCTIONS[name](
            x if self._spec.clip is None else x.clamp(-self._spec.clip, self._spec.clip), alpha, beta
        )

    def _rnn(self, x: Tensor, h: Tensor) -> State:
        return (self._f(0, x + F.linear(h, self._weight_hh, self._bias_hh)),)

    def _lstm(self, x: Tensor, h: Tensor, c: Tensor) -> State:
        i, f, g, o = (x + F.linear(h, self._weight_hh, self._bias_hh)).chunk(4, -1)
        if self._peephole is not None:
            i, f = i + self._peephole[0] * c, f + self._peephole[1] * c
        input_gate, forget_gate = self._f(0, i), self._f(0, f)
        if self._spec.coupled == "i":
            input_gate = 1 - forget_gate
        elif self._spec.coupled == "f":
            forget_gate = 1 - input_gate
        c = forget_gate * c + input_gate * self._f(1, g)
        if self._peephole is not None:
            o = o + self._peephole[2] * c
        name, alpha, beta = self._activations[2]
        h = self._f(0, o) * _FUNCTIONS[name](c, alpha, beta)
        return (h if self._weight_hr is None else F.linear(h, self._weight_hr)), c

    def _gru_reset_after(self, x: Tensor, h: Tensor) -> State:
        (x_r, x_z, x_n), recurrent = x.chunk(3, -1), F.linear(h, self._weight_hh, self._bias_hh)
        h_r, h_z, h_n = recurrent.chunk(3, -1)
        r, z = self._f(0, x_r + h_r), self._f(0, x_z + h_z)
        n = self._f(1, x_n + r * h_n)
        return ((1 - z) * n + z * h,)

    def _gru_reset_before(self, x: Tensor, h: Tensor) -> State:
        size = h.shape[-1]
        weight_rz, weight_n = self._weight_hh[: 2 * size], self._weight_hh[2 * size :]
        bias_rz, bias_n = (
            (None, None) if self._bias_hh is None else (self._bias_hh[: 2 * size], self._bias_hh[2 * size :])
        )
        r, z = (x[..., : 2 * size] + F.linear(h, weight_rz, bias_rz)).chunk(2, -1)
        r, z = self._f(0, r), self._f(0, z)
        n = self._f(1, x[..., 2 * size :] + F.linear(r * h, weight_n, bias_n))
        return ((1 - z) * n + z * h,)


def forward(
    spec: Spec,
    weights: Sequence[Tensor],
    x: Tensor,
    state: Sequence[Tensor],
    masks: Sequence[Tensor] = (),
    lengths: Optional[Tensor] = None,
) -> tuple[Tensor, list[Tensor]]:
    """Run a network.

    Parameters
    ----------
    spec : Spec
        Its dtype is not looked at.
    weights : in the order of `Spec.weight_shapes`
    x : (T, B, I)
    state : h0, or h0 and c0, (L*D, B, size)
    masks : dropout's factors (T, B, D*O) for the output of each layer but the last one
    lengths : (B), optional

    Returns
    -------
    y : (T, B, D*O)
    state : as given
    """
    size = len(weights) // (spec.num_layers * spec.num_directions)
    last: list[State] = []
    for layer in range(spec.num_layers):
        outputs = []
        for d in range(spec.num_directions):
            part = layer * spec.num_directions + d
            cell = _Cell(spec, spec.activations[d], weights[part * size : (part + 1) * size])
            output, end = _run(cell, x, tuple(member[part] for member in state), lengths, reverse=d == 1)
            outputs.append(output)
            last.append(end)
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        if layer < len(masks):
            x = x * masks[layer]
    return x, [torch.stack(members) for members in zip(*last)]


def _run(cell: _Cell, x: Tensor, state: State, lengths: Optional[Tensor], reverse: bool) -> tuple[Tensor, State]:
    inputs = cell.input_part(x).unbind(0)
    outputs: list[Any] = [None] * len(inputs)
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        new = cell.step(inputs[t], state)
        if lengths is None:
            state, outputs[t] = new, new[0]
        else:
            runs = (t < lengths).unsqueeze(-1)
            state = tuple(torch.where(runs, after, before) for after, before in zip(new, state))
            outputs[t] = torch.where(runs, new[0], torch.zeros_like(new[0]))
    return torch.stack(outputs), state


def zero_state(spec: Spec, x: Tensor) -> list[Tensor]:
    """The initial state for x (T, B, I)."""
    sizes = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
    return [x.new_zeros((spec.num_layers * spec.num_directions, x.shape[1], size)) for size in sizes]


def gradients(
    call: Call,
    masks: Sequence[Tensor],
    inputs: Sequence[Optional[Tensor]],
    wanted: Sequence[bool],
    outputs: Sequence[Optional[Tensor]],
    create_graph: bool,
) -> list[Optional[Tensor]]:
    """The gradients by x, h0, c0 and the weights.

    Parameters
    ----------
    call, masks : of the forward pass
    inputs : x, h0, c0, weights
    wanted : of each of the inputs
    outputs : the gradients by y, hn, cn
    create_graph : whether they can be differentiated again
    """
    with torch.enable_grad():
        # By names of our own: one tensor may be several inputs, or one input made of another.
        inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        x, h0, c0, *weights = inputs
        assert x is not None
        spec = call.network.spec
        lengths = None if call.lengths is None else torch.from_numpy(call.lengths)
        sequence = call.as_time_major(x)
        state = [call.batched(member) for member in (h0, c0) if member is not None] or zero_state(spec, sequence)
        y, last = forward(spec, weights, sequence, state, masks, lengths)
        made = [call.as_given(y), *map(call.state_as_given, last)]
    pairs = [
        (output, gradient) for output, gradient in zip(made, outputs) if gradient is not None and output.requires_grad
    ]
    if not pairs:
        return [None] * len(inputs)
    by = [tensor for tensor, want in zip(inputs, wanted) if want]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            by,
            [gradient for _, gradient in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return [next(found) if want else None for want in wanted]


def layer_forward(layer: Layer, input: Any, hx: Any) -> Any:
    """A layer's call by PyTorch's operations, with the arguments, results and errors of its layers."""
    packed = isinstance(input, PackedSequence)
    x: Tensor = input.data if packed else input
    if not packed and x.dim() not in (2, 3):
        raise ValueError(f"{layer.mode}: Expected input to be 2D or 3D, got {x.dim()}D tensor instead")
    layer.check_input(x if packed or x.dim() == 3 else x.unsqueeze(1), input.batch_sizes if packed else None)
    spec = layer.network(torch.float32).spec
    lengths: Optional[Tensor] = None
    indices: tuple[Any, Any] = (None, None)
    if packed:
        x, lengths = pad_packed_sequence(PackedSequence(input.data, input.batch_sizes))
        indices = input.sorted_indices, input.unsorted_indices
    elif x.dim() == 2:
        x = x.unsqueeze(1)
    elif layer.batch_first:
        x = x.transpose(0, 1)
    if x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    unbatched = not packed and input.dim() == 2
    state = zero_state(spec, x)
    if hx is not None:
        given = [member.unsqueeze(1) if unbatched else member for member in (hx if spec.has_cell_state else (hx,))]
        for member, zeros in zip(given, state):
            if member.shape != zeros.shape:
                raise RuntimeError(f"Expected hidden size {tuple(zeros.shape)}, got {list(member.shape)}")
        state = [member if indices[0] is None else member.index_select(1, indices[0]) for member in given]
    masks = layer.dropout_masks(x, (*x.shape[:2], spec.num_directions * spec.output_size))
    y, last = forward(spec, layer.weights_now(), x, state, masks, lengths)
    if indices[1] is not None:
        last = [member.index_select(1, indices[1]) for member in last]
    if packed:
        rows = pack_padded_sequence(y, lengths).data
        y = PackedSequence(rows, input.batch_sizes, *indices)
    elif unbatched:
        y, last = y.squeeze(1), [member.squeeze(1) for member in last]
    elif layer.batch_first:
        y = y.transpose(0, 1)
    return y, tuple(last) if spec.has_cell_state else last[0]
