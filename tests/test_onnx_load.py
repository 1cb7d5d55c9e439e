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


def refused(message, model, node=None):
    with pytest.raises(ValueError, match=message) as caught:
        rnnkern.onnx.load(model, node)
    assert len(str(caught.value)) < 2000


ENDINGS = ["onnx", "pb", "json", "onnxjson", "textproto", "txtpb", "prototxt", "pbtxt", "onnxtxt", "onnxtext", "other"]
GARBAGE = {
    "text": b"Not a model at all.",
    "bytes": bytes(range(256)) * 4,
    "brackets": b"[" * 100_000,
    "objects": b'{"graph": ' * 3000,
    "messages": b"graph { node { attribute { g { node " * 500,
    "null": b"null",
    "number": b'{"irVersion": 1e400}',
}


@pytest.mark.parametrize("content", GARBAGE)
def test_not_a_models_content(content, tmp_path):
    """In each format that the ending of a name tells."""
    for ending in ENDINGS:
        path = tmp_path / f"model.{ending}"
        path.write_bytes(GARBAGE[content])
        refused("^(model: expected an ONNX model|node: )", path)
    refused("^model: expected an ONNX model", GARBAGE[content])


def test_nothing(tmp_path):
    (tmp_path / "model.onnx").touch()
    refused("^node: expected .*there is none", tmp_path / "model.onnx")
    refused("^node: expected .*there is none", b"")
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx'"):
        rnnkern.onnx.load(tmp_path / "missing.onnx")
    with pytest.raises(IsADirectoryError):
        rnnkern.onnx.load(tmp_path)


def test_external_data_that_is_not_there(tmp_path):
    path, data = tmp_path / "model.onnx", tmp_path / "data"
    onnx.save(model_of([LSTM]), path, save_as_external_data=True, size_threshold=0, location="data")
    without = onnx.load(path, load_external_data=False)
    refused("^W: expected weights in the model.*another file", without)
    refused("^W: expected weights in the model.*another file", without.SerializeToString())
    data.write_bytes(data.read_bytes()[:-4])
    refused(f"^model: the external data of '{path}' can't be read", path)
    data.unlink()
    refused(f"^model: the external data of '{path}' can't be read", path)
    data.mkdir()
    refused(f"^model: the external data of '{path}' can't be read", path)


def nested(depth):
    """The node within this many loops."""
    model = model_of([make_node("Identity", ["X"], ["other"])])
    graph = model.graph
    for _ in range(depth):
        attribute = graph.node.add(op_type="Loop").attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
        graph = attribute.g
    graph.node.add().CopyFrom(LSTM)
    return model


def test_deep_nesting(tmp_path):
    check_bits = rnnkern.onnx.load(nested(32).SerializeToString())(X)[0]  # the deepest that a file can have
    np.testing.assert_array_equal(check_bits, EXPECTED)
    for depth in (33, 300, 2000):
        refused("^model: expected subgraphs within each other 32 deep at most", nested(depth))
        refused("^model: expected an ONNX model", nested(depth).SerializeToString())
    text = "graph { " + "node { attribute { type: GRAPH g { " * 40 + "} } } " * 40 + "}"
    (tmp_path / "model.textproto").write_text(text)
    refused("^model: expected subgraphs", tmp_path / "model.textproto")


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


def weight(**changes):
    """A model whose W is not quite right."""
    model = model_of([LSTM])
    W = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    for name, value in changes.items():
        if name == "dims":
            W.dims[:] = value
        else:
            setattr(W, name, value)
    return model


T = onnx.TensorProto


@pytest.mark.parametrize(
    "changes",
    [
        *[{"dims": dims} for dims in ([], [0], [48], [1, 16, 300], [2**62, 2**62])],
        *[{"raw_data": data} for data in (b"", b"abc")],
        *[
            {"data_type": kind}
            for kind in (T.UNDEFINED, 99, T.STRING, T.COMPLEX64, T.FLOAT8E4M3FN, T.INT32, T.INT8, T.BOOL)
        ],
        {"data_location": T.EXTERNAL},
    ],
    ids=str,
)
def test_odd_tensors(changes):
    refused("^(W|model): ", weight(**changes))


@pytest.mark.parametrize("name", "WRBP")
@pytest.mark.parametrize(
    "dtype", [np.complex64, np.complex128, np.int32, np.int64, np.bool_, np.float64, np.float16, object]
)
def test_weights_of_another_type(name, dtype):
    """Also strings: nothing is converted, and no imaginary part is dropped."""
    wrong = WEIGHTS[name].astype(str).astype(object) if dtype is object else WEIGHTS[name].astype(dtype)
    refused("^[WRBP]: expected", model_of([LSTM], WEIGHTS | {name: wrong}))


@pytest.mark.parametrize("name", "WRBP")
@pytest.mark.parametrize(
    "shape", [(), (1,), (16, 3, 1), (1, 1, 1, 1), (0, 0), (0, 0, 0), (2, 16, 3), (1, 16, 0)], ids=str
)
def test_weights_of_another_shape(name, shape):
    refused(f"^{name}: expected", model_of([LSTM], WEIGHTS | {name: np.zeros(shape, np.float32)}))


@pytest.mark.parametrize("name", "WRBP")
def test_weights_that_are_sequences(name):
    node = onnx.NodeProto.FromString(LSTM.SerializeToString())
    node.input[list(node.input).index(name)] = "many"
    refused(f"^{name}: expected a tensor, got list", model_of([make_node("SequenceConstruct", [name], ["many"]), node]))


def test_sparse_weights():
    model = model_of([LSTM], {name: WEIGHTS[name] for name in "RBP"})
    values, indices = (onnx.numpy_helper.from_array(array, "W") for array in (np.ones(2, np.float32), np.array([3, 5])))
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [1, 16, 3]))
    refused("^W: expected dense weights", model)


@pytest.mark.parametrize(
    ("message", "inputs"),
    [
        ("W: expected a tensor, the node has no such input", []),
        ("W: expected a tensor", ["X"]),
        ("R: expected a tensor", ["X", "W"]),
        ("W: expected a tensor", ["X", "", "R"]),
        ("LSTM: expected at most 8 inputs", ["X", "W", "R", "B", "", "", "", "P", "X"]),
    ],
)
def test_inputs_of_the_node(message, inputs):
    refused(f"^{message}", model_of([make_node("LSTM", inputs, ["Y"])]))
    if inputs[1:]:
        arrays = {name: np.zeros((1, 12, 4), np.float32) for name in "WR"}
        message = message.replace("LSTM", "GRU")
        refused(
            f"^{message}", model_of([make_node("GRU", inputs, ["Y"])], arrays | {"B": WEIGHTS["B"], "P": WEIGHTS["P"]})
        )


@pytest.mark.parametrize(
    "nodes",
    [
        [make_node("NoOperator", ["W"], ["V"])],
        [make_node("NoOperator", ["W"], ["V"], domain="nowhere")],
        [make_node("Reshape", ["W", "R"], ["V"])],
        [make_node("Add", ["W"], ["V"])],
        [make_node("Concat", ["W", "W"], ["V"], axis=7)],
        [make_node("Concat", ["W", "W"], ["V"])],
        [make_node("Neg", ["V"], ["U"]), make_node("Neg", ["U"], ["V"])],
        [make_node("Neg", ["U"], ["V"]), make_node("Neg", ["W"], ["U"])],
    ],
    ids=lambda nodes: " ".join(node.op_type for node in nodes),
)
def test_operators_that_fail(nodes):
    node = onnx.NodeProto.FromString(LSTM.SerializeToString())
    node.input[1] = "V"
    refused("^model: onnx can't evaluate", model_of([*nodes, node]))


def test_odd_attributes():
    def changed(**fields):
        node = make_recurrent("LSTM", {"X": X, **WEIGHTS}, ["Y"], direction="forward")
        for name, value in fields.items():
            setattr(node.attribute[0], name, value)
        return model_of([node])

    refused("^model: the attribute 'direction' can't be read", changed(s=b"\xff"))
    refused("^model: the attribute 'direction' can't be read", changed(type=onnx.AttributeProto.UNDEFINED))
    refused("^model: the attribute 'direction' can't be read", changed(ref_attr_name="other"))
    refused("^colour: LSTM has no such attribute", changed(name="colour"))


def test_functions_that_call_themselves():
    opsets = [onnx.helper.make_opsetid("", 14), onnx.helper.make_opsetid("own", 1)]
    function = onnx.helper.make_function("own", "F", ["X"], ["Y"], [make_node("F", ["X"], ["Y"], domain="own")], opsets)
    refused(
        "^model: its functions", model_of([make_node("F", ["X"], ["Y"], domain="own")], functions=[function], own=1)
    )


@pytest.mark.parametrize("frozen", [None, 3, "yes"])
def test_frozen_is_true_or_false(frozen):
    with pytest.raises(TypeError, match="frozen: expected"):
        rnnkern.onnx.load(model_of([LSTM]), frozen=frozen)


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
