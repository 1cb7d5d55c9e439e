"""Wrong arguments get the error that tells what is wrong, on both back ends the same; odd but right ones just work."""

from __future__ import annotations

import copy
import itertools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnnkern
from harness import assert_same_bits
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
    assert caught.type is error or isinstance(error, tuple)
    return str(caught.value)


def same_message(error, call):
    """The text of the error that `call(backend)` raises on either back end."""
    texts = {message(error, lambda backend=backend: call(backend)) for backend in BACKENDS}
    assert len(texts) == 1, texts
    return texts.pop()


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


@pytest.mark.parametrize("method", ["__call__", "forward", "trace", "frozen", "stream", "state"])
@pytest.mark.parametrize("wrong", [w for w in WRONG_ARRAYS if w not in ("float64", "record")] + ["float32"])
def test_wrong_arrays_for_every_method_of_a_float64_layer(wrong, method):
    spoil, error = WRONG_ARRAYS.get(wrong, (lambda good: good.astype(np.float32), TypeError))
    x, h = ones(T, B, I, dtype=np.float64), ones(1, B, H, dtype=np.float64)

    def call(backend):
        layer = rnnkern.GRU(I, H, dtype=np.float64, seed=0, backend=backend)
        if method == "state":
            layer(x, spoil(h))
        elif method == "stream":
            layer.freeze().stream(B, spoil(h))
        elif method == "frozen":
            layer.freeze()(spoil(x))
        else:
            getattr(layer, method)(spoil(x))

    name = "state" if method in ("state", "stream") else "x"
    assert same_message(error, call).startswith(f"{name}: expected a float64 array of shape (")


def test_an_unbatched_input_has_unbatched_states():
    for wrong in (state(1), state(B)):
        text = same_message(ValueError, lambda backend, wrong=wrong: lstm(backend)(ones(T, I), wrong))
        assert text.startswith(f"state[0]: expected a float32 array of shape (1, {H}), got")
    text = same_message(ValueError, lambda backend: lstm(backend)(ones(T, I), lengths=[1, 2]))
    assert text.startswith(f"lengths: expected 1 integers in 1..{T}")
    for backend in BACKENDS:
        y, _ = lstm(backend)(ones(T, I), lengths=[2])
        assert y[:2].all()
        assert not y[2:].any()


def test_a_batch_first_input_is_checked_as_such():
    for lengths in ([T + 1] * B, [1] * T):
        text = same_message(
            ValueError,
            lambda backend, lengths=lengths: lstm(backend, batch_first=True)(ones(B, T, I), lengths=lengths),
        )
        assert text.startswith(f"lengths: expected {B} integers in 1..{T}")


def test_what_a_message_says():
    x = ones(T, B, I, dtype=np.float64)
    text = message(TypeError, lambda: lstm()(x))
    for part in ("x: expected a float32", f"(T, B, {I})", "float64", f"({T}, {B}, {I})"):
        assert part in text
    assert "list" in message(TypeError, lambda: lstm()(x.tolist()))
    assert "(B, T, 4)" in message(ValueError, lambda: lstm(batch_first=True)(ones(T, B, I + 1)))


class TensorLike:
    """As PyTorch's are."""

    def detach(self):
        raise AssertionError

    __array__ = detach


MESSAGES = {  # what was done, and the end of what it says
    "another dtype": (
        lambda layer: layer(ones(T, B, I, dtype=np.float64)),
        f"got float64 array of shape ({T}, {B}, {I}); x.astype(np.float32) converts it, "
        "or make the layer with dtype=np.float64",
    ),
    "integers": (
        lambda layer: layer(ones(T, B, I, dtype=int)),
        f"got int64 array of shape ({T}, {B}, {I}); x.astype(np.float32) converts it",
    ),
    "a state's dtype": (
        lambda layer: layer(ones(T, B, I), state(dtype=np.float64)),
        f"got float64 array of shape (1, {B}, {H}); state[0].astype(np.float32) converts it",
    ),
    "complex numbers": (lambda layer: layer(ones(T, B, I, dtype=complex)), f"array of shape ({T}, {B}, {I})"),
    "a list": (lambda layer: layer([[1.0] * I]), "got list; np.asarray(x, np.float32) makes one"),
    "a tensor": (
        lambda layer: layer(TensorLike()),
        "TensorLike; x.detach().numpy() is one, and rnnkern.torch has layers for tensors",
    ),
    "a masked array": (
        lambda layer: layer(np.ma.masked_array(ones(T, B, I))),
        f"got masked float32 array of shape ({T}, {B}, {I}); its mask would be lost, x.filled(0) has none",
    ),
    "(h, c) for h": (
        lambda layer: rnnkern.GRU(I, H, backend=layer.backend)(ones(T, B, I), state()),
        f"state: expected a float32 array of shape (1, {B}, {H}), got tuple; h alone, only an LSTM has c",
    ),
    "h for (h, c)": (
        lambda layer: layer(ones(T, B, I), state()[0]),
        f"state: expected a tuple (h, c), got float32 array of shape (1, {B}, {H})",
    ),
    "(h,) for (h, c)": (
        lambda layer: layer(ones(T, B, I), state()[:1]),
        "state: expected a tuple (h, c), got a tuple of 1",
    ),
    "a state for the other axis": (
        lambda layer: layer(ones(T, B, I), state(batch=T)),
        f"got float32 array of shape (1, {T}, {H}); are the axes of time and batch the other way round (batch_first)?",
    ),
    "lengths for the other axis": (
        lambda layer: layer(ones(3, 7, I), lengths=[5, 3, 2]),
        "lengths: expected 7 integers in 1..3, got 3 integers; are the axes of time and batch the other way round "
        "(batch_first)?",
    ),
    "too few lengths": (
        lambda layer: layer(ones(T, 4, I), lengths=[9]),
        f"lengths: expected 4 integers in 1..{T}, got 1 integer",
    ),
    "a length": (
        lambda layer: layer(ones(T, B, I), lengths=[1, 2, T + 1]),
        f"lengths: expected {B} integers in 1..{T}, got {T + 1}",
    ),
    "a length of thousands of digits": (
        lambda layer: layer(ones(T, B, I), lengths=[1, 2, 10**5000]),
        f"lengths: expected {B} integers in 1..{T}, got one of more than 63 bits",
    ),
}


@pytest.mark.parametrize("deed", MESSAGES)
def test_what_helps(deed):
    call, end = MESSAGES[deed]
    text = same_message((TypeError, ValueError), lambda backend: call(lstm(backend)))
    assert text.endswith(end)


def test_a_live_layer_has_no_stream():
    layer = rnnkern.GRU(I, H)
    assert not hasattr(layer, "stream")
    with pytest.raises(AttributeError, match=r"'GRU' object has no attribute 'stream': .*freeze\(\)\.stream\(\)"):
        layer.stream(1)
    with pytest.raises(AttributeError, match=r"'GRU' object has no attribute 'steam'$"):
        layer.steam(1)


def test_a_checkout_that_is_not_installed(tmp_path):
    package = tmp_path / "rnnkern"
    shutil.copytree(Path(rnnkern.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rnnkern"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].startswith("ImportError: rnnkern: its compiled part is missing")
    assert "pip install ." in done.stderr


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
    "None inside": ([1, None, 3], TypeError),
    "nested": ([[1], [2], [3]], TypeError),
    "arrays inside": ([np.array([1, 2]), 2, 3], TypeError),
    "an array of no axis": (np.array(3), ValueError),
    "a complex array": (np.array([1, 2, 3], complex), TypeError),
    "times": (np.array([1, 2, 3], "m8[s]"), TypeError),
    "the smallest integer": (np.array([-(2**63), 1, 2]), ValueError),
    "hugely negative": ([1, 2, -(2**70)], ValueError),
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


WRONG_BACKWARD = {  # layer, its tape, a right dy
    "another layer's tape": (lambda layer, tape, dy: lstm(layer.backend).backward(tape, dy), ValueError, "tape: "),
    "a copy's tape": (lambda layer, tape, dy: copy.deepcopy(layer).backward(tape, dy), ValueError, "tape: "),
    "the other back end's tape": (
        lambda layer, tape, dy: layer.backward(lstm(*(set(BACKENDS) - {layer.backend})).forward(ones(T, B, I))[2], dy),
        ValueError,
        "tape: ",
    ),
    "no tape": (lambda layer, tape, dy: layer.backward(None, dy), TypeError, "tape: expected what forward returned"),
    "y for a tape": (lambda layer, tape, dy: layer.backward(dy), TypeError, "tape: expected what forward returned"),
    "neither": (lambda layer, tape, dy: layer.backward(tape), ValueError, "dy, dstate: expected at least one"),
    "longer dy": (lambda layer, tape, dy: layer.backward(tape, ones(T + 1, B, H)), ValueError, "dy: expected"),
    "dy of the last": (lambda layer, tape, dy: layer.backward(tape, dy[-1]), ValueError, "dy: expected"),
    "a pair for dy": (lambda layer, tape, dy: layer.backward(tape, (dy, dy)), TypeError, "dy: expected"),
    "unknown wrt": (lambda layer, tape, dy: layer.backward(tape, dy, wrt=("x", "y")), ValueError, "wrt: expected"),
    "wrt a text": (lambda layer, tape, dy: layer.backward(tape, dy, wrt="x"), TypeError, "wrt: expected"),
    "wrt None": (lambda layer, tape, dy: layer.backward(tape, dy, wrt=None), TypeError, "wrt: expected"),
    "wrt a number": (lambda layer, tape, dy: layer.backward(tape, dy, wrt=(1,)), TypeError, "wrt: expected"),
}


@pytest.mark.parametrize("wrong", WRONG_BACKWARD)
def test_wrong_backward(wrong):
    spoil, error, start = WRONG_BACKWARD[wrong]

    def call(backend):
        layer = lstm(backend)
        tape = layer.forward(ones(T, B, I))[2]
        try:
            spoil(layer, tape, ones(T, B, H))
        finally:
            layer.backward(tape, ones(T, B, H))  # nothing has happened to it

    assert same_message(error, call).startswith(start)


@pytest.mark.parametrize("options", [{"return_sequence": False}, {}])
@pytest.mark.parametrize("unbatched", [False, True])
def test_the_shape_of_dy_is_that_of_y(unbatched, options):
    x = ones(T, I) if unbatched else ones(T, B, I)

    def call(backend, more=0):
        layer = lstm(backend)
        y, _, tape = layer.forward(x, **options)
        layer.backward(tape, ones(*y.shape[:-1], H + more))

    for backend in BACKENDS:
        call(backend)
    shape = (() if options else (T,)) + (() if unbatched else (B,)) + (H,)
    text = same_message(ValueError, lambda backend: call(backend, more=1))
    assert text.startswith(f"dy: expected a float32 array of shape {shape}, got float32 array of shape")


@both
def test_tapes_of_another_instruction_set(backend):
    layer, other = lstm(backend), lstm(backend)
    _, _, tape = layer.forward(ones(T, B, I))
    dy = ones(T, B, H)
    assert message(ValueError, lambda: other.backward(tape, dy)).startswith("tape: ")
    assert message(ValueError, lambda: lstm(_isa="baseline").backward(tape, dy)).startswith("tape: ")
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
        (lambda: stream.run(ones(T, B, I + 1)), ValueError),
        (lambda: stream.reset(rows=[0, B]), ValueError),
        (lambda: stream.reset(rows=2**63), ValueError),
        (lambda: stream.reset(rows=[True] * (B + 1)), ValueError),
        (lambda: stream.reset(rows="a"), TypeError),
        (lambda: stream.reset(rows=1.0), TypeError),
        (lambda: stream.generate(x, lambda y: 1 / 0, 3), ZeroDivisionError),
        (lambda: stream.generate(x, lambda y: y, 3), ValueError),
        (lambda: stream.generate(x, lambda y: x.astype(np.float64), 3), TypeError),
        (lambda: stream.generate(x, lambda y: None, 3), TypeError),
        (lambda: setattr(stream, "state", before[0]), TypeError),
        (lambda: setattr(stream, "state", (before[0][:, :1], before[1])), ValueError),
    ]:
        with pytest.raises(error):
            call()
        for now, then in zip(stream.state, before):
            np.testing.assert_array_equal(now, then)
    fresh = lstm(backend).freeze().stream(B)
    assert message(ValueError, lambda: fresh.run(ones(T, I))) == (
        f"x: expected a float32 array of shape (T, {B}, {I}), got float32 array of shape ({T}, {I})"
    )
    assert_same_bits(fresh.step(x), lstm(backend).step(x)[0])
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


NESTED: list = []
for _ in range(60_000):
    NESTED = [NESTED]

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
    ("LSTM", {"coupled": "I"}, ValueError),
    ("LSTM", {"coupled": 1}, TypeError),
    ("LSTM", {"coupled": np.zeros(2)}, TypeError),
    ("LSTM", {"clip": 0}, ValueError),
    ("LSTM", {"clip": -1.0}, ValueError),
    ("LSTM", {"clip": float("nan")}, ValueError),
    ("LSTM", {"clip": "1"}, TypeError),
    ("LSTM", {"dtype": np.float16}, TypeError),
    ("LSTM", {"dtype": "int32"}, TypeError),
    ("LSTM", {"dtype": ">f4"}, TypeError),
    ("LSTM", {"dtype": "nonsense"}, TypeError),
    ("LSTM", {"dtype": None}, TypeError),
    ("LSTM", {"dtype": 32}, TypeError),
    ("LSTM", {"backend": "torch"}, ValueError),
    ("LSTM", {"backend": None}, TypeError),
    ("RNN", {"nonlinearity": np.tanh}, TypeError),
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
    ("LSTM", {"seed": 1.5}, TypeError),
    ("LSTM", {"seed": True}, TypeError),
    ("LSTM", {"seed": [1, [2]]}, TypeError),
    ("LSTM", {"seed": [1, -2]}, ValueError),
    ("LSTM", {"seed": np.random.default_rng(0)}, TypeError),
    ("LSTM", {"seed": itertools.count()}, TypeError),
    ("LSTM", {"seed": NESTED}, TypeError),
    ("LSTM", {"clip": 10**400}, ValueError),
    ("LSTM", {"clip": -(10**400)}, ValueError),
    ("LSTM", {"clip": 10**5000}, ValueError),
    ("LSTM", {"clip": NESTED}, TypeError),
    ("LSTM", {"dropout": 10**400}, ValueError),
    ("LSTM", {"proj_size": 10**5000}, ValueError),
    ("LSTM", {"proj_size": -(10**5000)}, ValueError),
    ("RNN", {"activations": (("Elu", 10**400),)}, ValueError),
    ("RNN", {"activations": (("Affine", 1e39),)}, ValueError),
    ("RNN", {"activations": (("Affine", 1.0, -1e300),)}, ValueError),
    ("RNN", {"activations": (("Elu", np.longdouble("1e4000")),)}, ValueError),
    ("RNN", {"activations": NESTED}, TypeError),
    ("RNN", {"dtype": NESTED}, TypeError),
    ("LSTM", {"_isa": "sse9"}, ValueError),
]


@pytest.mark.parametrize(("kind", "options", "error"), WRONG_OPTIONS)
def test_wrong_options(kind, options, error):
    text = message(error, lambda: getattr(rnnkern, kind)(I, H, **options))
    (name,) = options
    assert name in text or name == "_isa"
    assert "expected" in text
    assert len(text) < 300


@pytest.mark.parametrize("seed", [3, 2**70, [1, 2], (1, 2), range(3), np.int64(3), np.array([1, 2]), np.array(3), []])
def test_seeds(seed):
    """As NumPy's, where that takes it."""
    plain = seed.tolist() if isinstance(seed, np.ndarray) else seed
    expected = np.random.default_rng(np.random.SeedSequence(plain).spawn(2)[0]).uniform(-1, 1, (H, I))
    np.testing.assert_array_equal(rnnkern.RNN(I, 1, seed=seed).weights["weight_ih_l0"][0], expected[0].astype("f4"))


def test_parameters_of_float64_may_be_larger():
    layer = rnnkern.RNN(I, H, activations=(("Affine", 1e300),), dtype=np.float64)
    assert np.isfinite(layer(np.full((1, 1, I), 1e-200))[0]).all()
    assert rnnkern.RNN(I, H, clip=1e300).clip is None  # beyond every float32
    assert rnnkern.RNN(I, H, clip=1e300, dtype=np.float64).clip == 1e300


@pytest.mark.parametrize("number", [2**70, 10**5000], ids=["large", "of thousands of digits"])
def test_numbers_beyond_64_bits(number):
    layer = lstm()
    stream = layer.freeze().stream()
    for name, call in [
        ("n", lambda: rnnkern.set_num_threads(number)),
        ("n", lambda: rnnkern.num_threads(number).__enter__()),
        ("T", lambda: rnnkern.explain(layer, number, 1)),
        ("B", lambda: rnnkern.explain(layer, 1, number)),
        ("batch_size", lambda: layer.freeze().stream(number)),
        ("steps", lambda: stream.generate(ones(1, I), lambda y: ones(1, I), number)),
        ("rows", lambda: stream.reset(number)),
        ("rows", lambda: stream.reset([number])),
        ("ignore_index", lambda: rnnkern.linear_cross_entropy(*[None] * 4, ignore_index=number)),
    ]:
        assert message(ValueError, call).startswith(f"{name}: expected an in")


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


# Arrays of any layout


def shifted(array):
    """The same values at an odd address."""
    odd = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, array.size, offset=1).reshape(array.shape)
    odd[...] = array
    assert not odd.flags.aligned
    return odd


def read_only(array):
    copied = array.copy()
    copied.flags.writeable = False
    return copied


def between(array):
    """Every third value of a larger array."""
    larger = np.full((*array.shape[:-1], array.shape[-1] * 3), np.nan, array.dtype)
    larger[..., 1::3] = array
    return larger[..., 1::3]


LAYOUTS = {
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "reversed everywhere": lambda array: np.flip(np.flip(array).copy()),
    "transposed": lambda array: array.swapaxes(0, -1).copy().swapaxes(0, -1),
    "between others": between,
    "misaligned": shifted,
    "bytes": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


def everything(backend, x, h, c, dy, dh, dc, x_t):
    """All that a layer can compute of these."""
    layer = lstm(backend, num_layers=2)
    y, last, tape = layer.forward(x, (h, c), lengths=[5, 1, 3])
    grads = layer.backward(tape, dy, (dh, dc))
    stream = layer.freeze().stream(B, (h, c))
    return y, *last, grads.x, *grads.state, *grads.weights.values(), stream.step(x_t), stream.run(x), *stream.state


@both
@pytest.mark.parametrize("argument", ["x", "h", "c", "dy", "dh", "dc", "x_t"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_just_works(layout, argument, backend):
    random = np.random.default_rng(0)
    shapes = {"x": (T, B, I), "dy": (T, B, H), **dict.fromkeys(("h", "c", "dh", "dc"), (2, B, H)), "x_t": (B, I)}
    plain = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    odd = plain | {argument: LAYOUTS[layout](plain[argument])}
    np.testing.assert_array_equal(odd[argument], plain[argument])
    for one, other in zip(everything(backend, **odd), everything(backend, **plain)):
        assert_same_bits(one, other)


@both
@pytest.mark.parametrize("shape", [(1, 1, 1), (T, 1, 1), (1, B, 1), (1, 1, I), (T, B, 1), (T, 1, I), (1, B, I)])
def test_broadcast_inputs_just_work(shape, backend):
    few = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x, dy = np.broadcast_to(few, (T, B, I)), np.broadcast_to(few[..., :1], (T, B, H))
    h = np.broadcast_to(few[:1, :, :1], (2, B, H))
    odd = everything(backend, x, h, h, dy, h, h, x[0])
    h = h.copy()
    for one, other in zip(odd, everything(backend, x.copy(), h, h, dy.copy(), h, h, x[0].copy())):
        assert_same_bits(one, other)


@both
def test_an_out_that_cannot_take_the_result_as_it_is(backend):
    stream = lstm(backend).freeze().stream(B)
    good = ones(B, H)
    for odd in (shifted(good), between(good), np.asfortranarray(good), np.broadcast_to(good[:1], (B, H))):
        with pytest.raises(ValueError, match="out: expected a contiguous, writable array"):
            stream.step(ones(B, I), out=odd)
        assert not stream.state[0].any()


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
@pytest.mark.parametrize("method", ["__call__", "forward", "trace"])
@pytest.mark.parametrize("shape", [(2**45, 1, 1), (1, 2**45, 1), (2**25, 2**25, 1)])
def test_what_cannot_be_allocated(shape, method, backend):
    layer = rnnkern.LSTM(1, 64, backend=backend)
    with pytest.raises(MemoryError):
        getattr(layer, method)(np.broadcast_to(np.float32(0), shape))


@pytest.mark.parametrize("method", ["__call__", "forward", "trace"])
@pytest.mark.parametrize("shape", [(2**55, 1, 1), (1, 2**55, 1), (2**31, 2**29, 1)])
def test_what_overflows(shape, method):
    x = np.broadcast_to(np.float32(0), shape)

    def call(backend):
        getattr(rnnkern.LSTM(1, 64, backend=backend), method)(x)

    assert same_message(ValueError, call) == f"x: {shape[0]} steps of {shape[1]} sequences overflow the address space"


LITTLE_MEMORY = """
import resource
import numpy as np, rnnkern
rnnkern.set_num_threads(1)
layer = rnnkern.LSTM(64, 64, num_layers=2, bidirectional={})
x = np.ones((200, 16, 64), np.float32)
y, _, tape = layer.forward(x)
expected = layer.backward(tape, y).x
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
for way in (
    lambda: layer(x),
    lambda: layer.forward(x),
    lambda: layer.forward(x, recompute=True),
    lambda: layer.trace(x),
    lambda: layer.freeze()(x),
    lambda: layer.backward(layer.forward(x)[2], y),
    lambda: layer.backward(layer.forward(x, recompute=True)[2], y),
):
    refused = 0
    for room in range(0, 96 << 20, 1 << 19):
        try:
            resource.setrlimit(resource.RLIMIT_AS, (size + room, limits[1]))
            way()
            break
        except MemoryError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    else:
        raise SystemExit("never enough")
    print(refused, "refused")
    assert np.array_equal(layer(x)[0], y)
    assert np.array_equal(layer.backward(tape, y).x, expected)
print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer reserves the address space")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_memory_that_runs_out_anywhere(bidirectional):
    """With a little more memory each time, until it is enough: a MemoryError, and everything goes on working."""
    program = LITTLE_MEMORY.format(bidirectional)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["alive"], done.stdout + done.stderr
    counts = [int(line.split()[0]) for line in done.stdout.splitlines()[:-1]]
    assert sum(count > 3 for count in counts) >= 3, counts  # the limit was really met


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


@both
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of setting these
@pytest.mark.parametrize("return_sequence", [True, False])
@pytest.mark.parametrize("name", ["dtype", "shape", "strides", "writeable"])
def test_a_tape_needs_the_values_of_x_and_y_not_their_looks(name, return_sequence, backend):
    layer = lstm(backend)
    x = np.random.default_rng(0).standard_normal((T, 50, I)).astype(np.float32)
    y, _, tape = layer.forward(x, return_sequence=return_sequence)
    dy = y.copy()
    expected = layer.backward(tape, dy)
    for array in (x, y):
        if name == "writeable":
            array.flags.writeable = False
        else:
            setattr(array, name, {"dtype": np.int8, "shape": (-1,), "strides": (0,) * array.ndim}[name])
    grads = layer.backward(tape, dy)
    assert_same_bits(grads.x, expected.x)
    for weight, gradient in grads.weights.items():
        assert_same_bits(gradient, expected.weights[weight])


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_tape_sees_that_memory_was_given_back(name):
    layer = lstm()
    x = np.random.default_rng(0).standard_normal((T, 50, I)).astype(np.float32)
    y, _, tape = layer.forward(x)
    dy = y.copy()
    {"x": x, "y": y}[name].resize((1,), refcheck=False)
    with pytest.raises(RuntimeError, match="x or y has changed since forward"):
        layer.backward(tape, dy)


# Instruction sets


def import_with(isa):
    code = "from rnnkern import _core; print(_core.default_isa())"
    env = {name: value for name, value in os.environ.items() if name != "RNNKERN_ISA"}
    env |= {} if isa is None else {"RNNKERN_ISA": isa}
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


@pytest.mark.skipif("RNNKERN_ISA" in os.environ, reason="compares with what is chosen without it")
def test_an_empty_name_is_none():
    assert import_with("").stdout == import_with(None).stdout == f"{_core.default_isa()}\n"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="asks for the other architecture's")
def test_an_instruction_set_of_another_architecture():
    done = import_with("neon")
    assert done.stderr.splitlines()[-1].startswith("ImportError: RNNKERN_ISA: expected")


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
