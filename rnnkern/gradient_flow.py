"""The gradient by every step's state, where `backward` gives that by the first one's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from .reference import CELLS
from .spec import Array

if TYPE_CHECKING:
    from .layer import Layer, Tape


def trace_gradients(layer: Layer, x: Array, state: Any, lengths: Any, dy: Optional[Array]) -> dict[str, Array]:
    """Do what `Layer.trace_gradients` says: each layer and direction by itself, a tape for each step."""
    spec = layer._spec
    inputs, initial, ends, unbatched = layer._network.check(x, state, lengths)
    padded, B = inputs.shape[:2]
    ends = np.full(B, padded) if ends is None else ends
    T = max(ends, default=0)
    inputs, active = inputs[:T], np.arange(T)[:, None] < ends
    gradients = last_outputs(layer, T, ends) if dy is None else given_outputs(layer, padded, active, dy, unbatched)

    levels: list[list[Part]] = []
    for number in range(spec.num_layers):
        parts = []
        for direction in range(spec.num_directions):
            place = number * spec.num_directions + direction
            members = None if initial is None else tuple(member[place : place + 1] for member in initial)
            parts.append(Part(alone(layer, place), inputs, members, active, reverse=direction == 1))
        inputs = np.concatenate([part.y for part in parts], axis=-1)
        levels.append(parts)
    for parts in reversed(levels):
        shares = np.split(gradients, len(parts), axis=-1)
        gradients = np.sum([part.backward(share) for part, share in zip(parts, shares)], axis=0)

    suffixes = [suffix for *_, suffix in spec.parts()]
    found = [layer._as_given(extended(part.dh, padded), unbatched) for parts in levels for part in parts]
    name = CELLS[spec.family].trace[-1]
    return {name + (suffix if len(found) > 1 else ""): dh for suffix, dh in zip(suffixes, found)}


def last_outputs(layer: Layer, T: int, ends: Array) -> Array:
    """The gradient (T, B, D*O) of a loss that is the sum of each direction's last outputs over sqrt(O)."""
    spec, steps = layer._spec, np.arange(T)[:, None]
    is_last = np.stack([steps == ends - 1, np.broadcast_to(steps == 0, (T, len(ends)))], axis=-1)
    ones = np.repeat(is_last[..., : spec.num_directions], spec.output_size, axis=-1)
    return np.asarray(ones / np.sqrt(spec.output_size), spec.dtype)


def given_outputs(layer: Layer, padded: int, active: Array, dy: Array, unbatched: bool) -> Array:
    """The user's dy of so many steps, checked, as (T, B, D*O) with zeros in the padding."""
    T, B = active.shape
    checked, _ = layer._network.check_gradients(padded, B, unbatched, True, dy, None)
    assert checked is not None
    return np.where(active[..., None], checked[:T], layer.dtype.type(0))


def extended(array: Array, steps: int) -> Array:
    """With zeros after its last step."""
    result = np.zeros((steps, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result


def alone(layer: Layer, place: int) -> Layer:
    """A copy of one layer and direction, as a network of its own."""
    spec = layer._spec
    number, direction, suffix = list(spec.parts())[place]
    one = copy.copy(layer)
    one._spec = replace(
        spec,
        input_size=spec.layer_input_size(number),
        num_layers=1,
        bidirectional=False,
        activations=spec.activations[direction : direction + 1],
    )
    one._batch_first, one._dropout = False, 0.0
    names = {name: name.removesuffix("_l0") + suffix for name in one._spec.weight_shapes()}
    one._hold({name: layer.weights.own[name_there] for name, name_there in names.items()})
    return one


class Part:
    """A network of one layer and direction, run forward step by step; ended sequences rest."""

    def __init__(
        self, layer: Layer, x: Array, state: Optional[Sequence[Array]], active: Array, *, reverse: bool
    ) -> None:
        spec = layer._spec
        T, B = active.shape
        sizes = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
        self.layer, self.x, self.active = layer, x, active
        self.order = range(T)[:: -1 if reverse else 1]
        self.y = np.zeros((T, B, spec.output_size), spec.dtype)
        self.dh = np.zeros_like(self.y)
        self.state = [np.zeros((1, B, size), spec.dtype) for size in sizes]
        for member, given in zip(self.state, state or ()):
            member[...] = given
        self.tapes: dict[int, Tape] = {}
        for t in self.order:
            rows = active[t]
            y, last, self.tapes[t] = layer.forward(x[t : t + 1, rows], self.pick(self.state, rows))
            self.y[t, rows] = y[0]
            self.put(self.state, rows, last)

    def backward(self, dy: Array) -> Array:
        """Set `dh` and return the gradient by x."""
        dx = np.zeros(self.x.shape, self.x.dtype)
        arriving = [np.zeros_like(member) for member in self.state]
        for t in reversed(self.order):
            rows = self.active[t]
            self.dh[t, rows] = dy[t, rows] + arriving[0][0, rows]
            dstate = self.pick(arriving, rows)
            grads = self.layer.backward(self.tapes.pop(t), dy[t : t + 1, rows], dstate, wrt=("x", "state"))
            assert grads.x is not None
            dx[t, rows] = grads.x[0]
            self.put(arriving, rows, grads.state)
        return dx

    def pick(self, members: Sequence[Array], rows: Array) -> Any:
        return self.layer._state_of(tuple(member[:, rows] for member in members), unbatched=False)

    @staticmethod
    def put(members: Sequence[Array], rows: Array, state: Any) -> None:
        for member, values in zip(members, state if isinstance(state, tuple) else (state,)):
            member[:, rows] = values
