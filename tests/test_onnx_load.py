"""`rnnkern.onnx.load`: wherever the node is, and however its weights are computed."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="rnnkern.onnx needs onnx")
from onnx.helper import make_graph, make_node  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import make_model, recurrent_model, value_info  # noqa: E402
from onnx_models import make_node as make_recurrent  # noqa: E402

import rnnkern.onnx  # noqa: E402
from tolerance import assert_close  # noqa: E402

H, I = 4, 3  # noqa: E741
random = np.random.default_rng(0)
WEIGHTS = {
    "W": random.standard_normal((1, 4 * H, I), dtype=np.float32),
    "R": random.standard_normal((1, 4 * H, H), dtype=np.float32),
    "B": random.standard_normal((1, 8 * H), dtype=np.float32),
    "P": random.standard_normal((1, 3 * H), dtype=np.float32),
}
X = random.standard_normal((5, 2, I), dtype=np.float32)
OPTIONS = {"hidden_size": H, "clip": 1.5, "activations": ["HardSigmoid", "Tanh", "Elu"], "activation_alpha": [0.3]}
LSTM = make_recurrent("LSTM", {"X": X, **WEIGHTS}, ["Y"], **OPTIONS)
EXPECTED = rnnkern.onnx.load(recurrent_model("LSTM", {"X": X, **WEIGHTS}, **OPTIONS)[0])(X)[0]


def check(model, node=None, expected=EXPECTED):
    """The layer is the one of the weights as they are; so is the model's own (last) result."""
    np.testing.assert_array_equal(rnnkern.onnx.load(model, node)(X)[0], expected)
    if isinstance(model, onnx.ModelProto):
        result = ReferenceEvaluator(model, new_ops=rnnkern.onnx.new_ops).run(None, {"X": X})[0]
        np.testing.assert_array_equal(result.reshape(-1, *expected.shape)[-1], expected)


def model_of(nodes, initializers=WEIGHTS, outputs=("Y",), **options):
    return make_model(nodes, {"X": X}, outputs, initializers, **options)


def constant(name, array):
    return make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.asarray(array)))


def test_the_expected_has_everything():
    layer = rnnkern.onnx.load(model_of([LSTM]), frozen=False)
    assert isinstance(layer, rnnkern.LSTM)
    assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.bias, layer.batch_first) == (I, H, 1, 1, 0)
    assert (layer.clip, layer.peephole, layer.coupled, layer.dtype) == (1.5, True, False, np.float32)
    alpha = np.float32(0.3)
    assert layer.activations == (("HardSigmoid", alpha, 0.5), ("Tanh",), ("Elu", 1.0))
    i, o, f = WEIGHTS["P"].reshape(3, H)
    np.testing.assert_array_equal(layer.weights["weight_peephole_l0"], [i, f, o])
    i, o, f, c = WEIGHTS["W"].reshape(4, H, I)
    np.testing.assert_array_equal(layer.weights["weight_ih_l0"], np.concatenate([i, f, c, o]))
    layer.weights["weight_ih_l0"][:] = 0  # it is the layer's own


# Ways to give the model


def test_path_bytes_and_proto(tmp_path):
    model = model_of([LSTM])
    onnx.save(model, tmp_path / "model.onnx")
    check(tmp_path / "model.onnx")
    check(str(tmp_path / "model.onnx"))
    check(model.SerializeToString())
    check(model)


def test_external_data(tmp_path):
    onnx.save(model_of([LSTM]), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="data")
    assert (tmp_path / "data").stat().st_size >= sum(array.nbytes for array in WEIGHTS.values())
    check(tmp_path / "model.onnx")


@pytest.mark.parametrize("model", [3, None, io.BytesIO()])
def test_not_a_model(model):
    with pytest.raises(TypeError, match="model: expected"):
        rnnkern.onnx.load(model)


def test_not_a_models_content(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("Not a model at all.")
    for model in (path, path.read_bytes()):
        with pytest.raises(ValueError, match="model: expected an ONNX model"):
            rnnkern.onnx.load(model)
    with pytest.raises(FileNotFoundError):
        rnnkern.onnx.load(tmp_path / "missing.onnx")


# Which node


def test_node_by_name():
    nodes = [LSTM, make_recurrent("LSTM", {"X": X, **WEIGHTS}, ["", "last"], hidden_size=H)]
    nodes[1].name = ""
    model = model_of(nodes, outputs=["Y", "last"])
    check(model, "lstm")
    check(model, "Y")
    assert not np.array_equal(rnnkern.onnx.load(model, "last")(X)[0], EXPECTED)
    for wrong in (None, "", "gru"):
        with pytest.raises(ValueError, match=r"node: expected a single .*LSTM 'lstm'; LSTM 'last'"):
            rnnkern.onnx.load(model, wrong)
    nodes[1].name = "lstm"
    with pytest.raises(ValueError, match=r"of the name 'lstm' .*LSTM 'lstm'; LSTM 'lstm'"):
        rnnkern.onnx.load(model_of(nodes), "lstm")
    with pytest.raises(TypeError, match="node: expected"):
        rnnkern.onnx.load(model, 3)
    with pytest.raises(ValueError, match="there is none"):
        rnnkern.onnx.load(model_of([make_node("Relu", ["X"], ["Y"])]))


# Where the node is


def in_if(node, inner=()):
    """In the else branch."""
    branches = [
        make_graph([make_node("Identity", ["X"], [f"{name}_Y"])], name, [], [value_info(f"{name}_Y", np.float32)])
        for name in ("then", "else")
    ]
    del branches[1].node[:]
    branches[1].node.extend([*inner, node, make_node("Identity", [node.output[0]], ["else_Y"])])
    return [
        constant("condition", False),
        make_node("If", ["condition"], ["out"], then_branch=branches[0], else_branch=branches[1]),
    ]


def in_loop(node, inner=()):
    body = make_graph(
        [*inner, node, make_node("Identity", ["go"], ["go_on"])],
        "body",
        [value_info("step", np.int64), value_info("go", np.bool_)],
        [value_info("go_on", np.bool_), value_info(node.output[0], np.float32)],
    )
    return [constant("steps", 2), constant("start", True), make_node("Loop", ["steps", "start"], ["out"], body=body)]


def in_scan(node, inner=()):
    inside = onnx.NodeProto.FromString(node.SerializeToString())
    inside.input[0] = "x"
    body = make_graph([*inner, inside], "body", [value_info("x", np.float32)], [value_info(node.output[0], np.float32)])
    return [
        make_node("Unsqueeze", ["X", "zero"], ["Xs"]),
        make_node("Scan", ["Xs"], ["out"], body=body, num_scan_inputs=1),
    ]


@pytest.mark.parametrize("place", [in_if, in_loop, in_scan])
@pytest.mark.parametrize("weights", ["outer initializers", "inner constants", "computed on the way"])
def test_subgraphs(place, weights):
    inner, outer, initializers = [], [constant("zero", [0])], WEIGHTS
    node = onnx.NodeProto.FromString(LSTM.SerializeToString())
    if weights == "inner constants":
        inner, initializers = [constant(name, array) for name, array in WEIGHTS.items()], {}
    elif weights == "computed on the way":  # from outside, at two levels
        initializers = {"W2": WEIGHTS["W"][0] / 2, **{name: WEIGHTS[name] for name in "RBP"}}
        outer.append(make_node("Add", ["W2", "W2"], ["W1"]))
        inner.append(make_node("Unsqueeze", ["W1", "zero"], ["W"]))
    model = model_of([*outer, *place(node, inner)], initializers, ["out"])
    check(model)
    # once more, one level deeper
    if place is not in_if:
        deeper = [*outer, *in_if(place(node, inner)[-1], place(node, inner)[:-1])]
        deeper[-1].output[0] = "outer"
        check(model_of(deeper, initializers, ["outer"]))


def test_functions():
    """Functions are searched where they are called, with the weights that they are called with."""
    opset = [onnx.helper.make_opsetid("", 14)]
    function = onnx.helper.make_function("own", "Recurrent", ["X", "W", "R", "B", "P"], ["Y"], [LSTM], opset)
    call = make_node("Recurrent", ["X", "V", "R", "B", "P"], ["out"], domain="own")
    initializers = {"V": WEIGHTS["W"], **{name: WEIGHTS[name] for name in "RBP"}}
    model = model_of([call], initializers, ["out"], functions=[function], own=1)
    np.testing.assert_array_equal(rnnkern.onnx.load(model)(X)[0], EXPECTED)
    check(onnx.inliner.inline_local_functions(model))  # the reference evaluator leaves new_ops out of functions


# How the weights are computed


def test_folding():
    """Slice, Concat, Unsqueeze, Transpose, Identity, Reshape, DequantizeLinear, and an If around a constant."""
    half = 2 * H
    quantized = np.round(WEIGHTS["B"] * 16).astype(np.int8)
    weights = {**WEIGHTS, "B": quantized.astype(np.float32) / 16}
    initializers = {
        "Wt": np.ascontiguousarray(WEIGHTS["W"][0].T),
        "Rs": np.concatenate([WEIGHTS["R"][:, half:], WEIGHTS["R"][:, :half]], axis=1),
        "Bq": quantized,
        "scale": np.float32(1 / 16),
        "Pf": WEIGHTS["P"].ravel(),
        "zero": np.array([0]),
        "one": np.array([1]),
        "half": np.array([half]),
        "end": np.array([2 * half]),
        "shape": np.array([1, -1]),
    }
    then, other = (
        make_graph([make_node(op, ["Pf"], [f"{op}_P"])], op, [], [value_info(f"{op}_P", np.float32)])
        for op in ("Identity", "Neg")
    )
    nodes = [
        make_node("Transpose", ["Wt"], ["Wn"], perm=[1, 0]),
        make_node("Unsqueeze", ["Wn", "zero"], ["W"]),
        make_node("Slice", ["Rs", "half", "end", "one"], ["R1"]),
        make_node("Slice", ["Rs", "zero", "half", "one"], ["R2"]),
        make_node("Concat", ["R1", "R2"], ["Rc"], axis=1),
        make_node("Identity", ["Rc"], ["R"]),
        make_node("DequantizeLinear", ["Bq", "scale"], ["B"]),
        constant("yes", True),
        make_node("If", ["yes"], ["Pi"], then_branch=then, else_branch=other),
        make_node("Reshape", ["Pi", "shape"], ["P"]),
        LSTM,
    ]
    model = model_of(nodes, initializers, opset=19)
    check(model, expected=rnnkern.onnx.load(model_of([LSTM], weights))(X)[0])
    with pytest.raises(ValueError, match="DequantizeLinear"):  # which onnx evaluates since 19
        rnnkern.onnx.load(model_of(nodes, initializers, opset=14))


def test_initializers_that_are_inputs_too():
    """As in files before version 4 of the format: defaults of the inputs."""
    model = model_of([LSTM])
    model.graph.input.extend(value_info(name, np.float32) for name in WEIGHTS)
    check(model)


@pytest.mark.parametrize("through", [(), ("Relu", "Neg")])
def test_weights_that_are_not_constant(through):
    name, nodes = "the weights", []
    for op in through:
        nodes.append(make_node(op, [name], [op]))
        name = op
    node = onnx.NodeProto.FromString(LSTM.SerializeToString())
    node.input[2] = name
    model = model_of([*nodes, node])
    model.graph.input.append(value_info("the weights", np.float32))
    with pytest.raises(
        ValueError, match=r"R: expected weights that are constant, they depend on the input 'the weights'"
    ):
        rnnkern.onnx.load(model)


def test_half_weights():
    model = model_of([LSTM], {name: array.astype(np.float16) for name, array in WEIGHTS.items()})
    layer = rnnkern.onnx.load(model, frozen=False)
    assert layer.dtype == np.float32
    np.testing.assert_array_equal(layer.weights["bias_hh_l0"][:H], WEIGHTS["B"][0, 4 * H : 5 * H].astype(np.float16))


def test_float64():
    model = model_of([LSTM], {name: array.astype(np.float64) for name, array in WEIGHTS.items()})
    assert rnnkern.onnx.load(model, frozen=False).dtype == np.float64


# Reading backwards


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 5]])
def test_reversed_is_the_second_half_of_a_bidirectional_layer(batch_first, lengths):
    layer = rnnkern.GRU(I, H, batch_first=batch_first, seed=1)
    both = rnnkern.GRU(I, H, batch_first=batch_first, bidirectional=True)
    names = [name + suffix for name in layer.weights for suffix in ("", "_reverse")]
    both.load_state_dict({name: layer.weights[name.removesuffix("_reverse")] for name in names})
    x = X.swapaxes(0, 1) if batch_first else X
    h0 = np.random.default_rng(2).standard_normal((2, 2, H), dtype=np.float32)
    for backwards in (rnnkern.onnx.Reversed(layer), rnnkern.onnx.Reversed(layer).freeze()):
        assert backwards.freeze() is backwards or isinstance(backwards.freeze().layer, rnnkern.FrozenLayer)
        for return_sequence in (True, False):
            options = {"lengths": lengths, "return_sequence": return_sequence}
            y, h = both(x, h0, **options)
            ours, last = backwards(x, h0[1:], **options)
            np.testing.assert_array_equal(ours, y[..., H:])
            np.testing.assert_array_equal(last, h[1:])
        y, h = both(X[:, 0])
        for one in (None, [5]):
            ours, last = backwards(X[:, 0], lengths=one)
            np.testing.assert_array_equal(ours, y[:, H:])
            np.testing.assert_array_equal(last, h[1:])
        with pytest.raises(ValueError, match="lengths"):
            backwards(x, lengths=[9, 1])
        with pytest.raises(TypeError, match="x"):
            backwards([1.0])


# A real exporter


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_exported_by_torch(kind, bidirectional):
    torch = pytest.importorskip("torch", reason="the exporter of this test is torch's")
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(I, H, 2, bidirectional=bidirectional).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is the older of two exporters, and doesn't need another package
        torch.onnx.export(theirs, torch.from_numpy(X), file, dynamo=False, opset_version=14)
    model = file.getvalue()
    names = [node.name for node in onnx.load_model_from_string(model).graph.node if node.op_type == kind]
    assert len(names) == 2
    y = X
    for name in names:
        y, _ = rnnkern.onnx.load(model, name)(y)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(X))[0].numpy()
    assert_close(y, expected, H * (1 + bidirectional) + H, 2 * len(X))
