"""Answers known from elsewhere: worked by hand, or printed by other programs."""

from __future__ import annotations

import numpy as np
import pytest

import rnnkern
from tolerance import assert_close

PRINTED = 5.1e-9
"""Half a unit of the last of eight decimals."""

pytestmark = pytest.mark.parametrize("backend", ["native", "reference"])


def load(layer, **weights):
    layer.load_state_dict({k: np.asarray(v).reshape(layer.weights[k].shape) for k, v in weights.items()})
    return layer


def test_elman_bptt(backend):
    """A tanh RNN whose gradients were printed elsewhere from NumPy's legacy random numbers."""
    random = np.random.RandomState(1)
    x, s0, W, U = random.randn(3, 1, 4), random.randn(5, 1), random.randn(5, 5), random.randn(5, 3)
    random.randn(3, 5)  # the output layer's weights, unused
    b = random.randn(5, 1)
    random.randn(3, 1)  # the output layer's bias
    ds = random.randn(5, 1, 4)
    rnn = rnnkern.RNN(3, 5, dtype=np.float64, backend=backend)
    load(rnn, weight_ih_l0=U, weight_hh_l0=W, bias_ih_l0=b, bias_hh_l0=np.zeros(5))
    _, _, tape = rnn.forward(x.transpose(2, 1, 0), s0.reshape(1, 1, 5))
    grads = rnn.backward(tape, ds.transpose(2, 1, 0))
    expected = {
        "dx": [
            [6.07961714e-02, 6.51523342e-02, 1.35284158e-02, -4.17389120e-01],
            [-1.87655227e-01, 1.88161638e-01, 2.76636979e-02, 5.88910236e-01],
            [-2.10309856e-01, 1.17512701e-01, -1.81722854e-05, 1.33762936e00],
        ],
        "ds0": [-0.04446273, -0.48089235, -0.20806299, 0.05651028, 0.24527145],
        "db": [0.02851001, 0.39449393, 0.35633039, -0.06492795, 0.33991813],
        "dU": [
            [-7.75341202e-02, 1.14056089e-03, -1.39468435e-01],
            [-3.76126305e-01, -2.71092586e-01, -7.68534819e-01],
            [-2.27890773e-01, -4.52402940e-01, -5.62591790e-02],
            [3.67591208e-02, 1.45958528e-01, 1.47219164e-02],
            [-1.16043009e00, -8.51763028e-01, -1.44090680e00],
        ],
        "dW": [
            [0.04560171, 0.04695379, 0.0257273, -0.02726464, 0.05504417],
            [0.37031535, 0.3703334, 0.38913814, -0.39608747, 0.36938758],
            [0.21223499, 0.3431846, 0.22255773, -0.35298064, 0.21136843],
            [-0.06210387, -0.06084794, -0.06470341, 0.06497274, -0.03480747],
            [0.78119033, 0.74650186, 0.34013264, -0.31155225, 0.6784628],
        ],
    }
    actual = {
        "dx": grads.x[:, 0].T,
        "ds0": grads.state[0, 0],
        "db": grads.weights["bias_ih_l0"],
        "dU": grads.weights["weight_ih_l0"],
        "dW": grads.weights["weight_hh_l0"],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=0, atol=PRINTED, err_msg=name)
    np.testing.assert_array_equal(grads.weights["bias_hh_l0"], grads.weights["bias_ih_l0"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_counter(backend, dtype):
    rnn = rnnkern.RNN(2, 2, nonlinearity="linear", bias=False, dtype=dtype, backend=backend)
    load(rnn, weight_ih_l0=np.ones((2, 2)), weight_hh_l0=np.ones((2, 2)))
    h, last = rnn(np.array([[1, 1], [1, 1], [2, 2]], dtype))
    np.testing.assert_array_equal(h, [[2, 2], [6, 6], [16, 16]])
    np.testing.assert_array_equal(h @ np.ones((2, 2)), [[4, 4], [12, 12], [32, 32]])
    np.testing.assert_array_equal(last, [[16, 16]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_cell_by_hand(backend, dtype):
    """One LSTM unit: x2 = 1 writes x1, x2 = -1 resets, x3 = 1 reads."""
    linear = ("Affine", 1.0, 0.0)
    lstm = rnnkern.LSTM(3, 1, activations=("Sigmoid", linear, linear), dtype=dtype, backend=backend)
    load(
        lstm,
        weight_ih_l0=[[0, 100, 0], [0, 100, 0], [1, 0, 0], [0, 0, 100]],
        bias_ih_l0=[-10, 10, 0, -10],
        weight_hh_l0=np.zeros(4),
        bias_hh_l0=np.zeros(4),
    )
    x = np.array([[3, 1, 0], [4, 1, 0], [2, 0, 0], [1, 0, 1], [3, -1, 0]], dtype)
    y, (_, c) = lstm(x)
    cell = lstm.trace(x)["c"].ravel()
    np.testing.assert_allclose(cell, [3, 7, 6.99977, 6.99950, 0], rtol=0, atol=5e-6)
    assert 0 <= cell[-1] < 6e-39
    np.testing.assert_array_equal(np.round(cell), [3, 7, 7, 7, 0])
    np.testing.assert_array_equal(np.round(y.ravel()), [0, 0, 0, 7, 0])
    np.testing.assert_array_equal(c.ravel(), cell[-1:])


def test_shapes_of_two_layers(backend):
    rnn = rnnkern.RNN(10, 20, 2, backend=backend)
    random = np.random.default_rng(0)
    x, h0 = (random.standard_normal(shape, np.float32) for shape in ((5, 3, 10), (2, 3, 20)))
    output, h_n = rnn(x, h0)
    assert output.shape == (5, 3, 20)
    assert h_n.shape == (2, 3, 20)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gru_with_open_gates_is_elman(backend, dtype, reset_after):
    """Reset gate 1 and update gate 0, by biases that saturate the gates."""
    gru = rnnkern.GRU(4, 6, reset_after=reset_after, dtype=dtype, backend=backend, seed=1)
    rnn = rnnkern.RNN(4, 6, dtype=dtype, backend=backend)
    gru.weights["bias_ih_l0"][:6] = 1000
    gru.weights["bias_ih_l0"][6:12] = -1000
    rnn.load_state_dict({name: weight[12:] for name, weight in gru.weights.items()})
    x = np.random.default_rng(0).standard_normal((9, 3, 4)).astype(dtype)
    for actual, expected in zip(gru(x), rnn(x), strict=True):
        assert_close(actual, expected, 10, 9)
    dy = np.ones((9, 3, 6), dtype)
    actual, expected = (layer.backward(layer.forward(x)[2], dy) for layer in (gru, rnn))
    assert_close(actual.x, expected.x, 10, 9)
    assert_close(actual.weights["weight_hh_l0"][12:], expected.weights["weight_hh_l0"], 37, 9)


def test_number_of_parameters(backend):
    assert rnnkern.LSTM(6, 32, backend=backend).num_parameters == 5120
