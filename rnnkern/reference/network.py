"""Layers, directions, sequences of different lengths and back-propagation through time, for any cell.

Sequences in a batch run side by side. At step s a direction works on the `rows` that are longer than s, each at its own
`times`: s forwards, length - 1 - s backwards. So padding is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..spec import Array, Family, Spec, of_each_cell
from .cell import Cell, Saved, State
from .gru_reset_after import GRUResetAfter
from .gru_reset_before import GRUResetBefore
from .jordan import Jordan
from .lstm import LSTM
from .rnn import RNN

CELLS: dict[Family, type[Cell]] = of_each_cell(
    {
        "rnn": RNN,
        "lstm": LSTM,
        "gru_reset_after": GRUResetAfter,
        "gru_reset_before": GRUResetBefore,
        "jordan": Jordan,
    }
)
"""The cells by the name of their family."""


class Step(NamedTuple):
    times: Array
    rows: Array
    saved: Saved


@dataclass
class Tape:
    """What `forward` keeps for `backward`; it belongs to one call."""

    spec: Spec
    x: Array
    masks: Sequence[Array] | None
    steps: dict[str, list[Step]] = field(default_factory=dict)
    """By suffix of the weights' names: what each step kept, in the order of computation."""

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for steps in self.steps.values() for step in steps for array in step.saved.values())

    @property
    def gates(self) -> dict[str, dict[str, Array]]:
        """By suffix and name (of `Cell.trace`): values by step (T, B, H), zero in padding."""
        names = CELLS[self.spec.family].trace
        return {suffix: {name: self._gather(steps, name) for name in names} for suffix, steps in self.steps.items()}

    def _gather(self, steps: list[Step], name: str) -> Array:
        is_output = name == CELLS[self.spec.family].trace[-1]
        width = self.spec.output_size if is_output else self.spec.hidden_size
        values = np.zeros((*self.x.shape[:2], width), self.x.dtype)
        for step in steps:
            values[step.times, step.rows] = step.saved[name]
        return values


@np.errstate(all="ignore")
def forward(
    spec: Spec,
    weights: Mapping[str, Array],
    x: Array,
    state: State | None = None,
    lengths: Array | None = None,
    masks: Sequence[Array] | None = None,
) -> tuple[Array, State, Tape]:
    """All layers over all steps.

    Parameters
    ----------
    spec
        The options of the network.
    weights
        By PyTorch's names; shapes as `Spec.weight_shapes`. Everything has one dtype, which is the one of the results.
    x
        (T, B, I).
    state
        (h,) or (h, c) of shapes (L*D, B, O) and (L*D, B, H); zeros if None.
    lengths
        (B) integers, in any order; T if None.
    masks
        Dropout's factors: L - 1 arrays (T, B, D*O), each multiplied onto the output of the layer below.

    Returns
    -------
    y
        (T, B, D*O), zero after each length.
    state
        Each sequence's own last state, in the shapes of `state`.
    tape
        For `backward`.
    """
    tape = Tape(spec, x, masks)
    last = zero_state(spec, x) if state is None else tuple(array.copy() for array in state)
    outputs: list[Array] = []
    for part, (layer, direction, suffix) in enumerate(spec.parts()):
        if direction == 0:
            inputs = x if layer == 0 else np.concatenate(outputs[-spec.num_directions :], axis=2)
            if layer > 0 and masks is not None:
                inputs = inputs * masks[layer - 1]
        cell = make_cell(spec, weights, direction, suffix)
        y = np.zeros((*x.shape[:2], spec.output_size), x.dtype)
        steps = tape.steps[suffix] = []
        for times, rows in schedule(x, lengths, direction):
            new, saved = cell.forward(inputs[times, rows], tuple(array[part, rows] for array in last))
            y[times, rows] = new[0]
            for array, value in zip(last, new):
                array[part, rows] = value
            steps.append(Step(times, rows, saved))
        outputs.append(y)
    return np.concatenate(outputs[-spec.num_directions :], axis=2), last, tape


@np.errstate(all="ignore")
def backward(
    spec: Spec,
    weights: Mapping[str, Array],
    tape: Tape,
    dy: Array | None = None,
    dstate: State | None = None,
) -> tuple[Array, State, dict[str, Array]]:
    """Back-propagation through time (Werbos 1990) of one call of `forward`.

    Parameters
    ----------
    spec, weights
        As in `forward`.
    tape
        What `forward` returned; it stays usable.
    dy
        (T, B, D*O), the gradient by y; zeros if None. What it holds in padding is ignored.
    dstate
        The gradient by the last state, in its shapes; zeros if None.

    Returns
    -------
    dx
        (T, B, I), zero after each length.
    dstate
        The gradient by the initial state.
    dweights
        The gradient by each weight, by name.
    """
    x, width = tape.x, spec.output_size
    dlast = zero_state(spec, x) if dstate is None else tuple(array.copy() for array in dstate)
    dout = np.zeros((*x.shape[:2], spec.num_directions * width), x.dtype) if dy is None else dy
    din = dout
    dweights: dict[str, Array] = {}
    for part, (layer, direction, suffix) in reversed(list(enumerate(spec.parts()))):
        if direction == spec.num_directions - 1:
            if layer < spec.num_layers - 1:
                dout = din if tape.masks is None else din * tape.masks[layer]
            din = np.zeros((*x.shape[:2], spec.layer_input_size(layer)), x.dtype)
        cell = make_cell(spec, weights, direction, suffix)
        for times, rows, saved in reversed(tape.steps[suffix]):
            dh, *others = (array[part, rows] for array in dlast)
            dh = dh + dout[times, rows, direction * width : (direction + 1) * width]
            dinput, dprevious = cell.backward(saved, (dh, *others))
            din[times, rows] += dinput
            for array, value in zip(dlast, dprevious):
                array[part, rows] = value
        dweights.update({name + suffix: gradient for name, gradient in cell.gradients.items()})
    return din, dlast, {name: dweights[name] for name in spec.weight_shapes()}


def make_cell(spec: Spec, weights: Mapping[str, Array], direction: int, suffix: str) -> Cell:
    own = {name[: -len(suffix)]: weights[name] for name in spec.weight_shapes() if name.endswith(suffix)}
    return CELLS[spec.family](spec, spec.activations[direction], own)


def zero_state(spec: Spec, x: Array) -> State:
    parts, batch = spec.num_layers * spec.num_directions, x.shape[1]
    widths = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
    return tuple(np.zeros((parts, batch, width), x.dtype) for width in widths)


def schedule(x: Array, lengths: Array | None, direction: int) -> Iterator[tuple[Array, Array]]:
    """For each step of a direction the times and the rows that it works on."""
    steps, batch = x.shape[:2]
    ends = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    for step in range(max(ends, default=0)):
        rows = np.flatnonzero(ends > step)
        yield ends[rows] - 1 - step if direction else np.full_like(rows, step), rows
