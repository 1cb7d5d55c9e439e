"""Results and tapes in memory that begins at cache lines and is used again, and inputs wherever they begin."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rnnkern
from harness import CELLS, DTYPES, ISAS, Case, assert_same_bits, make_inputs

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:  # NumPy 1
    from numpy.core.multiarray import get_handler_name

STEPS, BATCH, SIZE = 40, 16, 64  # y has 160 KiB, from 128 KiB on memory is used again


def sequence(steps=STEPS, size=SIZE, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((steps, BATCH, size)).astype(dtype)


def test_all_but_the_smallest_results_are_in_memory_of_our_own():
    layer, x = rnnkern.LSTM(SIZE, SIZE, seed=0), sequence()
    y, (h, _), tape = layer.forward(x)
    grads = layer.backward(tape, y)
    for array in (y, h, grads.x, layer(x[:1])[0]):
        assert get_handler_name(array) == "rnnkern"
        assert array.flags.owndata
        assert array.ctypes.data % 64 == 0
    assert get_handler_name(layer(x[:1, :3])[0]) == get_handler_name(np.empty(1 << 20))
    assert get_handler_name() == get_handler_name(np.empty(1 << 20)) == "default_allocator"


def test_it_is_used_again():
    layer, x = rnnkern.GRU(SIZE, SIZE, seed=0), sequence()
    places = {layer(x)[0].ctypes.data for _ in range(20)}
    assert len(places) < 10


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 1_000_000])
def test_results_can_be_resized(size):
    layer, x = rnnkern.RNN(SIZE, SIZE, seed=0), sequence()
    expected = layer(x)[0].copy()
    for _ in range(5):
        y, _ = layer(x)
        y.resize((size,), refcheck=False)
        y[:] = np.nan
        del y
        assert_same_bits(layer(x)[0], expected)


def test_several_threads_get_and_give_up_tapes_and_results():
    """Of several sizes, alive at the same time, not given up by the thread that made them."""
    layer = rnnkern.LSTM(SIZE, SIZE, seed=0)
    inputs = [sequence(steps) for steps in (40, 50, 60, 40, 90, 55, 50, 200)]

    def run(x):
        y, _, tape = layer.forward(x)
        return tape, y

    def gradients(made):
        tape, y = made
        grads = layer.backward(tape, y)
        return [grads.x, *grads.state, *grads.weights.values()]

    expected = [gradients(run(x)) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for actual, wanted in zip(pool.map(gradients, pool.map(run, inputs)), expected, strict=True):
                for a, b in zip(actual, wanted, strict=True):
                    assert_same_bits(a, b)


def test_arrays_may_live_until_the_end():
    code = """
import sys, numpy as np, rnnkern
layer = rnnkern.LSTM(64, 64)
sys.kept = [layer.forward(np.ones((steps, 16, 64), np.float32)) for steps in (40, 50, 900)]
del sys.kept[1]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("width", [70, 96])
def test_where_an_array_begins_changes_no_bit(width, cell, dtype, isa):
    case = Case(cell, steps=3, batch=5, input_size=width, hidden_size=width)
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)

    def results(offset):
        memory = np.empty(inputs.x.nbytes + 128, np.uint8)
        start = -memory.ctypes.data % 64 + offset
        x = memory[start : start + inputs.x.nbytes].view(dtype).reshape(inputs.x.shape)
        x[...] = inputs.x
        y, _, tape = layer.forward(x, inputs.state)
        grads = layer.backward(tape, inputs.dy, inputs.dstate)
        return [y, grads.x, *grads.weights.values()]

    for a, b in zip(results(0), results(np.dtype(dtype).itemsize), strict=True):
        assert_same_bits(a, b)
