"""What the grid doesn't have: single steps, ragged batches, deep and bidirectional networks, float64, recomputation."""

from __future__ import annotations

import numpy as np
import pytest

import rnnkern

LAYERS = {"lstm": rnnkern.LSTM, "gru": rnnkern.GRU, "rnn": rnnkern.RNN}


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape, dtype)


@pytest.fixture(params=LAYERS)
def kind(request):
    return LAYERS[request.param]


def test_smallest_step(benchmark, kind):
    """One step of one sequence, from NumPy to NumPy."""
    stream = kind(40, 96).freeze().stream()
    x = normal(1, 40)
    benchmark(stream.step, x)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("hidden", [64, 256])
def test_ragged(benchmark, kind, hidden, ragged):
    """Lengths uniform in T/4..T; without them the whole rectangle."""
    layer, x = kind(hidden, hidden).freeze(), normal(100, 32, hidden)
    lengths = np.random.default_rng(0).integers(25, 101, 32) if ragged else None
    benchmark(layer, x, lengths=lengths)


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize(
    "options", [{"num_layers": 2}, {"bidirectional": True}], ids=lambda options: next(iter(options))
)
def test_deep(benchmark, kind, options, batch):
    layer, x = kind(256, 256, **options).freeze(), normal(100, batch, 256)
    benchmark(layer, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_dtype(benchmark, kind, dtype):
    layer, x = kind(256, 256, dtype=dtype).freeze(), normal(100, 32, 256, dtype=dtype)
    benchmark(layer, x)


@pytest.mark.parametrize("recompute", [False, True])
def test_recompute(benchmark, kind, recompute):
    """Training that keeps the gates, and training that computes them again."""
    layer, x, dy = kind(128, 128), normal(100, 32, 128), normal(100, 32, 128)

    def train():
        _, _, tape = layer.forward(x, recompute=recompute)
        return layer.backward(tape, dy)

    benchmark(train)
