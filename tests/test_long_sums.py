"""Gradients that are sums over up to a million positions: their error does not grow with the number of positions."""

from __future__ import annotations

import numpy as np
import pytest

import rnnkern
from harness import CELLS, DTYPES, ISAS, Case, assert_all_same_bits, forward_backward, make_inputs
from rnnkern import linear_cross_entropy
from tolerance import assert_close, tolerance

SHORT = 256
"""Terms, at most, of the sums that longer ones are made of."""


def constant(shape, value, dtype):
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(("steps", "batch"), [(1000, 1000), (4, 50_000), (1, 100_000), (100_000, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_terms(dtype, steps, batch):
    """Each rounded addition of a tenth errs to the same side."""
    layer = rnnkern.RNN(1, 1, nonlinearity="linear", dtype=dtype)
    for weight in layer.weights.values():
        weight[...] = 0
    _, _, tape = layer.forward(constant((steps, batch, 1), 1, dtype))
    weights = layer.backward(tape, constant((steps, batch, 1), 0.1, dtype)).weights
    expected = dtype(float(dtype(0.1)) * steps * batch)
    assert weights["bias_ih_l0"] == weights["bias_hh_l0"] == expected
    assert_close(weights["weight_ih_l0"], np.full((1, 1), expected), depth=SHORT)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_sums_of_rows(dtype, isa):
    """Without recurrence, and with steps that are linear, the gradients are sums of what is given."""
    steps, batch, inputs, units = 1000, 300, 3, 2
    random = np.random.default_rng(0)
    x = (1 + random.standard_normal((steps, batch, inputs))).astype(dtype)
    dy = (0.1 + random.standard_normal((steps, batch, units))).astype(dtype)
    layer = rnnkern.RNN(inputs, units, nonlinearity="linear", dtype=dtype, seed=0, _isa=isa)
    layer.weights["weight_hh_l0"][...] = 0
    y, _, tape = layer.forward(x)
    weights = layer.backward(tape, dy).weights
    a = dy.reshape(-1, units).astype(np.longdouble)
    factors = {
        "weight_ih_l0": x.reshape(-1, inputs),
        "weight_hh_l0": np.concatenate([np.zeros_like(y[:1]), y[:-1]]).reshape(-1, units),
        "bias_ih_l0": np.ones((len(a), 1), dtype),
    }
    for name, b in factors.items():
        actual = weights[name].reshape(units, -1)
        expected = np.stack([(a[:, [unit]] * b).sum(axis=0) for unit in range(units)])
        terms = np.abs(expected).max()
        assert np.abs(actual - expected).max() <= tolerance(dtype) * terms, name


@pytest.mark.parametrize("cell", ["lstm_peephole", "gru_reset_before", "jordan_linear"])
def test_every_kind_of_weight(cell):
    """Float32 against float64."""
    case = Case(cell, steps=500, batch=500, input_size=2, hidden_size=4, state=False)
    inputs = make_inputs(case, case.layer())
    results = {}
    for dtype in DTYPES:
        layer = case.layer(dtype)
        _, _, tape = layer.forward((1 + inputs.x).astype(dtype))
        results[dtype] = layer.backward(tape, (0.1 + 0.1 * inputs.dy).astype(dtype)).weights
    for name, expected in results[np.float64].items():
        assert_close(results[np.float32][name], expected, depth=case.depth, name=name)


def test_output_layer():
    positions, random = 300_000, np.random.default_rng(0)
    h = (1 + random.standard_normal((positions, 3))).astype(np.float32)
    weight = random.standard_normal((5, 3)).astype(np.float32)
    targets = random.integers(0, 2, positions)
    results = {}
    for dtype in DTYPES:
        arguments = h.astype(dtype), weight.astype(dtype), np.zeros(5, dtype), targets
        loss, grads = linear_cross_entropy(*arguments, reduction="sum", gradient=True)
        results[dtype] = loss, grads.weight, grads.bias
    for actual, expected in zip(*results.values(), strict=True):
        assert_close(actual, expected, depth=3)


def test_float64_output_layer():
    """Equal positions: a loss and gradients that many times those of one."""
    positions = 300_000
    h, weight, bias = np.full((positions, 1), 0.1), np.array([[0.3], [-0.7]]), np.zeros(2)
    targets = np.zeros(positions, int)
    one = linear_cross_entropy(h[:1], weight, bias, targets[:1], gradient=True)
    many = linear_cross_entropy(h, weight, bias, targets, reduction="sum", gradient=True)
    assert_close(many[0], positions * one[0])
    assert_close(many[1].weight, positions * one[1].weight, depth=SHORT)
    assert_close(many[1].bias, positions * one[1].bias, depth=SHORT)


@pytest.mark.parametrize("options", [{}, {"lengths": True}], ids=["equal lengths", "ragged"])
@pytest.mark.parametrize("cell", CELLS)
def test_parts_of_sums_do_not_depend_on_the_threads(cell, options):
    """More rows than go to the gradients at once, by blocks of time of several sizes, and at once."""
    for steps, batch in ((40, 300), (3, 4000), (10_000, 1)):
        case = Case(cell, steps=steps, batch=batch, input_size=5, hidden_size=18, **options)
        layer = case.layer()
        inputs = make_inputs(case, layer)
        expected = forward_backward(layer, inputs)
        for threads in (1, 3):
            with rnnkern.num_threads(threads):
                assert_all_same_bits(forward_backward(layer, inputs, recompute=threads == 3), expected)
