"""What users type: layers, weights, copies, dropout, tapes, frozen layers and streams, on both back ends."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import itertools
import math
import pickle
import runpy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rnnkern
from harness import CELLS, Case, assert_same_bits, explained, make_inputs

KINDS = ["RNN", "LSTM", "GRU"]
BACKENDS = ["native", "reference"]
both = pytest.mark.parametrize("backend", BACKENDS)
every = pytest.mark.parametrize("kind", KINDS)
x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)


def make(kind, *sizes, **options):
    return getattr(rnnkern, kind)(*(sizes or (4, 6)), seed=options.pop("seed", 0), **options)


def members(state):
    return state if isinstance(state, tuple) else (state,)


def assert_same_results(actual, expected):
    for one, other in zip((actual[0], *members(actual[1])), (expected[0], *members(expected[1]))):
        assert_same_bits(one, other)


# Signatures

POSITIONAL = {
    "RNN": "input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional",
    "LSTM": "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size",
    "GRU": "input_size hidden_size num_layers bias batch_first dropout bidirectional",
}
KEYWORDS = {"RNN": {}, "LSTM": {"peephole": False, "coupled": False}, "GRU": {"reset_after": True}}
COMMON = {"dtype": np.float32, "seed": None, "backend": "native", "activations": None, "clip": None}
DEFAULTS = {
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
}


@every
def test_constructor(kind):
    parameters = inspect.signature(getattr(rnnkern, kind)).parameters.values()
    usual = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and not p.name.startswith("_")}
    names = POSITIONAL[kind].split()
    assert list(usual) == names
    assert usual == {name: DEFAULTS.get(name, inspect.Parameter.empty) for name in names}
    assert named == COMMON | KEYWORDS[kind]


def bare_signature(function):
    signature = inspect.signature(function)
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()]))


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("__call__", "(x, state=None, *, lengths=None, return_sequence=True)"),
        ("forward", "(x, state=None, *, lengths=None, recompute=False, return_sequence=True)"),
        ("backward", "(tape, dy=None, dstate=None, *, wrt=('x', 'state', 'weights'))"),
        ("step", "(x_t, state=None)"),
        ("trace", "(x, state=None, *, lengths=None)"),
        ("freeze", "()"),
        ("save", "(path)"),
    ],
)
def test_methods(method, text):
    assert bare_signature(getattr(make("LSTM"), method)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("frozen.__call__", "(x, state=None, *, lengths=None, return_sequence=True)"),
        ("frozen.step", "(x_t, state=None)"),
        ("frozen.stream", "(batch_size=1, state=None)"),
        ("stream.step", "(x_t, out=None)"),
        ("stream.run", "(x)"),
        ("stream.reset", "(rows=None)"),
        ("stream.generate", "(x0, fn, steps)"),
        ("rnnkern.load", "(path)"),
        ("rnnkern.explain", "(layer, T, B, lengths=None)"),
        ("rnnkern.set_num_threads", "(n)"),
        ("rnnkern.get_num_threads", "()"),
        ("rnnkern.num_threads", "(n)"),
        ("rnnkern.show_config", "()"),
    ],
)
def test_functions(name, text):
    frozen = make("LSTM").freeze()
    owner, method = name.split(".")
    assert (
        bare_signature(getattr({"frozen": frozen, "stream": frozen.stream(), "rnnkern": rnnkern}[owner], method))
        == text
    )


@every
def test_attributes(kind):
    layer = make(
        kind, 4, 6, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, dtype="float64"
    )
    assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.dropout) == (4, 6, 2, 0.5)
    assert (layer.bias, layer.batch_first, layer.bidirectional, layer.dtype) == (False, True, True, np.float64)


# Shapes


@both
@every
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_shapes(kind, backend, bidirectional, batch_first, projected):
    if projected and kind != "LSTM":
        pytest.skip("only an LSTM projects")
    options = {"proj_size": 2} if projected else {}
    layer = make(kind, 4, 6, 2, bidirectional=bidirectional, batch_first=batch_first, backend=backend, **options)
    directions, out = 1 + bidirectional, 2 if projected else 6
    given = x.swapaxes(0, 1) if batch_first else x
    y, state = layer(given)
    assert y.shape == (*given.shape[:2], directions * out)
    assert [m.shape for m in members(state)] == [(2 * directions, 3, size) for size in (out, 6)[: len(members(state))]]
    if backend == "native":
        assert all(array.flags.c_contiguous and array.flags.owndata for array in (y, *members(state)))
    assert all(array.dtype == np.float32 for array in (y, *members(state)))
    assert layer(given, return_sequence=False)[0].shape == (3, directions * out)

    alone, last = layer(x[:, 0])
    assert alone.shape == (5, directions * out)
    assert [m.shape for m in members(last)] == [(2 * directions, size) for size in (out, 6)[: len(members(state))]]
    np.testing.assert_allclose(alone, y[0] if batch_first else y[:, 0], rtol=0, atol=0 if backend == "native" else 1e-6)
    assert layer(x[:, 0], return_sequence=False)[0].shape == (directions * out,)

    _, _, tape = layer.forward(x[:, 0], last)
    grads = layer.backward(tape, alone, last)
    assert grads.x.shape == (5, 4)
    assert [m.shape for m in members(grads.state)] == [m.shape for m in members(last)]
    assert {name: gradient.shape for name, gradient in grads.weights.items()} == {
        name: weight.shape for name, weight in layer.weights.items()
    }


@both
@every
def test_step_shapes(kind, backend):
    layer = make(kind, 4, 6, 2, backend=backend, batch_first=True)
    y, state = layer.step(x[0])
    assert y.shape == (3, 6)
    assert all(m.shape == (2, 3, 6) for m in members(state))
    y, state = layer.step(x[0, 0])
    assert y.shape == (6,)
    assert all(m.shape == (2, 6) for m in members(state))
    y, state = layer.step(x[1, 0], state)
    assert y.shape == (6,)


@both
def test_the_gradient_of_the_state_has_its_structure_even_if_it_was_none(backend):
    for kind, count in [("RNN", None), ("GRU", None), ("LSTM", 2)]:
        layer = make(kind, backend=backend)
        _, _, tape = layer.forward(x)
        state = layer.backward(tape, np.ones((5, 3, 6), np.float32)).state
        assert isinstance(state, np.ndarray) if count is None else len(state) == count


@both
@every
def test_no_state_is_a_state_of_zeros(kind, backend):
    layer = make(kind, 4, 6, 2, bidirectional=True, backend=backend)
    zeros = np.zeros((4, 3, 6), np.float32)
    given = (zeros, zeros) if kind == "LSTM" else zeros
    assert_same_results(layer(x, given), layer(x))
    if kind == "LSTM":
        assert_same_results(layer(x, list(given)), layer(x))
    one_way = make(kind, backend=backend)
    given = (zeros[:1], zeros[:1]) if kind == "LSTM" else zeros[:1]
    assert_same_results(one_way.step(x[0], given), one_way.step(x[0]))
    assert isinstance(one_way.step(x[0])[1], tuple) == (kind == "LSTM")


@both
@every
@pytest.mark.parametrize("lengths", [None, [2, 5, 1]])
def test_the_last_outputs_are_those_of_the_sequence(lengths, kind, backend):
    layer = make(kind, 4, 6, 2, bidirectional=True, backend=backend)
    y, state = layer(x, lengths=lengths)
    last, same_state = layer(x, lengths=lengths, return_sequence=False)
    ends, rows = np.array(lengths or [5] * 3) - 1, np.arange(3)
    assert_same_results((last, state), (np.concatenate([y[ends, rows, :6], y[0, :, 6:]], axis=1), same_state))
    dlast = np.random.default_rng(1).standard_normal((3, 12)).astype(np.float32)
    dy = np.zeros_like(y)
    dy[ends, rows, :6], dy[0, :, 6:] = dlast[:, :6], dlast[:, 6:]
    one = layer.backward(layer.forward(x, lengths=lengths, return_sequence=False)[2], dlast)
    other = layer.backward(layer.forward(x, lengths=lengths)[2], dy)
    np.testing.assert_allclose(one.x, other.x, rtol=0, atol=1e-6)
    for name in layer.weights:
        np.testing.assert_allclose(one.weights[name], other.weights[name], rtol=0, atol=1e-5)


@both
@every
@pytest.mark.parametrize("wrt", [("x",), ["state"], {"weights"}, ("weights", "x"), ()])
def test_gradients_by_what_is_asked_for(wrt, kind, backend):
    layer = make(kind, 4, 6, 2, backend=backend)
    y, state, tape = layer.forward(x)
    whole, grads = layer.backward(tape, y, state), layer.backward(tape, y, state, wrt=wrt)
    for name in ("x", "state"):
        if name in wrt:
            for one, other in zip(members(getattr(grads, name)), members(getattr(whole, name))):
                assert_same_bits(one, other, name)
        else:
            assert getattr(grads, name) is None
    assert list(grads.weights) == (list(layer.weights) if "weights" in wrt else [])
    for name, gradient in grads.weights.items():
        assert_same_bits(gradient, whole.weights[name], name)


@both
@every
def test_gradients_of_either_output_add_up(kind, backend):
    layer = make(kind, 4, 6, 2, dtype=np.float64, backend=backend)
    y, state, tape = layer.forward(x.astype(np.float64))
    whole, one, other = layer.backward(tape, y, state), layer.backward(tape, y), layer.backward(tape, dstate=state)
    np.testing.assert_allclose(one.x + other.x, whole.x, atol=1e-13)
    for name in layer.weights:
        np.testing.assert_allclose(one.weights[name] + other.weights[name], whole.weights[name], atol=1e-13)


# Weights


@both
@pytest.mark.parametrize("kind", KINDS)
def test_names_shapes_and_order_are_torchs(kind, backend):
    torch = pytest.importorskip("torch", reason="the names are compared with PyTorch's, which is not installed")
    for options in [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"proj_size": 2}]:
        if "proj_size" in options and kind != "LSTM":
            continue
        theirs = getattr(torch.nn, kind)(4, 6, **options)
        ours = make(kind, 4, 6, backend=backend, **options)
        expected = {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
        assert {name: weight.shape for name, weight in ours.weights.items()} == expected
        assert list(ours.weights) == list(expected)
        ours.load_state_dict({name: weight.numpy() for name, weight in theirs.state_dict().items()})
        y, state = ours(x)
        with torch.no_grad():
            wanted, last = theirs(torch.from_numpy(x))
        np.testing.assert_allclose(y, wanted.numpy(), atol=1e-6)
        for one, other in zip(members(state), members(last)):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-6)


def test_peepholes_have_a_weight():
    assert make("LSTM", peephole=True).weights["weight_peephole_l0"].shape == (3, 6)


@every
def test_initial_weights(kind):
    layer = make(kind, 40, 64, dtype=np.float64)
    values = np.concatenate([weight.ravel() for weight in layer.weights.values()])
    assert np.abs(values).max() <= 1 / 8
    assert np.abs(values).max() > 0.99 / 8
    assert abs(values.mean()) < 0.01
    again, other = make(kind, 40, 64, dtype=np.float64), make(kind, 40, 64, dtype=np.float64, seed=1)
    assert all(np.array_equal(layer.weights[name], again.weights[name]) for name in layer.weights)
    assert not any(np.array_equal(layer.weights[name], other.weights[name]) for name in layer.weights)
    assert not np.array_equal(*(make(kind, seed=None).weights["weight_ih_l0"] for _ in range(2)))


@both
def test_weights_are_live(backend):
    layer = make("LSTM", backend=backend)
    before = layer(x)[0]
    array = layer.weights["weight_hh_l0"]
    array[3] += 0.5
    changed = layer(x)[0]
    assert not np.array_equal(changed, before)
    array[3] -= 0.5
    layer.weights["bias_ih_l0"] *= 0
    assert not layer.weights["bias_ih_l0"].any()
    layer.weights["weight_hh_l0"] = np.zeros((24, 6))  # casts
    assert layer.weights["weight_hh_l0"] is array
    assert not array.any()


WAYS = {
    "call": lambda layer: layer(x)[0],
    "forward": lambda layer: layer.forward(x)[0],
    "recompute": lambda layer: layer.forward(x, recompute=True)[0],
    "step": lambda layer: layer.step(x[0])[0],
    "trace": lambda layer: layer.trace(x)["h"],
    "freeze": lambda layer: layer.freeze()(x)[0],
    "backward": lambda layer: layer.backward(layer.forward(x)[2], np.ones((5, 3, 6), np.float32)).x,
    "copy": lambda layer: copy.deepcopy(layer)(x)[0],
}


@both
@every
@pytest.mark.parametrize("way", WAYS)
def test_a_weight_changed_in_place_is_never_ignored(way, kind, backend):
    layer = make(kind, backend=backend)
    for name, weight in layer.weights.items():
        state = {**layer.state_dict(), name: weight + 0.25}
        before = WAYS[way](layer)
        weight += 0.25
        after = WAYS[way](layer)
        if not (name == "weight_hh_l0" and way == "step"):  # the state is zero
            assert (before != after).any(), name
        fresh = make(kind, backend=backend, seed=1)
        fresh.load_state_dict(state)
        assert_same_bits(after, WAYS[way](fresh), name)


def test_weights_are_a_mapping_of_fixed_keys():
    weights = make("GRU").weights
    assert len(weights) == len(list(weights)) == 4
    assert "weight_ih_l0" in weights
    with pytest.raises(KeyError):
        weights["weight_ih_l1"]
    with pytest.raises(KeyError):
        weights["new"] = np.zeros(3)
    with pytest.raises(TypeError):
        del weights["bias_ih_l0"]
    before = {name: weight.copy() for name, weight in weights.items()}
    for value, error in [
        (np.zeros((18, 5)), ValueError),
        (0.0, ValueError),
        (np.zeros((18, 4), complex), TypeError),
        (np.zeros((18, 4), object), TypeError),
        ("text", TypeError),
    ]:
        with pytest.raises(error, match="weight_ih_l0"):
            weights["weight_ih_l0"] = value
    for name, weight in before.items():
        np.testing.assert_array_equal(weights[name], weight)


@both
def test_state_dict_copies(backend):
    layer = make("GRU", backend=backend)
    saved = layer.state_dict()
    assert list(saved) == list(layer.weights)
    saved["bias_hh_l0"][:] = 7
    assert not (layer.weights["bias_hh_l0"] == 7).any()


def test_load_state_dict_casts():
    layer, other = make("LSTM"), make("LSTM", dtype=np.float64, seed=1)
    layer.load_state_dict(other.state_dict())
    for name, weight in layer.weights.items():
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, other.weights[name].astype(np.float32))
    layer.load_state_dict({name: weight.tolist() for name, weight in other.state_dict().items()})


class NoArray:
    """As a tensor of PyTorch that requires grad."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


def test_weights_that_no_array_can_be_made_of():
    layer = rnnkern.GRU(3, 4)
    before = layer.state_dict()
    with pytest.raises(TypeError, match=r"^bias_hh_l0: expected real numbers .* got NoArray: Can't call"):
        layer.load_state_dict({**before, "weight_ih_l0": before["weight_ih_l0"] + 1, "bias_hh_l0": NoArray()})
    with pytest.raises(TypeError, match=r"^bias_hh_l0: expected real numbers .* got NoArray"):
        layer.weights["bias_hh_l0"] = NoArray()
    assert all(np.array_equal(array, before[name]) for name, array in layer.state_dict().items())


def test_load_state_dict_tells_everything_and_changes_nothing():
    layer = make("LSTM")
    before = layer.state_dict()
    wrong = {name: np.full_like(weight, 9) for name, weight in before.items()}
    del wrong["bias_hh_l0"]
    wrong["weight_hh_l0"] = np.zeros((3, 4))
    wrong["extra"] = np.zeros(3)
    with pytest.raises(ValueError, match="state_dict") as caught:
        layer.load_state_dict(wrong)
    for part in ("bias_hh_l0", "weight_hh_l0", "(24, 6)", "(3, 4)", "extra"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="bias_hh_l0: expected shape"):
        layer.load_state_dict({**before, "bias_hh_l0": [[1], [1, 2]]})
    wrong = {**before, "bias_hh_l0": np.zeros(24, complex), "weight_ih_l0": before["weight_ih_l0"] + 1}
    with pytest.raises(TypeError, match="bias_hh_l0"):
        layer.load_state_dict(wrong)
    with pytest.raises(TypeError):
        layer.load_state_dict([1, 2])
    layer.weights["bias_hh_l0"].flags.writeable = False
    with pytest.raises(ValueError, match="bias_hh_l0"):
        layer.load_state_dict({name: weight + 1 for name, weight in before.items()})
    layer.weights["bias_hh_l0"].flags.writeable = True
    for name, weight in before.items():
        np.testing.assert_array_equal(layer.weights[name], weight)


@both
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of setting these
@pytest.mark.parametrize("look", [{"shape": (6, 24)}, {"dtype": np.int8}, {"strides": (0, 0)}])
def test_the_looks_of_a_live_array_are_the_users(look, backend):
    """It may be given another shape in place, say: the layer has its own."""
    layer, other = make("LSTM", backend=backend), make("LSTM", backend=backend, seed=1)
    for name, value in look.items():
        setattr(layer.weights["weight_hh_l0"], name, value)
    for way in WAYS.values():
        assert_same_bits(way(layer), way(make("LSTM", backend=backend)))
    layer.load_state_dict(other.state_dict())
    for name, weight in layer.state_dict().items():
        assert_same_bits(weight, other.weights[name], name)
    layer.weights["weight_hh_l0"] = np.zeros((24, 6))
    assert not layer.state_dict()["weight_hh_l0"].any()
    assert layer.num_parameters == other.num_parameters


def test_load_state_dict_from_the_own_arrays():
    layer = make("RNN", 6, 6)
    ih, hh = layer.weights["weight_ih_l0"], layer.weights["weight_hh_l0"]
    expected = ih.copy(), hh.copy()
    layer.load_state_dict({**layer.weights, "weight_ih_l0": hh, "weight_hh_l0": ih})
    np.testing.assert_array_equal(hh, expected[0])
    np.testing.assert_array_equal(ih, expected[1])


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [("LSTM", {}, 5120), ("GRU", {}, 3840), ("RNN", {"bias": False}, 1216), ("LSTM", {"peephole": True}, 5216)],
)
def test_num_parameters(kind, options, count):
    assert make(kind, 6, 32, **options).num_parameters == count


# Copies

OPTIONS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "linear", "clip": 2.5}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.25, "batch_first": True}),
    ("LSTM", {"proj_size": 3, "peephole": True, "coupled": "f", "dtype": np.float64}),
    ("LSTM", {"coupled": True, "backend": "reference"}),
    ("LSTM", {"activations": (("HardSigmoid", 0.25, 0.5), "Softsign", ("Elu", 0.5)), "bias": False}),
    ("GRU", {"reset_after": False, "activations": ["Sigmoid", "Tanh", "HardSigmoid", "Relu"], "bidirectional": True}),
]


def same_layer(one, other):
    assert type(one) is type(other)
    assert one._spec == other._spec
    assert repr(one) == repr(other)
    for name in ("batch_first", "dropout", "backend", "dtype"):
        assert getattr(one, name) == getattr(other, name)
    for name, weight in one.weights.items():
        assert_same_bits(other.weights[name], weight, name)
        assert not np.shares_memory(other.weights[name], weight)
    given = x.astype(one.dtype)
    assert_same_results(one(given), other(given))


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_pickle_and_copy(kind, options):
    layer = make(kind, **options)
    layer.weights["weight_hh_l0"] = layer.weights["weight_hh_l0"] + 1
    for copied in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        same_layer(layer, copied)
        copied.weights["weight_hh_l0"][:] = 0
        assert layer.weights["weight_hh_l0"].any()


def test_copies_draw_the_same_dropout():
    layer = make("GRU", 4, 6, 2, dropout=0.5)
    layer.forward(x)
    copied = pickle.loads(pickle.dumps(layer))
    first, second = (one.forward(x)[0] for one in (layer, copied))
    assert_same_bits(first, second)


class Named(rnnkern.LSTM):
    def __init__(self, name):
        super().__init__(4, 6, seed=3)
        self.name = name


def test_subclasses_pickle_with_what_they_add():
    copied = pickle.loads(pickle.dumps(Named("encoder")))
    assert (type(copied), copied.name) == (Named, "encoder")
    assert_same_bits(copied(x)[0], Named("encoder")(x)[0])


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_repr_makes_the_layer_again(kind, options):
    layer = make(kind, **options)
    text = repr(layer)
    assert text.startswith(f"{kind}(4, 6")
    again = eval(text, vars(rnnkern) | {"float64": np.float64, "dtype": np.dtype})
    assert again._spec == layer._spec
    assert (again.backend, again.dropout, again.batch_first) == (layer.backend, layer.dropout, layer.batch_first)


def test_results_show_shapes_instead_of_values():
    x = np.zeros((5, 3, 4), np.float32)
    lstm = make("LSTM", bias=False)
    y, _, tape = lstm.forward(x)
    assert repr(lstm.backward(tape, y)) == (
        "Gradients(x=float32[5, 3, 4], state=(float32[1, 3, 6], float32[1, 3, 6]), "
        "weights={weight_ih_l0: float32[24, 4], weight_hh_l0: float32[24, 6]})"
    )
    assert repr(lstm.backward(tape, y, wrt=())) == "Gradients(x=None, state=None, weights={})"
    assert repr(tape) == f"<rnnkern.Tape: {tape.nbytes:,} bytes>"
    h, targets = np.zeros((2, 4), np.float32), np.zeros(2, int)
    _, gradients = rnnkern.linear_cross_entropy(h, np.zeros((9, 4), np.float32), None, targets, gradient=True)
    assert repr(gradients) == "OutputGradients(h=float32[2, 4], weight=float32[9, 4], bias=None)"


def test_the_program_for_type_checkers_runs():
    runpy.run_path(str(Path(__file__).parent / "typing" / "user.py"))


def test_repr_is_short():
    assert repr(make("LSTM")) == "LSTM(4, 6)"
    assert repr(make("LSTM", num_layers=2, bidirectional=True)) == "LSTM(4, 6, num_layers=2, bidirectional=True)"


# Dropout


@every
def test_dropout_is_the_same_on_both_back_ends(kind):
    layers = [make(kind, 4, 6, 3, dropout=0.4, backend=backend, dtype=np.float64) for backend in BACKENDS]
    for _ in range(2):
        ys = [layer.forward(x.astype(np.float64))[0] for layer in layers]
        np.testing.assert_allclose(*ys, atol=1e-12)
    assert not np.array_equal(ys[0], layers[0](x.astype(np.float64))[0])


@both
def test_dropout_acts_in_forward_only_and_scales(backend):
    layer = make("RNN", 4, 200, 2, nonlinearity="linear", dropout=0.25, backend=backend)
    for name, weight in layer.weights.items():
        layer.weights[name] = 0 * weight
    layer.weights["bias_ih_l0"] = np.ones(200)
    layer.weights["weight_ih_l1"] = np.eye(200)
    plain = layer(x)[0]
    np.testing.assert_array_equal(plain, 1)
    dropped = layer.forward(x)[0]
    values, counts = np.unique(dropped, return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-6)
    assert abs(counts[0] / counts.sum() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / counts.sum())
    assert not np.array_equal(layer.forward(x)[0], dropped)
    assert_same_bits(layer(x)[0], plain)


@both
def test_a_seed_decides_weights_and_dropout(backend):
    def run(**options):
        layer = make("GRU", 4, 6, 3, dropout=0.5, backend=backend, **options)
        layer.load_state_dict(make("GRU", 4, 6, 3, seed=7).state_dict())
        return layer.forward(x)[0]

    assert_same_bits(run(seed=5), run(seed=5))
    assert not np.array_equal(run(seed=5), run(seed=6))
    assert not np.array_equal(run(seed=None), run(seed=None))


@both
def test_nothing_is_dropped_at_zero(backend):
    layer = make("GRU", 4, 6, 3, dropout=0.0, backend=backend)
    assert_same_bits(layer.forward(x)[0], layer(x)[0])


@both
def test_dropout_of_one_layer_warns_and_does_nothing(backend):
    with pytest.warns(UserWarning, match="num_layers=1"):
        layer = make("GRU", 4, 6, dropout=0.5, backend=backend)
    assert_same_bits(layer.forward(x)[0], layer(x)[0])


@both
def test_dropout_draws_for_the_whole_batch_whatever_the_layout(backend):
    """A draw belongs to its step and sequence: the same one with `batch_first`, lengths and `recompute`."""
    layers = [make("LSTM", 4, 6, 2, dropout=0.5, batch_first=first, backend=backend) for first in (False, True)]
    y, other = layers[0].forward(x)[0], layers[1].forward(x.swapaxes(0, 1))[0]
    assert_same_bits(other.swapaxes(0, 1), y)
    y, other = layers[0].forward(x, lengths=[5, 2, 4])[0], layers[1].forward(x.swapaxes(0, 1), recompute=True)[0]
    np.testing.assert_array_equal(y[:2], other.swapaxes(0, 1)[:2])


@both
def test_all_is_dropped_at_one(backend):
    layer = make("GRU", 4, 6, 2, dropout=1.0, backend=backend)
    y, _, tape = layer.forward(x)
    assert np.isfinite(y).all()
    assert not layer.backward(tape, y).x.any()


def test_a_refused_call_draws_nothing():
    layer, other = (make("GRU", 4, 6, 2, dropout=0.5) for _ in range(2))
    for bad in [
        {"x": x[..., :2]},
        {"x": x, "lengths": [1, 2]},
        {"x": x, "return_sequence": 1},
        {"x": x, "recompute": 0},
    ]:
        with pytest.raises((TypeError, ValueError)):
            layer.forward(**bad)
    assert_same_bits(layer.forward(x)[0], other.forward(x)[0])


# Tapes


@both
@pytest.mark.parametrize("recompute", [False, True])
def test_a_tape_can_be_used_again(backend, recompute):
    layer = make("LSTM", 4, 6, 2, dropout=0.5, backend=backend)
    y, state, tape = layer.forward(x, recompute=recompute)
    layer.forward(x)
    layer(2 * x)
    first, second = (layer.backward(tape, y, state) for _ in range(2))
    assert_same_bits(first.x, second.x)
    for name in layer.weights:
        assert_same_bits(first.weights[name], second.weights[name])


@both
def test_tapes_tell_their_size(backend):
    layer = make("LSTM", 4, 60, backend=backend)
    tape = layer.forward(x)[2]
    longer = layer.forward(np.concatenate([x] * 50))[2]
    assert 0 < tape.nbytes < longer.nbytes
    assert isinstance(tape.nbytes, int)


def test_recompute_keeps_less():
    layer = make("LSTM", 4, 64)
    big = np.concatenate([x] * 100)
    assert layer.forward(big, recompute=True)[2].nbytes < layer.forward(big)[2].nbytes / 10


@both
@pytest.mark.parametrize("what", ["x", "y", "weights", "mapping", "load"])
def test_changes_between_forward_and_backward_are_seen(what, backend):
    layer, given = make("LSTM", backend=backend), x.copy()
    y, _, tape = layer.forward(given)
    dy = np.ones_like(y)
    layer.backward(tape, dy)
    if what == "x":
        given += 1
    elif what == "y":
        y *= 2
    elif what == "weights":
        layer.weights["weight_hh_l0"][:] *= 0.5
    elif what == "mapping":
        layer.weights["weight_ih_l0"] = layer.weights["weight_ih_l0"] * 0.5
    else:
        layer.load_state_dict({name: weight * 0.5 for name, weight in layer.weights.items()})
    with pytest.raises(RuntimeError, match="changed"):
        layer.backward(tape, dy)


@both
@every
def test_the_states_of_a_call_may_change_afterwards(kind, backend):
    """As in truncated back-propagation that keeps one buffer: the tape refers to x, y and the weights only."""
    layer = make(kind, backend=backend)
    first = layer(x)[1]
    given = copy.deepcopy(first)
    y, last, tape = layer.forward(x, given)
    expected = layer.backward(tape, np.ones_like(y), last)
    dlast = copy.deepcopy(last)
    for member in (*members(given), *members(last)):
        member[:] = np.nan
    actual = layer.backward(tape, np.ones_like(y), dlast)
    for name in layer.weights:
        assert_same_bits(actual.weights[name], expected.weights[name])


@both
@pytest.mark.parametrize("cell", CELLS)
def test_inputs_are_never_changed(cell, backend):
    case = Case(cell, lengths=True).with_options(num_layers=2)
    layer = case.layer(backend=backend)
    inputs = make_inputs(case, layer)
    given = [inputs.x, *members(inputs.state), inputs.lengths, inputs.dy, *members(inputs.dstate)]
    copies = [array.copy() for array in given]
    weights = layer.state_dict()
    _, _, tape = layer.forward(inputs.x, inputs.state, lengths=inputs.lengths)
    layer.backward(tape, inputs.dy, inputs.dstate)
    layer(inputs.x, inputs.state, lengths=inputs.lengths)
    layer.trace(inputs.x, inputs.state, lengths=inputs.lengths)
    for array, saved in zip(given, copies):
        np.testing.assert_array_equal(array, saved)
    for name, weight in weights.items():
        np.testing.assert_array_equal(layer.weights[name], weight)


@both
def test_subclasses_of_arrays(backend):
    class Tagged(np.ndarray):
        pass

    layer = make("GRU", backend=backend)
    y, state = layer(x.view(Tagged), np.zeros((1, 3, 6), np.float32).view(Tagged))
    assert type(y) is type(state) is np.ndarray
    assert_same_bits(y, layer(x)[0])


# Traces


@both
@pytest.mark.parametrize(("kind", "names"), [("RNN", "h"), ("LSTM", "ifgoch"), ("GRU", "rznh")])
def test_trace(kind, names, backend):
    layer = make(kind, backend=backend)
    trace = layer.trace(x, lengths=[5, 2, 4])
    assert list(trace) == list(names)
    assert all(array.shape == (5, 3, 6) for array in trace.values())
    assert not any(array[2:, 1].any() for array in trace.values())
    assert_same_bits(trace["h"], layer(x, lengths=[5, 2, 4])[0])
    assert {name: array.shape for name, array in layer.trace(x[:, 0]).items()} == dict.fromkeys(names, (5, 6))
    given = layer(x)[1]
    assert_same_bits(layer.trace(x, given)["h"], layer(x, given)[0])
    assert all(array.shape == (0, 3, 6) for array in layer.trace(x[:0]).values())
    first = make(kind, backend=backend, batch_first=True).trace(x.swapaxes(0, 1))
    np.testing.assert_array_equal(first["h"].swapaxes(0, 1), layer.trace(x)["h"])
    if kind == "LSTM":
        np.testing.assert_allclose(trace["h"], trace["o"] * np.tanh(trace["c"]), atol=1e-6)
        np.testing.assert_allclose(trace["c"][0], trace["i"][0] * trace["g"][0], atol=1e-6)
    deep = make(kind, 4, 6, 2, bidirectional=True, backend=backend).trace(x)
    assert set(deep) == {f"{n}_l{layer}{way}" for n in names for layer in (0, 1) for way in ("", "_reverse")}


def test_a_derived_gate_is_traced():
    for coupled, gate, other in [("i", "i", "f"), ("f", "f", "i")]:
        trace = make("LSTM", coupled=coupled).trace(x)
        np.testing.assert_allclose(trace[gate], 1 - trace[other], atol=1e-6)


# Frozen layers and streams


@both
@every
def test_a_frozen_layer_is_a_snapshot(kind, backend):
    layer = make(kind, 4, 6, 2, backend=backend)
    frozen, expected = layer.freeze(), layer(x)
    layer.weights["weight_hh_l0"][:] = 0
    layer.weights["weight_ih_l1"][:] = 0
    assert_same_results(frozen(x), expected)
    assert not np.array_equal(layer(x)[0], expected[0])
    assert_same_results(frozen(x, lengths=[2, 5, 1]), make(kind, 4, 6, 2, backend=backend)(x, lengths=[2, 5, 1]))
    assert frozen(x, return_sequence=False)[0].shape == (3, 6)
    assert kind in repr(frozen)


@both
def test_a_frozen_layer_is_for_inference_only(backend):
    frozen = make("LSTM", backend=backend).freeze()
    for name in ("forward", "backward", "trace", "weights", "load_state_dict", "freeze", "save"):
        assert not hasattr(frozen, name), name
    assert_same_results(frozen.step(x[0]), make("LSTM", backend=backend).step(x[0]))
    assert_same_results(frozen(x[:, 0]), make("LSTM", backend=backend)(x[:, 0]))


@both
def test_frozen_layers_pickle_and_copy(backend):
    frozen = make("LSTM", peephole=True, batch_first=True, backend=backend).freeze()
    given = np.ascontiguousarray(x.swapaxes(0, 1))
    for copied in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy(frozen), copy.copy(frozen)):
        assert_same_results(copied(given), frozen(given))
        assert repr(copied) == repr(frozen)
        assert_same_bits(copied.stream(3).run(given), frozen(given)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_snapshot_is_one_while_weights_change(kind):
    """Weights are read once: what is called and what is pickled are the same, whatever another thread writes."""
    layer, x = make(kind, 16, 64, seed=0), np.ones((2, 1, 16), np.float32)
    done = threading.Event()

    def write():
        for i in itertools.cycle(range(100)):
            for array in layer.weights.values():
                array[...] = np.float32(i / 1000)
            if done.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            frozen = layer.freeze()
            assert_same_bits(pickle.loads(pickle.dumps(frozen))(x)[0], frozen(x)[0])
    finally:
        done.set()
        writer.join()


@both
@every
@pytest.mark.parametrize("batch_first", [False, True])
def test_streams(kind, backend, batch_first):
    layer = make(kind, 4, 6, 2, backend=backend, batch_first=batch_first)
    given = x.swapaxes(0, 1) if batch_first else x
    expected, last = layer(given)
    expected = expected.swapaxes(0, 1) if batch_first else expected
    stream = layer.freeze().stream(3)
    for member in members(stream.state):
        assert member.shape == (2, 3, 6)
        assert not member.any()
    close = {"atol": 0 if backend == "native" else 1e-6, "rtol": 0}
    y = stream.step(x[0])
    np.testing.assert_allclose(y, expected[0], **close)
    out = np.empty((3, 6), np.float32)
    assert stream.step(x[1], out=out) is out
    np.testing.assert_allclose(out, expected[1], **close)
    rest = stream.run(given[:, 2:] if batch_first else given[2:])
    np.testing.assert_allclose(rest.swapaxes(0, 1) if batch_first else rest, expected[2:], **close)
    for member, wanted in zip(members(stream.state), members(last)):
        np.testing.assert_allclose(member, wanted, **close)
    np.testing.assert_allclose(y, expected[0], **close)  # a fresh array: later steps don't write there


@both
def test_the_state_of_a_stream(backend):
    stream = make("LSTM", backend=backend).freeze().stream(3)
    stream.run(x)
    saved = stream.state
    after = stream.step(x[0])
    for member in saved:
        member_before = member.copy()
        member[:] = 9  # a copy
        member[:] = member_before
    stream.state = saved
    for member in saved:
        member[:] = np.nan  # was copied
    assert_same_bits(stream.step(x[0]), after)
    stream.reset(rows=[1])
    for member in stream.state:
        assert not member[:, 1].any()
        assert member[:, [0, 2]].all()
    stream.reset(rows=np.array([2]))
    stream.reset(rows=(0,))
    assert not any(member.any() for member in stream.state)
    stream.step(x[0])
    stream.reset()
    assert not any(member.any() for member in stream.state)
    given = tuple(np.full((1, 3, 6), value, np.float32) for value in (0.1, 0.2))
    other = make("LSTM", backend=backend).freeze().stream(3, given)
    for member, value in zip(other.state, given):
        np.testing.assert_array_equal(member, value)


@both
def test_a_stream_of_one(backend):
    layer = make("GRU", backend=backend)
    stream = layer.freeze().stream()
    assert stream.state.shape == (1, 1, 6)
    expected = layer(x[:, 0])[0]
    close = {"atol": 0 if backend == "native" else 1e-6, "rtol": 0}
    np.testing.assert_allclose(stream.step(x[0, 0]), expected[0], **close)
    np.testing.assert_allclose(stream.step(x[1, :1]), expected[1:2], **close)
    out = np.empty(6, np.float32)
    assert stream.step(x[2, 0], out) is out
    np.testing.assert_allclose(out, expected[2], **close)
    np.testing.assert_allclose(stream.run(x[3:, 0]), expected[3:], **close)


@both
@pytest.mark.parametrize("batch_first", [False, True])
def test_streams_of_odd_sizes(batch_first, backend):
    frozen = make("LSTM", 4, 6, 2, proj_size=2, dtype=np.float64, batch_first=batch_first, backend=backend).freeze()
    given = x.astype(np.float64)
    stream = frozen.stream(3)
    assert [member.shape for member in stream.state] == [(2, 3, 2), (2, 3, 6)]
    assert stream.batch_size == 3
    stream.step(given[0])
    before = stream.state
    nothing = stream.run(np.empty((3, 0, 4) if batch_first else (0, 3, 4)))
    assert nothing.shape == ((3, 0, 2) if batch_first else (0, 3, 2))
    for now, then in zip(stream.state, before):
        assert_same_bits(now, then)
    alone = frozen.stream(1)
    assert alone.run(given[:, 0]).shape == (5, 2)
    assert alone.run(given[:0, 0]).shape == (0, 2)
    assert alone.run(given[None, :, 0] if batch_first else given[:, :1]).shape == (
        (1, 5, 2) if batch_first else (5, 1, 2)
    )


@both
@pytest.mark.parametrize("rows", [1, -1, [0, 2], slice(1, None), [True, False, True], (), np.array([], int)])
def test_reset_of_some_rows(rows, backend):
    stream = make("GRU", 4, 6, 2, backend=backend).freeze().stream(3)
    stream.run(x)
    expected = stream.state
    expected[:, rows if not isinstance(rows, tuple) else list(rows)] = 0
    stream.reset(rows)
    assert_same_bits(stream.state, expected)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
}


@both
@every
@pytest.mark.parametrize("way", COPIES)
def test_a_copied_stream_goes_on_from_the_same_state(way, kind, backend):
    stream = make(kind, backend=backend).freeze().stream(3)
    stream.run(x[:2])
    copied = COPIES[way](stream)
    expected = stream.run(x[2:])
    assert_same_bits(copied.run(x[2:]), expected)
    copied.reset()
    assert not np.array_equal(copied.step(x[0]), stream.step(x[0]))


def test_copies_of_a_stream_share_the_frozen_layer():
    frozen = make("GRU").freeze()
    assert copy.deepcopy({"one": frozen.stream(), "two": frozen})["one"]._frozen is frozen


@both
def test_the_callback_of_generate_may_change_what_it_gets(backend):
    frozen = make("GRU", 6, 6, backend=backend).freeze()
    y = frozen.stream().generate(np.ones((1, 6), np.float32), lambda y: np.negative(y, out=y), 3)
    assert_same_bits(y, frozen.stream().generate(np.ones((1, 6), np.float32), lambda y: -y, 3))


@both
def test_streams_are_apart(backend):
    frozen = make("GRU", backend=backend).freeze()
    one, other = frozen.stream(3), frozen.stream(3)
    one.run(x)
    assert not other.state.any()
    one.state = None
    assert not one.state.any()


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_output_may_be_the_input(num_layers):
    layer = make("GRU", 64, 64, num_layers)
    given = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    stream, other = layer.freeze().stream(8), layer.freeze().stream(8)
    expected = given.copy()
    for _ in range(4):
        expected = other.step(expected)
        stream.step(given, out=given)
        assert_same_bits(given, expected)


@both
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNN", {}), ("LSTM", {"proj_size": 5}), ("GRU", {}), ("Jordan", {"output_size": 7})],
)
def test_generate(kind, options, num_layers, backend):
    """One to many: as step by step, from the stream's state on, which it leaves where the last step does."""
    layer = make(kind, num_layers=num_layers, backend=backend, **options)
    width = layer._spec.output_size
    stream, other = layer.freeze().stream(3), layer.freeze().stream(3)
    for each in (stream, other):
        each.run(x[1:])
    fed = []

    def feed(y):
        fed.append(y)
        return y[:, :4] * 2

    y = stream.generate(x[0], feed, 5)
    assert y.shape == (5, 3, width)
    x_t = x[0]
    for step in range(5):
        expected = other.step(x_t)
        assert_same_bits(y[step], expected)
        x_t = expected[:, :4] * 2
    assert len(fed) == 4  # the last output is not asked for another input
    for one, two in zip(members(stream.state), members(other.state)):
        assert_same_bits(one, two)


@both
def test_generate_one_sequence(backend):
    layer = make("GRU", backend=backend)
    y = layer.freeze().stream().generate(x[0, 0], lambda y: y[:4], 2)
    first, state = layer.step(x[0, 0])
    assert_same_bits(y, np.stack([first, layer.step(first[:4], state)[0]]))
    assert layer.freeze().stream().generate(x[0, 0], lambda y: 1 / 0, 0).shape == (0, 6)
    for steps, error in [(-1, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match=r"^steps: "):
            layer.freeze().stream().generate(x[0, 0], lambda y: y, steps)


def test_results_are_fresh():
    frozen = make("LSTM").freeze()
    first, second = frozen(x), frozen(x)
    assert not np.shares_memory(first[0], second[0])
    assert not np.shares_memory(first[1][0], second[1][0])
    stream = frozen.stream(3)
    first, second = stream.step(x[0]), stream.step(x[1])
    assert not np.shares_memory(first, second)


@both
def test_generate_stops_at_a_wrong_input(backend):
    stream = make("GRU", backend=backend).freeze().stream(3)
    with pytest.raises(ValueError, match=r"^x_t: expected a float32 array of shape"):
        stream.generate(x[0], lambda y: y, 3)
    for wrong in (lambda y: y[:, :4].astype(np.float64), lambda y: y[:, :4].tolist(), lambda y: None):
        with pytest.raises(TypeError, match=r"^x_t: expected a float32 array of shape"):
            stream.generate(x[0], wrong, 3)
    with pytest.raises(ZeroDivisionError):
        stream.generate(x[0], lambda y: 1 / 0, 3)


# Around the layers


def test_the_thread_count_is_of_a_context():
    """Of a block, of a Python thread and of an asynchronous task."""
    outside = rnnkern.get_num_threads()

    async def task(n):
        with rnnkern.num_threads(n):
            for _ in range(3):
                await asyncio.sleep(0)
                assert rnnkern.get_num_threads() == n
                assert_same_bits(make("LSTM")(x)[0], y)
        return rnnkern.get_num_threads()

    async def tasks():
        return await asyncio.gather(*map(task, range(1, 6)))

    y = make("LSTM")(x)[0]
    with rnnkern.num_threads(7):
        assert rnnkern.get_num_threads() == 7
        assert asyncio.run(tasks()) == [7] * 5
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(rnnkern.get_num_threads).result() == outside
        with contextlib.suppress(ZeroDivisionError), rnnkern.num_threads(3):
            raise ZeroDivisionError
        assert rnnkern.get_num_threads() == 7
    assert rnnkern.get_num_threads() == outside


@pytest.mark.parametrize("threads", [1, 2])
def test_explain_obeys_the_thread_count(threads):
    expected = f"{threads} of {threads} threads"
    with rnnkern.num_threads(threads):
        text = explained(expected, make("LSTM", 256, 256), 50, 64)
    assert expected in text
    assert ("one thread does it all" in text) == (threads == 1)


@both
@every
def test_layers_tell_their_back_end(kind, backend):
    assert make(kind, backend=backend).backend == backend
    assert make(kind).backend == "native"


def test_gradients_are_fixed_fields():
    layer = make("RNN")
    grads = layer.backward(layer.forward(x)[2], np.ones((5, 3, 6), np.float32))
    with pytest.raises(AttributeError):
        grads.x = None


def test_explain_tells_the_bytes_of_the_tape():
    for kind, options in OPTIONS:
        layer = make(kind, **{**options, "backend": "native"})
        given = np.ones((20, 30, 4) if not options.get("batch_first") else (30, 20, 4), layer.dtype)
        text = rnnkern.explain(layer, 20, 30)
        tape = layer.forward(given)[2]
        numbers = [int(word.replace(",", "")) for word in text.split() if word.replace(",", "").isdigit()]
        assert any(abs(number - tape.nbytes) <= 8192 + tape.nbytes / 100 for number in numbers), (text, tape.nbytes)


@both
def test_explain_takes_any_layer(backend):
    layer = make("LSTM", 64, 512, backend=backend)
    for one in (layer, layer.freeze()):
        for T, B, lengths in [(20, 4, None), (20, 4, [1, 20, 3, 4]), (0, 0, None), (1, 1, None)]:
            assert isinstance(rnnkern.explain(one, T, B, lengths), str)
    with pytest.raises(ValueError, match="lengths"):
        rnnkern.explain(layer, T=3, B=2, lengths=[4, 1])
    with pytest.raises(ValueError, match="T: "):
        rnnkern.explain(layer, -1, 2)
    with pytest.raises(TypeError, match="layer: "):
        rnnkern.explain("lstm", 1, 2)


def test_show_config(capsys):
    rnnkern.show_config()
    text = capsys.readouterr().out
    for part in (rnnkern.__version__, "baseline", str(rnnkern.get_num_threads())):
        assert part in text


def test_public_names():
    for name in rnnkern.__all__:
        assert getattr(rnnkern, name) is not None
    for name in (
        "RNN",
        "LSTM",
        "GRU",
        "load",
        "explain",
        "show_config",
        "num_threads",
        "set_num_threads",
        "get_num_threads",
    ):
        assert name in rnnkern.__all__


@every
def test_making_a_layer_warns_of_nothing(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(kind, 4, 6, 2, dropout=0.5, bidirectional=True)
        make(kind)
