"""Jordan's network by itself; test_kernels.py and test_promises.py run it with all other cells."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import rnnkern
from harness import DTYPES, ISAS, assert_all_same_bits, assert_same_bits, forward_backward, make_inputs
from harness import Case as HarnessCase
from tolerance import assert_close

T, B, I, H, O = 7, 3, 4, 6, 5  # noqa: E741
x = np.random.default_rng(0).standard_normal((T, B, I), np.float32)
both = pytest.mark.parametrize("backend", ["native", "reference"])


def jordan(output_size=O, output="softmax", **options):
    return rnnkern.Jordan(I, H, output_size, output, seed=0, **options)


def test_arguments():
    layer = rnnkern.Jordan(I, H, O)
    assert (layer.input_size, layer.hidden_size, layer.output_size, layer.output) == (I, H, O, "softmax")
    assert rnnkern.Jordan(I, H, O, "linear").output == "linear"
    shapes = {name: weight.shape for name, weight in layer.weights.items()}
    biases = {"bias_ih_l0": (H,), "bias_hh_l0": (H,), "bias_ho_l0": (O,)}
    assert shapes == {"weight_ih_l0": (H, I), "weight_hh_l0": (H, O), "weight_ho_l0": (O, H)} | biases
    assert layer.num_parameters == H * (I + O + 2) + O * (H + 1)
    assert not any("bias" in name for name in jordan(bias=False).weights)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((I, H), TypeError, "output_size"),
        ((I, H, 0), ValueError, "^output_size: expected an integer >= 1, got 0"),
        ((I, H, 2.5), TypeError, "^output_size: expected an integer"),
        ((I, H, O, "sigmoid"), ValueError, "^output: expected one of 'softmax', 'linear', got 'sigmoid'"),
        ((I, H, O, None), TypeError, "^output: expected one of 'softmax', 'linear', got NoneType"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        rnnkern.Jordan(*arguments)


@both
def test_wrong_states(backend):
    layer = jordan(backend=backend)
    for shape in [(1, B, H), (1, O), (B, O)]:
        with pytest.raises(ValueError, match=r"^state: expected a float32 array of shape \(1, 3, 5\)"):
            layer(x, np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match=r"^state: "):
        layer(x, (np.zeros((1, B, O), np.float32),) * 2)
    _, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match=r"^dy: expected a float32 array of shape \(7, 3, 5\)"):
        layer.backward(tape, np.zeros((T, B, H), np.float32))


@pytest.mark.parametrize("output", ["softmax", "linear"])
@pytest.mark.parametrize("output_size", [1, 5, 37])
def test_against_a_loop_in_pytorch(output, output_size):
    torch = pytest.importorskip("torch", reason="the oracle of this test is PyTorch, which is not installed")
    layer = jordan(output_size, output, dtype=np.float64)
    weights = {name[:-3]: torch.tensor(weight, requires_grad=True) for name, weight in layer.weights.items()}
    random = np.random.default_rng(1)
    values = x.astype(np.float64), random.standard_normal((1, B, output_size))
    given, state = (torch.tensor(value, requires_grad=True) for value in values)
    y_t, ys = state[0], []
    for x_t in given:
        a = torch.nn.functional.linear(x_t, weights["weight_ih"], weights["bias_ih"])
        h = torch.tanh(a + torch.nn.functional.linear(y_t, weights["weight_hh"], weights["bias_hh"]))
        y_t = torch.nn.functional.linear(h, weights["weight_ho"], weights["bias_ho"])
        y_t = torch.softmax(y_t, dim=1) if output == "softmax" else y_t
        ys.append(y_t)
    expected = torch.stack(ys)
    dy, dlast = random.standard_normal(expected.shape), random.standard_normal(state.shape)
    torch.autograd.backward((expected, y_t[None]), (torch.tensor(dy), torch.tensor(dlast)))

    y, last, tape = layer.forward(*values)
    grads = layer.backward(tape, dy, dlast)
    depth = I + 2 * H + output_size
    assert_close(y, expected.detach().numpy(), depth, T)
    assert_same_bits(last[0], y[-1])
    assert_close(grads.x, given.grad.numpy(), depth, T)
    assert_close(grads.state, state.grad.numpy(), depth, T)
    for name, weight in weights.items():
        assert_close(grads.weights[name + "_l0"], weight.grad.numpy(), depth + T * B, T, name=name)


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_the_identity_as_output_layer_it_is_elman(dtype, backend):
    layer = jordan(H, "linear", dtype=dtype, backend=backend)
    elman = rnnkern.RNN(I, H, dtype=dtype, backend=backend)
    layer.weights["weight_ho_l0"] = np.eye(H)
    layer.weights["bias_ho_l0"] = np.zeros(H)
    elman.load_state_dict({name: weight for name, weight in layer.weights.items() if "ho" not in name})
    inputs = make_inputs(HarnessCase("rnn_tanh", T, B, I, H, lengths=True), elman)
    actual, expected = forward_backward(layer, inputs), forward_backward(elman, inputs)
    assert_all_same_bits({name: actual[name] for name in expected}, expected)


@both
@pytest.mark.parametrize("output_size", [1, 2, O, 33])
def test_outputs_are_probabilities(backend, output_size):
    y, _ = jordan(output_size, dtype=np.float64, backend=backend)(x.astype(np.float64))
    assert (y > 0).all()
    assert_close(y.sum(axis=-1), np.ones((T, B)), output_size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output_size", [1, 3, 16, 21])
def test_extreme_logits(dtype, output_size, isa):
    """Softmax as elsewhere: shifts cancel, infinities and NaN stay in their row."""
    layer = rnnkern.Jordan(2, output_size, output_size, activations=("Identity",), dtype=dtype, _isa=isa)
    zeros = {name: np.zeros(weight.shape) for name, weight in layer.weights.items()}
    layer.load_state_dict(zeros | {"weight_ho_l0": np.eye(output_size), "weight_ih_l0": np.ones((output_size, 2))})
    lowest = np.zeros(output_size)
    lowest[1:] = -np.inf
    even, first = np.full(output_size, 1 / output_size), np.eye(1, output_size)[0]
    big = np.finfo(dtype).max
    for bias, a, expected in [
        (0, 500, even),
        (0, -big, even),
        (0, big, even),
        (0, np.inf, np.nan),
        (0, -np.inf, np.nan),
        (0, np.nan, np.nan),
        (lowest, 3, first),
        (-lowest, 3, np.full(output_size, np.nan) if output_size > 1 else first),
    ]:
        layer.weights["bias_ho_l0"][:] = bias
        given = np.array([[[a, 0], [1, 0]]], dtype)
        with np.errstate(invalid="ignore"):
            y, _ = layer(given)
        usual = np.broadcast_to(expected, output_size) if np.ndim(bias) else even
        assert_close(y[0, 0], np.broadcast_to(expected, output_size), output_size, name=f"{a}")
        assert_close(y[0, 1], usual, output_size, name="the row beside it")


@both
def test_copies(tmp_path, backend):
    layer = jordan(output="linear", bias=False, clip=0.5, dtype=np.float64, backend=backend)
    expected, _ = layer(x.astype(np.float64))
    layer.save(tmp_path / "jordan")
    for twin in (rnnkern.load(tmp_path / "jordan"), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        assert_same_bits(twin(x.astype(np.float64))[0], expected)
    assert repr(jordan()) == f"Jordan({I}, {H}, output_size={O})"
    with pytest.raises(ValueError, match=r"missing bias_ho_l0; weight_ho_l0: expected shape \(5, 6\), got \(6, 5\)"):
        jordan().load_state_dict(
            {name: w.T for name, w in jordan().weights.items() if name != "bias_ho_l0" and name != "weight_ih_l0"}
            | {"weight_ih_l0": np.zeros((H, I)), "weight_hh_l0": np.zeros((H, O))}
        )


@both
def test_trace(backend):
    layer = jordan(backend=backend)
    trace = layer.trace(x)
    assert list(trace) == ["h", "y"]
    y, _ = layer(x)
    assert_same_bits(trace["y"], y)
    weights = layer.weights
    logits = trace["h"] @ weights["weight_ho_l0"].T + weights["bias_ho_l0"]
    e = np.exp(logits)
    assert_close(y, e / e.sum(axis=-1, keepdims=True), H)
