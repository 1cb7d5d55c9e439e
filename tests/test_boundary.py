"""Wrong arguments get the error that tells what is wrong, on both back ends the same; odd but right ones just work."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import rnnkern
from rnnkern import _core

T, B, I, H = 5, 3, 4, 6  # noqa: E741
BACKENDS = ["native", "reference"]
both = pytest.mark.parametrize("backend", BACKENDS)


def lstm(backend="native", **options):
    return rnnkern.LSTM(I, H, seed=0, backend=backend, **options)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def state(batch=B, parts=1, dtype=np.float32):
    return ones(parts, batch, H, dtype=dtype), ones(parts, batch, H, dtype=dtype)


def message(error, call):
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    return str(caught.value)


WRONG_ARRAYS = {  # what may come for a float32 array of the shape of its argument
    "list": (lambda good: good.tolist(), TypeError),
    "none": (lambda good: "text", TypeError),
    "scalar": (lambda good: 1.0, TypeError),
    "integers": (lambda good: good.astype(np.int64), TypeError),
    "booleans": (lambda good: good.astype(bool), TypeError),
    "float16": (lambda good: good.astype(np.float16), TypeError),
    "float64": (lambda good: good.astype(np.float64), TypeError),
    "longdouble": (lambda good: good.astype(np.longdouble), TypeError),
    "complex": (lambda good: good.astype(np.complex64), TypeError),
    "object": (lambda good: good.astype(object), TypeError),
    "big-endian": (lambda good: good.astype(">f4"), TypeError),
    "record": (lambda good: good.view([("a", np.float32)]), TypeError),
    "one axis more": (lambda good: good[None, None], ValueError),
    "no axis": (lambda good: good.sum(), TypeError),  # a NumPy scalar is no array
    "rank 0": (lambda good: np.array(1, good.dtype), ValueError),
    "wide": (lambda good: np.concatenate([good, good], -1), ValueError),
    "narrow": (lambda good: good[..., :0], ValueError),
}


@pytest.mark.parametrize("argument", ["x", "state[0]", "state[1]", "dy", "dstate[0]", "dstate[1]"])
@pytest.mark.parametrize("wrong", WRONG_ARRAYS)
def test_wrong_arrays(wrong, argument):
    spoil, error = WRONG_ARRAYS[wrong]
    messages = set()
    for backend in BACKENDS:
        layer = lstm(backend)
        _, _, tape = layer.forward(ones(T, B, I))

        def call(layer=layer, tape=tape):
            h, c = state()
            if argument == "x":
                layer(spoil(ones(T, B, I)))
            elif argument == "dy":
                layer.backward(tape, spoil(ones(T, B, H)))
            else:
                pair = (spoil(h), c) if argument.endswith("[0]") else (h, spoil(c))
                layer(ones(T, B, I), pair) if argument[0] == "s" else layer.backward(tape, None, pair)

        messages.add(message(error, call))
    (text,) = messages
    assert text.startswith(f"{argument}: expected a float32 array of shape (")
    assert ", got " in text


def test_what_a_message_says():
    x = ones(T, B, I, dtype=np.float64)
    text = message(TypeError, lambda: lstm()(x))
    for part in ("x: expected a float32", f"(T, B, {I})", "float64", f"({T}, {B}, {I})"):
        assert part in text
    assert "list" in message(TypeError, lambda: lstm()(x.tolist()))
    assert "(B, T, 4)" in message(ValueError, lambda: lstm(batch_first=True)(ones(T, B, I + 1)))


def same_message(error, call):
    """The text of the error that `call(backend)` raises on either back end."""
    texts = {message(error, lambda backend=backend: call(backend)) for backend in BACKENDS}
    assert len(texts) == 1, texts
    return texts.pop()


WRONG_STATES = {
    "an array for (h, c)": (lambda h, c: h, TypeError),
    "one of two": (lambda h, c: (h,), ValueError),
    "three": (lambda h, c: (h, c, c), ValueError),
    "a dict": (lambda h, c: {"h": h, "c": c}, TypeError),
    "None inside": (lambda h, c: (h, None), TypeError),
    "another batch": (lambda h, c: (h[:, :2], c), ValueError),
    "no batch": (lambda h, c: (h[:, 0], c[:, 0]), ValueError),
    "more layers": (lambda h, c: (np.concatenate([h, h]), c), ValueError),
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_wrong_states(wrong):
    spoil, error = WRONG_STATES[wrong]
    assert same_message(error, lambda backend: lstm(backend)(ones(T, B, I), spoil(*state()))).startswith("state")

    def backward(backend):
        layer = lstm(backend)
        layer.backward(layer.forward(ones(T, B, I))[2], None, spoil(*state()))

    assert same_message(error, backward).startswith("dstate")


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
@both
def test_a_pair_for_a_single_state(backend, kind):
    layer = getattr(rnnkern, kind)(I, H, backend=backend)
    assert message(TypeError, lambda: layer(ones(T, B, I), state())).startswith("state: expected a float32 array")


def test_the_projected_state_has_two_sizes():
    layer = rnnkern.LSTM(I, H, proj_size=2)
    assert "(1, 3, 2)" in message(ValueError, lambda: layer(ones(T, B, I), state()))
    layer(ones(T, B, I), (ones(1, B, 2), ones(1, B, H)))


WRONG_LENGTHS = {
    "negative": ([-1, 2, 3], ValueError),
    "zero": ([0, 2, 3], ValueError),
    "too long": ([1, 2, T + 1], ValueError),
    "overflowing": ([1, 2, 2**70], ValueError),
    "too few": ([1, 2], ValueError),
    "too many": ([1, 2, 3, 4], ValueError),
    "none at all": ([], ValueError),
    "floats": ([1.0, 2.0, 3.0], TypeError),
    "booleans": ([True, True, True], TypeError),
    "texts": (["1", "2", "3"], TypeError),
    "a text": ("123", TypeError),
    "one number": (3, TypeError),
    "a float array": (np.array([1.0, 2, 3]), TypeError),
    "a boolean array": (np.array([True, True, True]), TypeError),
    "an object array": (np.array([1, 2, 3], object), TypeError),
    "a matrix": (np.array([[1, 2, 3]]), ValueError),
    "a large unsigned": (np.array([1, 2, 2**64 - 1], np.uint64), ValueError),
    "a set": ({1, 2, 3}, TypeError),
}


@pytest.mark.parametrize("wrong", WRONG_LENGTHS)
def test_wrong_lengths(wrong):
    lengths, error = WRONG_LENGTHS[wrong]
    for method in ("__call__", "forward", "trace"):
        text = same_message(error, lambda backend, m=method: getattr(lstm(backend), m)(ones(T, B, I), lengths=lengths))
        assert text.startswith("lengths: expected 3 integers")


@both
@pytest.mark.parametrize(
    "lengths", [[2, 5, 1], (2, 5, 1), *(np.array([2, 5, 1], dtype) for dtype in ("i1", "u2", "i4", "u8", ">i4"))]
)
def test_right_lengths(lengths, backend):
    y, _ = lstm(backend)(ones(T, B, I), lengths=lengths)
    assert not y[2:, 0].any()
    assert y[:, 1].all()
    assert not y[1:, 2].any()


@pytest.mark.parametrize("name", ["return_sequence", "recompute"])
@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_flags_are_booleans(value, name):
    text = same_message(TypeError, lambda backend: lstm(backend).forward(ones(T, B, I), **{name: value}))
    assert text.startswith(f"{name}: expected True or False")


@both
def test_tapes(backend):
    layer, other = lstm(backend), lstm(backend)
    _, _, tape = layer.forward(ones(T, B, I))
    dy = ones(T, B, H)
    assert message(ValueError, lambda: other.backward(tape, dy)).startswith("tape: ")
    assert message(ValueError, lambda: lstm(_isa="baseline").backward(tape, dy)).startswith("tape: ")
    assert message(TypeError, lambda: layer.backward(None, dy)).startswith("tape: ")
    assert message(TypeError, lambda: layer.backward((1, 2), dy)).startswith("tape: ")
    assert message(ValueError, lambda: layer.backward(tape)).startswith("dy, dstate: expected at least one")
    assert message(ValueError, lambda: layer.backward(tape, ones(T + 1, B, H))).startswith("dy: ")
    assert message(ValueError, lambda: layer.backward(tape, dy, wrt=("x", "y"))).startswith("wrt: ")
    assert message(TypeError, lambda: layer.backward(tape, dy, wrt="x")).startswith("wrt: ")
    layer.backward(tape, dy)


@both
def test_step_errors(backend):
    layer = lstm(backend)
    for wrong, error in [
        (ones(T, B, I), ValueError),
        (ones(B, I + 1), ValueError),
        (ones(I + 1), ValueError),
        (ones(B, I, dtype=np.float64), TypeError),
        (ones(B, I).tolist(), TypeError),
    ]:
        text = message(error, lambda wrong=wrong: layer.step(wrong))
        assert text == message(error, lambda wrong=wrong: lstm().step(wrong))
        assert "expected a float32 array of shape (B, 4) or (4,)" in text or "shape (B, 4)," in text or "(4,)," in text
    assert message(ValueError, lambda: layer.step(ones(B, I), state(B + 1))).startswith("state[0]: ")
    both_ways = lstm(backend, bidirectional=True)
    assert "bidirectional" in message(ValueError, lambda: both_ways.step(ones(B, I)))
    assert "bidirectional" in message(ValueError, lambda: both_ways.freeze().stream())


@both
def test_stream_errors(backend):
    stream = lstm(backend).freeze().stream(B)
    stream.step(ones(B, I))
    before = stream.state
    x = ones(B, I)
    readonly = ones(B, H)
    readonly.flags.writeable = False
    for call, error in [
        (lambda: stream.step(ones(B + 1, I)), ValueError),
        (lambda: stream.step(ones(I)), ValueError),
        (lambda: stream.step(x.tolist()), TypeError),
        (lambda: stream.step(ones(B, I, dtype=np.float64)), TypeError),
        (lambda: stream.step(x, out=ones(B, H + 1)), ValueError),
        (lambda: stream.step(x, out=ones(B, H, dtype=np.float64)), TypeError),
        (lambda: stream.step(x, out=readonly), ValueError),
        (lambda: stream.step(x, out=[]), TypeError),
        (lambda: stream.run(ones(T, B + 1, I)), ValueError),
        (lambda: stream.run(ones(T, I)), ValueError),
        (lambda: stream.run([1]), TypeError),
        (lambda: stream.reset(rows=[B]), (ValueError, IndexError)),
        (lambda: stream.reset(rows="a"), (TypeError, ValueError, IndexError)),
        (lambda: setattr(stream, "state", before[0]), TypeError),
        (lambda: setattr(stream, "state", (before[0][:, :1], before[1])), ValueError),
    ]:
        with pytest.raises(error):
            call()
        for now, then in zip(stream.state, before):
            np.testing.assert_array_equal(now, then)
    frozen = lstm(backend).freeze()
    for size, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match=r"^batch_size: "):
            frozen.stream(size)


# Options


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("2", TypeError), (None, TypeError), (True, TypeError)],
)
def test_sizes(value, error, name):
    arguments = {"input_size": I, "hidden_size": H, name: value}
    assert message(error, lambda: rnnkern.GRU(**arguments)).startswith(f"{name}: expected an integer")


def test_sizes_may_be_of_numpy():
    layer = rnnkern.LSTM(np.int32(I), np.int64(H), num_layers=np.uint8(2))
    assert layer(ones(T, B, I))[0].shape == (T, B, H)


@pytest.mark.parametrize(
    "arguments",
    [(2**31, H), (I, 2**31), (I, 2**62), (2**70, H), (I, H, 2**40), (I, H, 2**31 - 1), (2**31 - 1, 2**31 - 1)],
)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_sizes_that_overflow(kind, arguments):
    with pytest.raises((ValueError, MemoryError)):
        getattr(rnnkern, kind)(*arguments)


WRONG_OPTIONS = [
    ("LSTM", {"bias": 1}, TypeError),
    ("LSTM", {"batch_first": None}, TypeError),
    ("LSTM", {"bidirectional": "yes"}, TypeError),
    ("LSTM", {"peephole": 1}, TypeError),
    ("GRU", {"reset_after": 0}, TypeError),
    ("LSTM", {"dropout": -0.1}, ValueError),
    ("LSTM", {"dropout": 1.1}, ValueError),
    ("LSTM", {"dropout": float("nan")}, ValueError),
    ("LSTM", {"dropout": "0.1"}, TypeError),
    ("LSTM", {"dropout": True}, TypeError),
    ("LSTM", {"proj_size": -1}, ValueError),
    ("LSTM", {"proj_size": H}, ValueError),
    ("LSTM", {"proj_size": 1.0}, TypeError),
    ("LSTM", {"coupled": "o"}, ValueError),
    ("LSTM", {"clip": 0}, ValueError),
    ("LSTM", {"clip": -1.0}, ValueError),
    ("LSTM", {"clip": float("nan")}, ValueError),
    ("LSTM", {"clip": "1"}, TypeError),
    ("LSTM", {"dtype": np.float16}, TypeError),
    ("LSTM", {"dtype": "int32"}, TypeError),
    ("LSTM", {"dtype": ">f4"}, TypeError),
    ("LSTM", {"dtype": "nonsense"}, TypeError),
    ("LSTM", {"backend": "torch"}, ValueError),
    ("RNN", {"nonlinearity": "sigmoid"}, ValueError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh")}, ValueError),
    ("LSTM", {"activations": ()}, ValueError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", "Swish")}, ValueError),
    ("LSTM", {"activations": "Tanh"}, TypeError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", 3)}, TypeError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", ("Elu", "1"))}, TypeError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", ("Elu", float("nan")))}, ValueError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", ("Elu", 1.0, 2.0))}, ValueError),
    ("LSTM", {"activations": ("Sigmoid", "Tanh", ("Tanh", 1.0))}, ValueError),
    ("GRU", {"activations": ("Sigmoid", "Tanh") * 2}, ValueError),
    ("LSTM", {"seed": "a"}, TypeError),
    ("LSTM", {"seed": -1}, ValueError),
    ("LSTM", {"_isa": "sse9"}, ValueError),
]


@pytest.mark.parametrize(("kind", "options", "error"), WRONG_OPTIONS)
def test_wrong_options(kind, options, error):
    text = message(error, lambda: getattr(rnnkern, kind)(I, H, **options))
    (name,) = options
    assert name in text or name in ("_isa", "seed")
    assert "expected" in text


def test_unknown_option():
    with pytest.raises(TypeError):
        rnnkern.LSTM(I, H, num_layer=2)


def test_activations_have_onnx_names_in_any_case_and_defaults():
    layer = rnnkern.LSTM(I, H, activations=("hardsigmoid", "LEAKYRELU", ("ScaledTanh", 1.5)))
    assert layer._spec.activations == ((("HardSigmoid", 0.2, 0.5), ("LeakyRelu", 0.01, 0.0), ("ScaledTanh", 1.5, 1.0)),)
    both_ways = rnnkern.GRU(I, H, bidirectional=True, activations=("Sigmoid", "Tanh", "Relu", "Softsign"))
    assert [[one[0] for one in direction] for direction in both_ways._spec.activations] == [
        ["Sigmoid", "Tanh"],
        ["Relu", "Softsign"],
    ]


def test_dropout_without_layers_between_warns():
    with pytest.warns(UserWarning, match="dropout"):
        rnnkern.LSTM(I, H, dropout=0.5)


# Sizes of nothing, and of far too much


@both
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(("steps", "batch"), [(0, 0), (0, 3), (4, 0)])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}, {"batch_first": True}]
)
def test_no_steps_or_no_sequences(options, steps, batch, kind, backend):
    layer = getattr(rnnkern, kind)(I, H, backend=backend, **options)
    x = ones(batch, steps, I) if options.get("batch_first") else ones(steps, batch, I)
    width = H * (2 if options.get("bidirectional") else 1)
    y, last = layer(x)
    assert y.shape == (*x.shape[:2], width)
    parts = layer.num_layers * (1 + layer.bidirectional)
    for member in last if kind == "LSTM" else (last,):
        assert member.shape == (parts, batch, H)
        assert not member.any()
    y, last, tape = layer.forward(x)
    grads = layer.backward(tape, y, last)
    assert grads.x.shape == x.shape
    assert not any(gradient.any() for gradient in grads.weights.values())
    assert layer(x, return_sequence=False)[0].shape == (batch, width)
    if batch == 0:
        layer(x, lengths=[])
    else:
        with pytest.raises(ValueError, match="lengths"):
            layer(x, lengths=[1] * batch)


def test_no_steps_hand_the_state_through():
    layer = lstm(num_layers=2)
    first = tuple(member.copy() for member in state(parts=2))
    _, last, tape = layer.forward(ones(0, B, I), first)
    for now, then in zip(last, first):
        np.testing.assert_array_equal(now, then)
    grads = layer.backward(tape, None, first)
    for now, then in zip(grads.state, first):
        np.testing.assert_array_equal(now, then)


@both
def test_what_cannot_be_allocated(backend):
    layer = rnnkern.LSTM(1, 64, backend=backend)
    # The reference begins with the states: of 2**45 sequences they can't be allocated, of 2**25 they fill the machine.
    large = [(2**25, 2**25, 1)] if backend == "native" else []
    for shape in [(2**45, 1, 1), (1, 2**45, 1), (2**55, 1, 1), (1, 2**55, 1), *large]:
        x = np.broadcast_to(np.float32(0), shape)
        with pytest.raises((MemoryError, ValueError)):
            layer(x)
        with pytest.raises((MemoryError, ValueError)):
            layer.forward(x)


def test_a_copy_that_cannot_be_allocated():
    x = np.broadcast_to(np.float32(0), (2**25, 2**20, 2))  # the last axis is not contiguous: a copy is needed
    with pytest.raises(MemoryError):
        rnnkern.GRU(2, 1)(x)


def test_too_many_empty_steps():
    with pytest.raises((MemoryError, ValueError)):
        rnnkern.LSTM(1, 64)(np.empty((2**57, 0, 1), np.float32))


# What a user does to arrays that the layer refers to


HOSTILE = """
import numpy as np, rnnkern
lstm = rnnkern.LSTM(40, 50, dtype=np.float32)
x = np.ones((7, 3, 40), np.float32)
{}
for _ in range(3):
    y, state, tape = lstm.forward(x)
    try:
        lstm.backward(tape, np.ones((7, 3, 50), np.float32))
    except (ValueError, RuntimeError, TypeError):
        pass
print("alive")
"""


@pytest.mark.parametrize(
    "deed",
    [
        "lstm.weights['weight_hh_l0'].shape = (-1,)",
        "lstm.weights['weight_hh_l0'].dtype = np.float64",
        "lstm.weights['weight_hh_l0'].dtype = np.complex128",
        "lstm.weights['weight_hh_l0'].resize((3, 3))",
        "lstm.weights['weight_hh_l0'].resize((3, 3), refcheck=False)",
        "w = lstm.weights['weight_ih_l0']; w.resize((0,), refcheck=False); del w",
    ],
)
def test_odd_deeds_to_live_weights_crash_nothing(deed):
    program = HOSTILE.format(f"try:\n    {deed}\nexcept ValueError:\n    pass")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "alive", done.stderr


# Instruction sets


def import_with(isa):
    code = "from rnnkern import _core; print(_core.default_isa())"
    env = os.environ | {"RNNKERN_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("isa", "can_run"), [(name, can_run) for name, can_run, _ in _core.isas()])
def test_an_instruction_set_by_name(isa, can_run):
    done = import_with(isa)
    if can_run:
        assert done.stdout.strip() == isa, done.stderr
    else:
        assert done.returncode != 0
        assert "ImportError" in done.stderr
        assert "baseline" in done.stderr


def test_an_unknown_instruction_set():
    done = import_with("sse9")
    assert done.returncode != 0
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: RNNKERN_ISA: expected an instruction set that can run here")
    for name, can_run, _ in _core.isas():
        assert (name in error) == can_run


def test_too_many_threads_crash_nothing():
    code = """
import numpy as np, rnnkern
try:
    rnnkern.set_num_threads(2**31 - 1)
except ValueError:
    pass
y, _ = rnnkern.RNN(64, 64)(np.ones((50, 4000, 64), np.float32))
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "alive", done.stderr
