"""Code of the user's own that runs in the middle of a call, and arguments that no call could end with."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

import rnnkern
from harness import assert_same_bits

T, B, I, H = 40, 30, 20, 24  # noqa: E741
BACKENDS = ["native", "reference"]
both = pytest.mark.parametrize("backend", BACKENDS)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# What runs while arguments are read

SETUP = f"""
import gc
import numpy as np, rnnkern
T, B, I, H = {T}, {B}, {I}, {H}
x, dy = np.ones((T, B, I), np.float32), np.ones((T, B, H), np.float32)
h, c = np.ones((1, B, H), np.float32), np.ones((1, B, H), np.float32)

def shrink(array):
    '''A deed that gives an array's memory back, and has it used by others.'''
    def deed():
        array.resize(1, refcheck=False)
        deed.junk = [np.full(array.size, np.nan) for array in [np.empty(B * I)] * 50]
    return deed

class Number:
    def __init__(self, value, deed): self.value, self.deed = value, deed
    def __index__(self): self.deed(); return self.value

class Pair(tuple):
    def __getitem__(self, i): deed(); return tuple.__getitem__(self, i)
    def __len__(self): deed(); return tuple.__len__(self)
    def __iter__(self): deed(); return tuple.__iter__(self)

class Finalized:
    '''Garbage for the collector, whose finalizer does the deed.'''
    def __init__(self, deed): self.deed, self.me = deed, self
    def __del__(self): self.deed()

layer = rnnkern.LSTM(I, H, seed=0)
deep = rnnkern.LSTM(I, H, num_layers=2, dropout=0.5, seed=0)
tape = layer.forward(np.ones((T, B, I), np.float32))[2]
stream = layer.freeze().stream(B)
out = np.ones((B, H), np.float32)
"""

DEEDS = {
    "an element of lengths": "layer(x, (h, c), lengths=[Number(5, shrink(x))] + [T] * (B - 1))",
    "an element of lengths, training": "deep.forward(x, (h, c), lengths=[Number(5, shrink(x))] + [T] * (B - 1))",
    "an element of lengths, for a state": "layer.trace(x, (h, c), lengths=[Number(5, shrink(h))] + [T] * (B - 1))",
    "an element of lengths, the second time": """
seen = []
def deed():
    seen.append(0)
    if len(seen) == B + 1: x.resize((T * 9, B, I), refcheck=False)
deep.forward(x, lengths=[Number(5, deed)] * B)""",
    "an element of lengths, for the list": """
lengths = [Number(5, lambda: lengths.clear())] * B
layer(x, lengths=lengths)""",
    "a pair": "deed = shrink(x); layer(x, Pair((h, c)))",
    "a pair, training": "deed = shrink(x); deep.forward(x, Pair((np.concatenate([h, h]), np.concatenate([c, c]))))",
    "a pair, step": "row = x[0].copy(); deed = shrink(row); layer.step(row, Pair((h, c)))",
    "a pair, backward": "deed = shrink(dy); layer.backward(tape, dy, Pair((h, c)))",
    "a pair, stream": "deed = shrink(h); stream.state = Pair((h, c))",
    **{
        f"the collector, {name}": f"""
gc.set_threshold(1)
for array in (x, dy, h, c, row, out):
    garbage = [Finalized(shrink(array)) for _ in range(3)]
    del garbage
    {call}"""
        for name, call in {
            "call": "layer(x, (h, c))",
            "forward": "layer.forward(x, (h, c))",
            "trace": "layer.trace(x, (h, c))",
            "backward": "layer.backward(tape, dy, (h, c))",
            "step": "stream.step(row, out=out)",
        }.items()
    },
}


@pytest.mark.parametrize("deed", DEEDS)
def test_the_users_code_in_the_middle_of_a_call(deed):
    """It may lead to an error, or to none, but reads no memory that was given back."""
    body = (
        f"row = x[0].copy()\ntry:\n    exec({DEEDS[deed]!r})\nexcept (ValueError, RuntimeError, TypeError):\n    pass"
    )
    program = f"{SETUP}\n{body}\nassert not np.isnan(layer(np.ones((T, B, I), np.float32))[0]).any()\nprint('alive')"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("alive"), done.stdout + done.stderr


@both
def test_of_a_subclass_its_own_items_count(backend):
    """What a subclass of tuple or list makes of them is not asked."""

    class Endless(list):
        def __iter__(self):
            while True:
                yield 1

        __len__ = __getitem__ = __iter__

    class Pair(tuple):
        def __getitem__(self, i):
            raise AssertionError

        __len__ = __iter__ = __getitem__

    layer = rnnkern.LSTM(I, H, seed=0, backend=backend)
    x, lengths = normal(3, 2, I), [1, 2]
    state = normal(1, 2, H), normal(1, 2, H)
    expected, _ = layer(x, state, lengths=lengths)
    assert_same_bits(layer(x, Pair(state), lengths=Endless(lengths))[0], expected)
    assert "3 steps in all" in rnnkern.explain(layer, 3, 2, lengths=Endless(lengths))


# No end


@both
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}])
def test_endless_steps_of_no_sequences(backend, options):
    layer = rnnkern.GRU(I, H, backend=backend, seed=0, **options)
    T, width = 2**50, H * (2 if options else 1)
    x = np.empty((T, 0, I), np.float32)
    assert layer(x)[0].shape == layer(x, lengths=[])[0].shape == (T, 0, width)
    assert layer(x, return_sequence=False)[0].shape == (0, width)
    y, h, tape = layer.forward(x)
    assert layer.backward(tape, y, h).x.shape == (T, 0, I)
    for traced in (layer.trace(x), layer.trace_gradients(x), layer.trace_gradients(x, dy=y)):
        assert all(array.shape == (T, 0, H) for array in traced.values())


@both
def test_no_steps_of_endless_sequences(backend):
    layer = rnnkern.GRU(I, H, backend=backend, seed=0)
    for batch, error in [(2**50, MemoryError), (2**58, ValueError)]:
        for method in (layer, layer.forward, layer.trace):
            with pytest.raises(error):
                method(np.empty((0, batch, I), np.float32))


# Subclasses of ndarray


@both
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # NumPy's, of np.matrix
def test_a_matrix_is_an_array(backend):
    layer = rnnkern.LSTM(I, H, backend=backend, seed=0)
    x, h, dy = normal(T, I), normal(1, H), normal(T, H)
    expected, last, tape = layer.forward(x, (h, h))
    grads = layer.backward(tape, dy, (h, h))
    y, state, tape = layer.forward(np.matrix(x), (np.matrix(h), np.matrix(h)))
    again = layer.backward(tape, np.matrix(dy), (np.matrix(h), np.matrix(h)))
    stream = layer.freeze().stream()
    stream.step(np.matrix(x[:1]))
    ran = stream.run(np.matrix(x[1:]))
    for one, other in [(y, expected), (state[1], last[1]), (again.x, grads.x)]:
        assert type(one) is np.ndarray
        assert_same_bits(one, other)
    for name, gradient in grads.weights.items():
        assert_same_bits(again.weights[name], gradient)
    assert type(ran) is np.ndarray
    assert_same_bits(ran, layer(x)[0][1:])


class Tagged(np.ndarray):
    """An array that may have attributes."""


@both
@pytest.mark.parametrize("return_sequence", [True, False])
def test_an_array_that_refers_to_its_tape_is_freed(return_sequence, backend):
    layer = rnnkern.LSTM(I, H, backend=backend, seed=0)
    x = normal(T, B, I).view(Tagged).copy()
    x.tape = layer.forward(x, return_sequence=return_sequence)[2]
    assert layer.backward(x.tape, dstate=(np.ones((1, B, H), np.float32),) * 2).x.any()
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


MASKED = np.ma.masked_array(normal(T, B, I), mask=True)


@both
@pytest.mark.parametrize("argument", ["x", "h", "c", "dy", "dh", "lengths", "x_t", "out", "weight", "rows"])
def test_masked_arrays_are_refused(argument, backend):
    layer = rnnkern.LSTM(I, H, backend=backend, seed=0)
    given = {"x": normal(T, B, I), "h": normal(1, B, H), "c": normal(1, B, H), "dy": normal(T, B, H)}
    given |= {"dh": normal(1, B, H), "lengths": np.full(B, T), "x_t": normal(B, I), "out": normal(B, H)}
    given |= {"weight": normal(4 * H, I), "rows": np.arange(2)}
    given[argument] = np.ma.masked_array(given[argument], mask=False)
    before = layer.state_dict()
    with pytest.raises(TypeError) as caught:  # noqa: PT012
        _, _, tape = layer.forward(given["x"], (given["h"], given["c"]), lengths=given["lengths"])
        layer.backward(tape, given["dy"], (given["dh"], given["c"]))
        stream = layer.freeze().stream(B)
        stream.step(given["x_t"], out=given["out"])
        stream.reset(given["rows"])
        layer.load_state_dict({**before, "weight_ih_l0": given["weight"]})
    name = {"h": "state[0]", "c": "state[1]", "dh": "dstate[0]", "weight": "weight_ih_l0"}.get(argument, argument)
    assert str(caught.value).startswith(name)
    assert "masked" in str(caught.value)


def test_masked_arrays_are_refused_by_the_loss():
    given = {"h": normal(B, H), "weight": normal(5, H), "bias": normal(5), "targets": np.ones(B, int)}
    given["mask"] = np.ones(B, bool)
    rnnkern.linear_cross_entropy(**given)
    for name, value in given.items():
        with pytest.raises(TypeError, match=f"^{name}: .* masked "):
            rnnkern.linear_cross_entropy(**{**given, name: np.ma.masked_array(value)})
