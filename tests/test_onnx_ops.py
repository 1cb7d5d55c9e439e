"""`rnnkern.onnx.new_ops` in the reference evaluator: the standard's own tests, and onnxruntime."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="rnnkern.onnx needs onnx")
from onnx.backend.base import Backend, BackendRep  # noqa: E402
from onnx.backend.test import BackendTest  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import CALLED_WITH, OUTPUTS, make_model, make_node, recurrent_model, run_onnxruntime  # noqa: E402

import rnnkern.onnx  # noqa: E402
from rnnkern.onnx import new_ops  # noqa: E402
from tolerance import assert_close, excess  # noqa: E402

quick = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
WITH_ALPHA = ("Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu")
WITH_BETA = ("Affine", "HardSigmoid", "ScaledTanh")
WITHOUT = ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")
NOT_THE_STANDARDS_DEFAULTS = ("Affine", "ScaledTanh", "ThresholdedRelu")
"""onnxruntime takes 0 for an alpha or beta of these that isn't given."""


def evaluate(model, feeds):
    session = ReferenceEvaluator(model, new_ops=new_ops)
    nodes = [node for node in session.rt_nodes_ if node.op_type in GATES]
    assert nodes
    assert all(type(node) in new_ops for node in nodes)
    return session.run(None, feeds)


# The tests of the standard


class Evaluator(Backend):
    class Prepared(BackendRep):
        def __init__(self, model):
            self.model = model

        def run(self, inputs, **_):
            return evaluate(self.model, dict(zip((i.name for i in self.model.graph.input), inputs, strict=True)))

    @classmethod
    def prepare(cls, model, device="CPU", **_):
        onnx.checker.check_model(model)
        return cls.Prepared(model)


NODE_TESTS = re.compile(r"test_(lstm|gru|rnn|simple_rnn)_.*_cpu")
with warnings.catch_warnings():  # from making the data of other operators' tests
    warnings.simplefilter("ignore")
    STANDARD = BackendTest(Evaluator, __name__).include(NODE_TESTS.pattern).test_cases["OnnxBackendNodeModelTest"]
STANDARD.__test__ = False  # all operators' tests, which pytest would collect
NAMES = [name for name in dir(STANDARD) if NODE_TESTS.fullmatch(name)]


@pytest.mark.parametrize("name", NAMES)
def test_of_the_standard(name):
    getattr(STANDARD(name), name)()


def test_all_of_the_standards_are_there():
    assert len(NAMES) >= 18


# All attributes at random


@dataclass
class Case:
    kind: str
    arrays: dict
    attributes: dict
    outputs: list

    def cast(self, dtype):
        return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in self.arrays.items()}


@st.composite
def functions(draw, kind, directions):
    """The attributes activations, activation_alpha, activation_beta; lists that end early where defaults agree."""
    names = [draw(st.sampled_from(WITH_ALPHA + WITHOUT)) for _ in range(FUNCTIONS[kind] * directions)]
    attributes = {"activations": names}
    for attribute, takers in (("activation_alpha", WITH_ALPHA), ("activation_beta", WITH_BETA)):
        count = sum(name in takers for name in names)
        if not set(names) & set(NOT_THE_STANDARDS_DEFAULTS):
            count = draw(st.integers(0, count))
        if count:
            attributes[attribute] = [draw(st.floats(-1.25, 1.25, width=16)) for _ in range(count)]
    return attributes


@st.composite
def cases(draw, shortest=0):
    kind = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    D, T, B = 2 if direction == "bidirectional" else 1, draw(st.integers(1, 7)), draw(st.integers(1, 5))
    I, H, G = draw(st.integers(1, 20)), draw(st.integers(1, 20)), GATES[kind]  # noqa: E741
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H)}
    possible = {"B": (D, 2 * G * H), "initial_h": (D, B, H)}
    if kind == "LSTM":
        possible |= {"initial_c": (D, B, H), "P": (D, 3 * H)}
    shapes |= {name: shape for name, shape in possible.items() if draw(st.booleans())}
    arrays = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    for name in arrays.keys() & {"W", "R", "B", "P"}:
        arrays[name] *= 0.5
    if draw(st.booleans()):
        arrays["sequence_lens"] = random.integers(shortest, T, B, np.int32, endpoint=True)
    attributes = {"hidden_size": H}
    if direction != "forward" or draw(st.booleans()):
        attributes["direction"] = direction
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.25, 1.0, 3.0]))
    if draw(st.booleans()):
        attributes |= draw(functions(kind, D))
    switch = {"GRU": "linear_before_reset", "LSTM": "input_forget"}.get(kind)
    if switch and draw(st.booleans()):
        attributes[switch] = 1
    outputs = [name if draw(st.booleans()) else "" for name in OUTPUTS[: 3 if kind == "LSTM" else 2]]
    assume(any(outputs))
    return Case(kind, arrays, attributes, outputs)


@quick
@given(case=cases())
def test_onnxruntime(case):
    """Both types; a problem that float32 can't tell from its neighbours is left out."""
    pytest.importorskip("onnxruntime", reason="the oracle of this test is onnxruntime")
    ours = {}
    for dtype in (np.float32, np.float64):
        model, feeds = recurrent_model(case.kind, case.cast(dtype), case.outputs, **case.attributes)
        ours[dtype] = evaluate(model, feeds)
        assert {array.dtype.type for array in ours[dtype]} == {dtype}
    T, _, I = case.arrays["X"].shape  # noqa: E741
    depth = I + case.attributes["hidden_size"]
    assume(all(excess(a, b, depth, T) <= 1 / 4 for a, b in zip(ours[np.float32], ours[np.float64])))
    theirs = run_onnxruntime(*recurrent_model(case.kind, case.arrays, case.outputs, **case.attributes))
    for name, a, b in zip(filter(None, case.outputs), theirs, ours[np.float64], strict=True):
        scale = max(1.0, np.abs(b).max())  # the terms of a sum are of order 1, however small it is itself
        assert_close(a, b, depth, T, scale=scale, name=name)


def turned(array, name):
    """An input or output of layout 0 in layout 1."""
    axes = {"X": (1, 0, 2), "Y": (2, 0, 1, 3)}
    axes |= dict.fromkeys(("initial_h", "initial_c", "Y_h", "Y_c"), (1, 0, 2))
    return array.transpose(axes[name]) if name in axes else array


@quick
@given(case=cases())
def test_layout(case):
    expected = evaluate(*recurrent_model(case.kind, case.arrays, case.outputs, **case.attributes))
    arrays = {name: np.ascontiguousarray(turned(array, name)) for name, array in case.arrays.items()}
    results = evaluate(*recurrent_model(case.kind, arrays, case.outputs, **case.attributes, layout=1))
    for name, a, b in zip(filter(None, case.outputs), results, expected, strict=True):
        np.testing.assert_array_equal(a, turned(b, name))


@quick
@given(case=cases(shortest=1), frozen=st.booleans(), layout=st.integers(0, 1))
def test_load(case, frozen, layout):
    """The layer of the node gives the bits of the node."""
    arrays = {n: np.ascontiguousarray(turned(a, n)) if layout else a for n, a in case.arrays.items()}
    model, feeds = recurrent_model(case.kind, arrays, **case.attributes, layout=layout)
    Y, *expected = evaluate(model, feeds)
    layer = rnnkern.onnx.load(model, frozen=frozen)
    if case.attributes.get("direction") == "reverse":
        assert isinstance(layer, rnnkern.onnx.Reversed)
        assert "Reversed" in repr(layer)
        assert isinstance(layer.layer, rnnkern.FrozenLayer if frozen else getattr(rnnkern, case.kind))
    else:
        assert isinstance(layer, rnnkern.FrozenLayer if frozen else getattr(rnnkern, case.kind))
    states = ("initial_h", "initial_c")[: len(expected)]
    zeros = np.zeros_like(turned(expected[0], "Y_h") if layout else expected[0])
    state = tuple(case.arrays.get(name, zeros) for name in states)
    lengths = case.arrays.get("sequence_lens")
    y, last = layer(arrays["X"], state if len(state) == 2 else state[0], lengths=lengths)
    np.testing.assert_array_equal(y, (Y if layout else Y.swapaxes(1, 2)).reshape(y.shape))
    for a, b in zip(last if isinstance(last, tuple) else (last,), expected, strict=True):
        np.testing.assert_array_equal(a, turned(b, "Y_h") if layout else b)
    ends, _ = layer(arrays["X"], state if len(state) == 2 else state[0], lengths=lengths, return_sequence=False)
    h = turned(expected[0], "Y_h") if layout else expected[0]
    np.testing.assert_array_equal(ends, np.concatenate(list(h), axis=-1))


# What random cases don't reach


def small(kind, T=3, B=2, H=4, I=3, D=1, seed=0, **more):  # noqa: E741
    random = np.random.default_rng(seed)
    rows = GATES[kind] * H
    shapes = {"X": (T, B, I), "W": (D, rows, I), "R": (D, rows, H), "B": (D, 2 * rows)}
    arrays = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    return arrays | more


@pytest.mark.parametrize("kind", sorted(GATES))
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("T", "B"), [(0, 2), (2, 0), (0, 0)])
def test_nothing_to_do(kind, layout, direction, T, B):
    """Without steps the last states are zeros, whatever the initial ones, as for a sequence of length 0."""
    D = 2 if direction == "bidirectional" else 1
    arrays = small(kind, T, B, D=D, initial_h=np.ones((D, B, 4), np.float32))
    if layout:
        arrays = {name: turned(array, name) for name, array in arrays.items()}
    for lengths in ({}, {"sequence_lens": np.full(B, T, np.int32)}):
        model, feeds = recurrent_model(kind, arrays | lengths, hidden_size=4, layout=layout, direction=direction)
        Y, *states = evaluate(model, feeds)
        assert Y.shape == ((B, T, D, 4) if layout else (T, D, B, 4))
        for state in states:
            assert state.shape == ((B, D, 4) if layout else (D, B, 4))
            assert T or not state.any()


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types(half):
    """Computed in float32 and rounded once."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, half.upper()))
    arrays = {name: array.astype(dtype) for name, array in small("LSTM").items()}
    results = evaluate(*recurrent_model("LSTM", arrays, hidden_size=4))
    wide = {name: array.astype(np.float32) for name, array in arrays.items()}
    for a, b in zip(results, evaluate(*recurrent_model("LSTM", wide, hidden_size=4)), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b.astype(dtype))


@pytest.mark.parametrize("name", NOT_THE_STANDARDS_DEFAULTS)
def test_default_parameters(name):
    """Those of the operators of the same names, where onnxruntime has others."""
    explicit = {"activation_alpha": [1.0]} | ({} if name == "ThresholdedRelu" else {"activation_beta": [1.0]})
    if name == "Affine":
        explicit["activation_beta"] = [0.0]
    arrays = small("RNN")
    defaults, given_ = (
        evaluate(*recurrent_model("RNN", arrays, hidden_size=4, activations=[name], **attributes))
        for attributes in ({}, explicit)
    )
    np.testing.assert_array_equal(defaults[0], given_[0])


def test_default_of_the_activations():
    """The standard's default for RNN lists two functions, also for one direction."""
    arrays = small("RNN")
    plain, named = (
        evaluate(*recurrent_model("RNN", arrays, hidden_size=4, **attributes))
        for attributes in ({}, {"activations": ["Tanh", "Tanh"]})
    )
    np.testing.assert_array_equal(plain[0], named[0])


def test_an_output_without_a_name_is_not_an_input():
    """Its name is also that of the inputs that aren't there, here sequence_lens."""
    arrays = small("GRU", I=4, initial_h=np.ones((1, 2, 4), np.float32))
    chain = [make_node("GRU", arrays, ["", "first"], hidden_size=4), make_node("GRU", arrays, hidden_size=4)]
    chain[1].input[0] = "first"
    assert chain[1].input[4] == ""
    feeds = {"X": arrays["X"], "initial_h": arrays["initial_h"]}
    weights = {name: array for name, array in arrays.items() if name not in CALLED_WITH}
    results = evaluate(make_model(chain, feeds, ["Y_h"], weights), feeds)
    first = evaluate(*recurrent_model("GRU", arrays, hidden_size=4))[1]
    expected = evaluate(*recurrent_model("GRU", arrays | {"X": first}, hidden_size=4))[1]
    np.testing.assert_array_equal(results[0], expected)


@pytest.mark.parametrize("change", ["in place", "another array"])
def test_weights_that_change(change):
    """Weights that are fed are not those of the call before."""
    arrays = small("LSTM")
    weights = ("W", "R", "B")
    model = make_model([make_node("LSTM", arrays, hidden_size=4)], arrays, OUTPUTS, {})
    session = ReferenceEvaluator(model, new_ops=new_ops)
    before = session.run(None, arrays)[0]
    np.testing.assert_array_equal(session.run(None, arrays)[0], before)
    for name in weights:
        if change == "in place":
            arrays[name] *= 0.5
        else:
            arrays[name] = arrays[name] * np.float32(0.5)
        after = session.run(None, arrays)[0]
        assert not np.array_equal(after, before)
        np.testing.assert_array_equal(after, ReferenceEvaluator(model, new_ops=new_ops).run(None, arrays)[0])
        before = after


def test_constant_weights_are_packed_once(monkeypatch):
    calls = []
    make = rnnkern.onnx.ops.make_layer
    monkeypatch.setattr(rnnkern.onnx.ops, "make_layer", lambda *a, **k: calls.append(a) or make(*a, **k))
    model, feeds = recurrent_model("GRU", small("GRU"), hidden_size=4)
    session = ReferenceEvaluator(model, new_ops=new_ops)
    for _ in range(3):
        session.run(None, feeds)
    assert len(calls) == 1


# What is wrong, by the standard's names


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


SHAPES = {  # of small("LSTM"), with initial states, peepholes and sequence_lens
    "X": (3, 2, 3), "W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32), "sequence_lens": (2,), "initial_h": (1, 2, 4),
    "initial_c": (1, 2, 4), "P": (1, 12),
}  # fmt: skip


def everything():
    arrays = {name: zeros(*shape) for name, shape in SHAPES.items()}
    return arrays | {"sequence_lens": np.array([3, 1], np.int32)}


def refused(error, message, arrays, kind="LSTM", **attributes):
    """All inputs are fed, as they are: what an exporter couldn't write, too."""
    node = make_node(kind, arrays, **({"hidden_size": 4} | attributes))
    feeds = {name: array for name, array in arrays.items() if name in node.input}
    session = ReferenceEvaluator(make_model([node], {}, filter(None, node.output), {}), new_ops=new_ops)
    with pytest.raises(error, match=f"^{message}"):
        session.run(None, feeds)


def other_shapes(name):
    """Another rank; and at each axis one more, and nothing."""
    shape = SHAPES[name]
    yield from ((), shape[:-1], (1, *shape))
    for axis in range(len(shape)):
        for size in (shape[axis] + 1, 0):
            yield (*shape[:axis], size, *shape[axis + 1 :])


FREE = {("X", 0), ("X", 1), ("W", 2)}
"""Sizes that make another input wrong, or none."""


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_wrong_shapes(name, layout):
    correct = everything()
    if layout:
        correct = {name: turned(array, name) for name, array in correct.items()}
    for shape in other_shapes(name):
        changed = [
            axis for axis in range(len(shape)) if len(shape) == len(SHAPES[name]) and shape[axis] != SHAPES[name][axis]
        ]
        if changed and (name, changed[0]) in FREE:
            continue
        array = zeros(*shape, dtype=correct[name].dtype)
        if layout and array.ndim == len(SHAPES[name]):
            array = turned(array, name)
        refused(ValueError, rf"{name}: expected (shape|\d dimensions)", correct | {name: array}, layout=layout)
    refused(
        ValueError,
        "(X|sequence_lens): expected shape",
        correct | {"X": zeros(2, 3, 4) if layout else zeros(3, 2, 4)},
        layout=layout,
    )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "value",
    [
        [zeros(3, 2, 3)], [], [[1.0]], "X", 3, 3.5, np.str_("a"), np.array(["a"]), np.array([b"a"]), np.array([None]),
        *[zeros(2, dtype=dtype) for dtype in (complex, bool, "M8[s]", [("a", "f4")], object)],
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)  # fmt: skip
def test_wrong_kinds(name, value):
    refused(TypeError, f"{name}: expected ", everything() | {name: value})


@pytest.mark.parametrize("name", SHAPES)
def test_a_mask_is_not_lost(name):
    right = everything()
    refused(TypeError, f"{name}: expected .*[mM]asked", right | {name: np.ma.masked_array(right[name], mask=True)})


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "sequence_lens"])
@pytest.mark.parametrize("dtype", [np.complex64, np.int32, np.float64, np.float16, np.longdouble, "S4", "U4", bool])
def test_wrong_types(name, dtype):
    """All have the type of W."""
    wrong = zeros(*SHAPES[name], dtype=dtype)
    refused(TypeError, "[XRBP]: expected|W: expected|initial_[hc]: expected", everything() | {name: wrong})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, complex])
def test_lengths_that_are_no_integers(dtype):
    refused(
        TypeError, "sequence_lens: expected a tensor of integers", everything() | {"sequence_lens": np.ones(2, dtype)}
    )
    refused(TypeError, "sequence_lens", everything() | {"sequence_lens": np.array([np.nan, 1])})


@pytest.mark.parametrize("lengths", [[4, 1], [-1, 0], [0, 2**31 - 1], [-(2**31), 1], [2**63 - 1, 1]])
def test_lengths_that_are_too_long_or_negative(lengths):
    arrays = everything() | {"sequence_lens": np.array(lengths)}
    refused(ValueError, r"sequence_lens: expected integers in 0\.\.3", arrays)


@pytest.mark.parametrize("name", ["X", "W", "R"])
def test_missing_inputs(name):
    refused(
        ValueError,
        f"{name}: expected a tensor, the node has no such input",
        {n: a for n, a in everything().items() if n != name},
    )


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
@pytest.mark.parametrize("name", ["initial_c", "P"])
def test_inputs_of_an_lstm_only(kind, name):
    arrays = small(kind) | {name: everything()[name]}
    inputs = [n if n in arrays else "" for n in SHAPES]
    model = make_model([onnx.helper.make_node(kind, inputs, ["Y"], hidden_size=4)], {}, ["Y"], {})
    with pytest.raises(ValueError, match=f"{name}: {kind} has no such input"):
        ReferenceEvaluator(model, new_ops=new_ops).run(None, arrays)


NAN = float("nan")
USUAL = ["Sigmoid", "Tanh", "Tanh"]
WRONG_ATTRIBUTES = [
    ("direction", ValueError, ["backward", "Forward", ""]),
    ("direction", TypeError, [3, 1.0, ["forward"]]),
    ("hidden_size", ValueError, [0, -4, 2**40]),
    ("hidden_size", TypeError, [4.0, "4", [4]]),
    ("layout", ValueError, [7, 2, -1]),
    ("layout", TypeError, [1.0, "1", [1]]),
    ("clip", ValueError, [-1.0, NAN, -float("inf"), -1e-30]),
    ("clip", TypeError, ["1", [1.0]]),
    ("activations", ValueError, [["Sigmoid", "Tanh", "Sine"], USUAL[:2], USUAL * 2, [""] * 3]),
    ("activations", TypeError, ["Tanh", [1, 2, 3], [0.5] * 3, 3]),
    ("activation_alpha", ValueError, [[1.0] * 4, [NAN], [float("inf")]]),
    ("activation_alpha", TypeError, [0.5, ["a"], "a"]),
    ("activation_beta", ValueError, [[1.0] * 4, [NAN]]),
    ("activation_beta", TypeError, [0.5, ["a"]]),
    ("input_forget", TypeError, [1.0, "1", [1]]),
    ("colour", ValueError, [3]),
    ("linear_before_reset", ValueError, [1]),
]


@pytest.mark.parametrize(
    ("name", "error", "value"), [(name, error, value) for name, error, values in WRONG_ATTRIBUTES for value in values]
)
def test_wrong_attributes(name, error, value):
    """In the operator, and as a ValueError of the model when it is loaded."""
    refused(error, f"{name}: ", everything(), **{name: value})
    with pytest.raises(ValueError, match=f"^{name}: "):
        rnnkern.onnx.load(recurrent_model("LSTM", everything(), **({"hidden_size": 4} | {name: value}))[0])


def test_another_hidden_size():
    refused(ValueError, "W: expected shape", everything(), hidden_size=5)


@pytest.mark.parametrize("kind", sorted(GATES))
def test_an_own_attribute_that_is_not_0(kind):
    """Is 1, as for onnxruntime."""
    name = {"LSTM": "input_forget", "GRU": "linear_before_reset"}.get(kind)
    if name:
        one, two = (evaluate(*recurrent_model(kind, small(kind), hidden_size=4, **{name: n})) for n in (1, -2))
        np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("kind", sorted(GATES))
def test_clip_to_nothing(kind):
    """A bound of 0: the gates are those of pre-activations of 0. Of the three, onnxruntime runs RNN."""
    arrays = small(kind)
    ours = evaluate(*recurrent_model(kind, arrays, hidden_size=4, clip=0.0))
    nothing = {name: np.zeros_like(array) for name, array in arrays.items()}
    for a, b in zip(ours, evaluate(*recurrent_model(kind, nothing, hidden_size=4)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-37)
    if kind == "RNN":
        pytest.importorskip("onnxruntime", reason="the oracle of this test is onnxruntime")
        for activation in WITH_ALPHA + WITHOUT:
            options = {"hidden_size": 4, "clip": 0.0, "activations": [activation]}
            options |= {"activation_alpha": [0.75]} if activation in WITH_ALPHA else {}
            options |= {"activation_beta": [0.25]} if activation in WITH_BETA else {}
            model = recurrent_model("RNN", arrays, **options)
            np.testing.assert_allclose(evaluate(*model)[0], run_onnxruntime(*model)[0], rtol=1e-6, atol=1e-37)


def test_onnx_is_imported_on_demand():
    code = "import sys, rnnkern; assert 'onnx' not in sys.modules; import rnnkern.onnx; assert 'onnx' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_message_without_onnx():
    code = "import sys; sys.modules['onnx'] = None; import rnnkern.onnx"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "rnnkern[onnx]"' in done.stderr
