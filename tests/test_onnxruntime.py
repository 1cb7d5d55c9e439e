"""The cells that PyTorch lacks (peepholes, coupled gates, reset before, clip, activations) against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from test_reference import PARAMETERS, Problem, make_spec

from rnnkern.spec import GATES
from tolerance import assert_close

pytest.importorskip("onnx", reason="the oracle of this test is onnxruntime, which needs onnx")
pytest.importorskip("onnxruntime", reason="the oracle of this test is onnxruntime")
from onnx.reference import ReferenceEvaluator
from onnx_models import recurrent_model, run_onnxruntime

import rnnkern.onnx

ONNX_GATES = {"rnn": "h", "lstm": "iofg", "gru_reset_after": "zrn", "gru_reset_before": "zrn"}
WITH_BETA = {"Affine", "HardSigmoid", "ScaledTanh"}  # ONNX lists parameters of the functions that have them only
STEPS, BATCH, INPUT, HIDDEN = 7, 4, 5, 6
CASES = [
    ("rnn", {}),
    ("rnn", {"activations": ("Softsign",), "clip": 0.5}),
    ("rnn", {"activations": ("ScaledTanh",)}),
    ("lstm", {}),
    ("lstm", {"peephole": True}),
    ("lstm", {"peephole": True, "clip": 0.5}),
    ("lstm", {"coupled": "f"}),
    ("lstm", {"activations": ("HardSigmoid", "Softplus", "Elu")}),
    ("lstm", {"activations": ("Sigmoid", "LeakyRelu", "Affine")}),
    ("gru_reset_after", {}),
    ("gru_reset_after", {"clip": 0.5}),
    ("gru_reset_before", {}),
    ("gru_reset_before", {"clip": 0.5}),
    ("gru_reset_before", {"activations": ("HardSigmoid", "Relu")}),
]


def run(problem, feed):
    """Outputs of one recurrent node with the problem's weights in ONNX's order of the gates."""
    spec = problem.spec
    order = [GATES[spec.family].index(gate) for gate in ONNX_GATES[spec.family]]
    suffixes = [suffix for *_, suffix in spec.parts()]

    def stack(name):
        gates = (problem.weights[name + suffix].reshape(spec.num_gates, HIDDEN, -1)[order] for suffix in suffixes)
        return np.stack([np.concatenate(gate) for gate in gates]).astype(np.float32)

    biases = np.concatenate([stack("bias_ih")[..., 0], stack("bias_hh")[..., 0]], axis=1)
    weights = {"W": stack("weight_ih"), "R": stack("weight_hh"), "B": biases}
    if spec.peephole:  # stored i, f, o, and ONNX has i, o, f
        peepholes = np.stack([problem.weights["weight_peephole" + suffix] for suffix in suffixes])
        weights["P"] = peepholes[:, [0, 2, 1]].reshape(len(suffixes), -1).astype(np.float32)
    activations = [one for direction in spec.activations[: spec.num_directions] for one in direction]
    attributes = {
        "hidden_size": HIDDEN,
        "direction": "bidirectional" if spec.bidirectional else "forward",
        "activations": [name for name, _, _ in activations],
        "activation_alpha": [alpha for name, alpha, _ in activations if name in PARAMETERS],
        "activation_beta": [beta for name, _, beta in activations if name in WITH_BETA],
    }
    if spec.clip is not None:
        attributes["clip"] = spec.clip
    if spec.family.startswith("gru"):
        attributes["linear_before_reset"] = int(spec.family == "gru_reset_after")
    if spec.coupled:
        attributes["input_forget"] = 1
    kind = spec.family.split("_")[0].upper()
    attributes = {name: value for name, value in attributes.items() if value != []}
    return run_onnxruntime(*recurrent_model(kind, feed | weights, **attributes))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def clipped_by_hand(kind, clip, x, h, c, peepholes, after):
    """The last states of one unit whose weights are those of `test_clip`."""

    def bounded(value):
        return min(max(value, -clip), clip)

    if kind == "RNN":
        return (np.tanh(bounded(3 * x - h + 2)),)
    if kind == "GRU":
        z, r = sigmoid(bounded(0.2 * x + 0.3 * h + 0.1)), sigmoid(bounded(-0.1 * x + 0.4 * h + 0.2))
        n = np.tanh(bounded(1.5 * x + 0.3 + (r * (2 * h + 3) if after else 2 * r * h + 3)))
        return ((1 - z) * n + z * h,)
    p_i, p_o, p_f = peepholes
    i, f, g = sigmoid(bounded(0.3 + p_i * c)), sigmoid(bounded(0.5 + p_f * c)), np.tanh(bounded(3.0))
    c = f * c + i * g
    return sigmoid(bounded(0.2 + p_o * c)) * np.tanh(c), c  # c itself is not bounded


@pytest.mark.parametrize("clip", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    ("kind", "after", "peepholes"),
    [("RNN", 0, None), ("GRU", 0, None), ("GRU", 1, None), ("LSTM", 0, (0, 0, 0)), ("LSTM", 0, (0.1, -0.3, 0.2))],
)
def test_clip(kind, after, peepholes, clip):
    """Of the pre-activations of gates and candidates; of the cell state, which h reads, neither onnxruntime nor we."""
    weights = {
        "RNN": {"W": [[3]], "R": [[-1]], "B": [1, 1]},
        "GRU": {"W": [[0.2], [-0.1], [1.5]], "R": [[0.3], [0.4], [2]], "B": [0.1, 0.2, 0.3, 0, 0, 3]},
        "LSTM": {"W": [[0]] * 4, "R": [[0]] * 4, "B": [0.3, 0.2, 0.5, 3, 0, 0, 0, 0]},
    }[kind]
    feed = {"X": [[[1]]], "initial_h": [[[2]]], **{name: [array] for name, array in weights.items()}}
    if kind == "LSTM":
        feed |= {"initial_c": [[[5]]], "P": [peepholes]}
    attributes = {"hidden_size": 1, "clip": clip} | ({"linear_before_reset": after} if kind == "GRU" else {})
    model, inputs = recurrent_model(kind, {key: np.asarray(a, np.float32) for key, a in feed.items()}, **attributes)
    expected = clipped_by_hand(kind, clip, 1, 2, 5, peepholes, after)
    ours = ReferenceEvaluator(model, new_ops=rnnkern.onnx.new_ops).run(None, inputs)
    x, *state = (inputs[name][0] for name in ("X", "initial_h", "initial_c") if name in inputs)
    state = tuple(member[None] for member in state)
    for frozen in (False, True):
        layer = rnnkern.onnx.load(model, frozen=frozen)
        _, last = layer(x[None], state if kind == "LSTM" else state[0])
        for states in (ours[1:], run_onnxruntime(model, inputs)[1:], last if kind == "LSTM" else (last,)):
            for actual, value in zip(states, expected, strict=True):
                assert_close(actual, np.full((1, 1, 1), value), 4)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("family", "options"), CASES)
def test_onnxruntime(family, options, bidirectional):
    spec = make_spec(family, INPUT, HIDDEN, bidirectional=bidirectional, **options)
    lengths = np.array([3, 7, 1, 5])
    problem = Problem(spec, STEPS, BATCH, lengths)
    for name, weight in problem.weights.items():  # values that float32 holds, and that don't explode
        problem.weights[name] = (weight / 2).astype(np.float32).astype(np.float64)
    problem.x, *states = (array.astype(np.float32).astype(np.float64) for array in (problem.x, *problem.state))
    problem.state = tuple(states)
    y, state, _ = problem.forward()
    feed = {"X": problem.x, **dict(zip(("initial_h", "initial_c"), problem.state, strict=False))}
    feed = {name: array.astype(np.float32) for name, array in feed.items()}
    theirs, *last = run(problem, feed | {"sequence_lens": lengths.astype(np.int32)})
    theirs = theirs.transpose(0, 2, 1, 3).reshape(y.shape)
    for actual, expected in zip((theirs, *last), (y, *state), strict=True):
        assert_close(actual, expected, INPUT + HIDDEN, STEPS)
