"""Every cell on every back end: how the tests make a layer, its inputs, and everything that it computes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import rnnkern
from rnnkern import _core
from tolerance import assert_allowed, excess

ISAS = [name for name, can_run, _ in _core.isas() if can_run]
DTYPES = [np.float32, np.float64]
SIZES = {
    "half": lambda hidden_size: hidden_size // 2,
    "half, rounded up": lambda hidden_size: (hidden_size + 1) // 2,
    "more than twice": lambda hidden_size: 2 * hidden_size + 1,
}
CELLS: dict[str, tuple[str, dict[str, Any]]] = {  # sizes by their names
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "rnn_linear": ("RNN", {"nonlinearity": "linear"}),
    "rnn_clip": ("RNN", {"clip": 0.4}),
    "lstm": ("LSTM", {}),
    "lstm_peephole": ("LSTM", {"peephole": True}),
    "lstm_coupled_i": ("LSTM", {"coupled": "i"}),
    "lstm_coupled_f": ("LSTM", {"coupled": "f"}),
    "lstm_projected": ("LSTM", {"proj_size": "half"}),
    "lstm_all_options": ("LSTM", {"proj_size": "half", "peephole": True, "coupled": "i", "clip": 0.4}),
    "lstm_activations": ("LSTM", {"activations": (("HardSigmoid", 0.2, 0.5), "Softsign", "Elu"), "peephole": True}),
    "gru_reset_after": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "gru_clip": ("GRU", {"clip": 0.4, "reset_after": False}),
    "gru_activations": ("GRU", {"activations": ("HardSigmoid", ("ScaledTanh", 1.2, 0.8))}),
    "jordan": ("Jordan", {"output_size": "half, rounded up"}),
    "jordan_linear": ("Jordan", {"output_size": "more than twice", "output": "linear"}),
    "jordan_clip": ("Jordan", {"output_size": "half, rounded up", "clip": 0.4}),
}
KINKED = {"rnn_relu", "rnn_clip", "lstm_all_options", "lstm_activations", "gru_clip", "gru_activations", "jordan_clip"}
"""Cells whose slope jumps: a rounding error may choose the other side, which large float32 problems would meet."""


@dataclass(frozen=True)
class Case:
    """A cell and its sizes."""

    cell: str
    steps: int = 6
    batch: int = 5
    input_size: int = 9
    hidden_size: int = 13
    options: tuple[tuple[str, Any], ...] = ()
    """Further keywords of the layer."""
    lengths: bool = False
    state: bool = True
    return_sequence: bool = True
    seed: int = 0

    def with_options(self, **options) -> Case:
        return replace(self, options=(*self.options, *options.items()))

    def valid(self) -> bool:
        return self.hidden_size > 1 or "half" not in CELLS[self.cell][1].values()

    def layer(self, dtype=np.float32, **keywords):
        name, options = CELLS[self.cell]
        options = {k: SIZES[v](self.hidden_size) if v in SIZES else v for k, v in options.items()} | dict(self.options)
        kind = getattr(rnnkern, name)
        return kind(self.input_size, self.hidden_size, dtype=dtype, seed=self.seed, **options, **keywords)

    @property
    def depth(self) -> int:
        """Size of the sums of one step: inputs of the widest layer, states, gates on the way back."""
        layers = dict(self.options)
        width = self.hidden_size * (2 if layers.get("bidirectional") else 1) if layers.get("num_layers") else 0
        return max(self.input_size, width) + 4 * self.hidden_size

    @property
    def total_steps(self) -> int:
        """Longest chain of steps."""
        return max(1, self.steps) * dict(self.options).get("num_layers", 1)


@dataclass(frozen=True)
class Inputs:
    x: np.ndarray
    state: Any
    lengths: Any
    dy: np.ndarray
    dstate: Any

    def map(self, function) -> Inputs:
        """`function` of each array of numbers."""

        def of(value):
            if value is None:
                return None
            return tuple(map(function, value)) if isinstance(value, tuple) else function(value)

        return Inputs(of(self.x), of(self.state), self.lengths, of(self.dy), of(self.dstate))

    def cast(self, dtype) -> Inputs:
        return self.map(lambda array: array.astype(dtype))


def make_inputs(case: Case, layer) -> Inputs:
    """Random values, rounded to float32 so that either dtype holds them."""
    random = np.random.default_rng(case.seed + 1)
    steps, batch = case.steps, case.batch
    options = dict(case.options)
    directions = 2 if options.get("bidirectional") else 1
    output_size = layer._spec.output_size
    parts, width = directions * options.get("num_layers", 1), directions * output_size

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32).astype(layer.dtype)

    def states():
        h = normal(parts, batch, output_size)
        return (h, normal(parts, batch, case.hidden_size)) if CELLS[case.cell][0] == "LSTM" else h

    lengths = random.integers(1, steps + 1, batch) if case.lengths else None
    x, dy = normal(steps, batch, case.input_size), normal(steps, batch, width)
    if options.get("batch_first"):
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    if not case.return_sequence:
        dy = normal(batch, width)
    return Inputs(x, states() if case.state else None, lengths, dy, states())


def states_of(state) -> dict[str, np.ndarray]:
    return dict(zip(("h", "c"), state if isinstance(state, tuple) else (state,), strict=False))


def forward(layer, inputs: Inputs, return_sequence=True) -> dict[str, np.ndarray]:
    """Everything that a call returns, by name."""
    y, state = layer(inputs.x, inputs.state, lengths=inputs.lengths, return_sequence=return_sequence)
    return {"y": y, **states_of(state)}


def forward_backward(layer, inputs: Inputs, return_sequence=True, recompute=False) -> dict[str, np.ndarray]:
    """Everything that `forward` and `backward` return, by name."""
    y, state, tape = layer.forward(
        inputs.x, inputs.state, lengths=inputs.lengths, recompute=recompute, return_sequence=return_sequence
    )
    grads = layer.backward(tape, inputs.dy, inputs.dstate)
    dstate = {"d" + name: array for name, array in states_of(grads.state).items()}
    return {"y": y, **states_of(state), "dx": grads.x, **dstate, **{"d" + k: v for k, v in grads.weights.items()}}


def excesses(actual, expected, case: Case) -> dict[str, float]:
    """`excess` of each result by name; gradients of weights are sums over all steps of all sequences besides."""
    assert actual.keys() == expected.keys()
    # What arrives at x and at the states is made of the same gradients of gates: one scale, because a small result may
    # be a difference of large ones.
    arriving = [name for name in ("dx", "dh", "dc") if name in expected]
    shared = max((finite_maximum(expected[name]) for name in arriving), default=0.0)

    def of(name):
        sums = case.steps * case.batch if "weight" in name or "bias" in name else 0
        scale = shared if name in arriving else None
        return excess(actual[name], expected[name], case.depth + sums, case.total_steps, scale=scale)

    return {name: of(name) for name in actual}


def assert_all_close(actual, expected, case: Case):
    for name, worst in excesses(actual, expected, case).items():
        assert_allowed(worst, name)


def explained(expected: str, layer, steps: int, batch: int, lengths=None) -> str:
    """What `rnnkern.explain` says: with the words that are expected, or still without them after some seconds.

    It goes by what a team last measured of its barrier, which may have been disturbed: calls measure it again, for
    which a team is tried once a second.
    """
    x = np.zeros((steps, batch, layer.input_size), layer.dtype)
    for _ in range(50):
        if expected in (text := rnnkern.explain(layer, steps, batch, lengths)):
            break
        time.sleep(0.1)
        end = time.perf_counter() + 0.01  # short calls get their team when they have kept coming for a while
        while time.perf_counter() < end:
            layer(x, lengths=lengths)
    return text


def finite_maximum(array) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def assert_same_bits(actual, expected, name="result"):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype, name
    assert actual.shape == expected.shape, name
    bits = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(bits) == np.ascontiguousarray(expected).view(bits)
    assert same.all(), f"{name}: {same.size - same.sum()} of {same.size} values differ"


def assert_all_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        assert_same_bits(array, expected[name], name)
