"""The NumPy reference: every gradient against finite differences, the common cells against PyTorch."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from rnnkern.reference import ACTIVATIONS, CELLS, backward, forward
from rnnkern.reference.activations import activate, activate_backward, sigmoid
from rnnkern.spec import Spec
from tolerance import CENTRAL_DIFFERENCE, assert_close

FLOAT64 = np.dtype(np.float64)
PARAMETERS = {  # alpha and beta where ONNX's functions have them; no kink within a difference of 0
    "Affine": (0.7, 0.2),
    "Elu": (0.8, 0.0),
    "HardSigmoid": (0.3, 0.45),
    "LeakyRelu": (0.1, 0.0),
    "ScaledTanh": (1.3, 0.7),
    "ThresholdedRelu": (0.05, 0.0),
}
USUAL = {"rnn": ("Tanh",), "jordan": ("Tanh",), "lstm": ("Sigmoid", "Tanh", "Tanh")}
GRU = ("Sigmoid", "Tanh")


def make_spec(family, input_size=2, hidden_size=3, activations=None, **options):
    names = activations or USUAL.get(family, GRU)
    parsed = tuple((name, *PARAMETERS.get(name, (0.0, 0.0))) for name in names)
    return Spec(family, input_size, hidden_size, activations=(parsed, parsed), dtype=FLOAT64, **options)


class Problem:
    """A network with random weights, input, states and gradients arriving at its results."""

    def __init__(self, spec, steps=3, batch=2, lengths=None, masks=False, seed=0):
        random = np.random.default_rng(seed)
        self.spec, self.lengths = spec, lengths
        normal = lambda *shape: random.standard_normal(shape)  # noqa: E731
        self.weights = {name: normal(*shape) * 0.6 for name, shape in spec.weight_shapes().items()}
        self.x = normal(steps, batch, spec.input_size)
        parts, width = spec.num_layers * spec.num_directions, spec.num_directions * spec.output_size
        sizes = (spec.output_size, spec.hidden_size) if spec.has_cell_state else (spec.output_size,)
        self.state = tuple(normal(parts, batch, size) for size in sizes)
        self.dy = normal(steps, batch, width)
        self.dstate = tuple(normal(parts, batch, size) for size in sizes)
        shape = (spec.num_layers - 1, steps, batch, width)
        self.masks = list(random.choice([0.0, 2.0], shape)) if masks else None

    def forward(self):
        return forward(self.spec, self.weights, self.x, self.state, self.lengths, self.masks)

    def loss(self):
        y, state, _ = self.forward()
        return (y * self.dy).sum() + sum((a * b).sum() for a, b in zip(state, self.dstate))

    def gradients(self):
        """(name, array, gradient) of everything that the loss depends on."""
        dx, dstate, dweights = backward(self.spec, self.weights, self.forward()[2], self.dy, self.dstate)
        yield "x", self.x, dx
        yield from zip(("h0", "c0"), self.state, dstate)
        for name, weight in self.weights.items():
            yield name, weight, dweights[name]


def central_differences(loss, array):
    step = np.finfo(array.dtype).eps ** (1 / 3)
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        result[index] = (above - loss()) / (2 * step)
        array[index] = value
    return result


def check_gradients(problem):
    for name, array, gradient in problem.gradients():
        assert gradient.dtype == array.dtype
        expected = central_differences(problem.loss, array)
        scale = 1 + max(abs(problem.loss()), np.abs(expected).max())
        assert_close(gradient, expected, array.size, order=CENTRAL_DIFFERENCE, scale=scale, name=name)
        assert np.any(gradient != 0), name


LSTM_OPTIONS = [
    {},
    {"peephole": True},
    {"proj_size": 2},
    {"peephole": True, "proj_size": 2},
]
CELL_OPTIONS = [
    *[("rnn", {"activations": (name,)}) for name in ("Tanh", "Relu", "Identity")],
    *[("lstm", dict(o, coupled=c)) for o, c in itertools.product(LSTM_OPTIONS, (None, "i", "f"))],
    ("gru_reset_after", {}),
    ("gru_reset_before", {}),
    *[("jordan", {"proj_size": size, "softmax": softmax}) for size, softmax in ((3, True), (1, False), (7, False))],
]
LAYERS = {
    "plain": ({}, {}),
    "clip": ({"clip": 0.6}, {}),
    "no bias": ({"bias": False}, {}),
    "ragged": ({}, {"lengths": np.array([2, 4, 1]), "steps": 4, "batch": 3}),
    "reverse": ({"bidirectional": True}, {"lengths": np.array([3, 1]), "steps": 3}),
    "deep": ({"num_layers": 2, "bidirectional": True, "hidden_size": 2}, {"masks": True, "batch": 3}),
}
name_of = lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())  # noqa: E731


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(("family", "options"), CELL_OPTIONS, ids=name_of)
def test_gradients(family, options, layers):
    extra, call = LAYERS[layers]
    if "hidden_size" in extra and "proj_size" in options and family == "lstm":
        options = dict(options, proj_size=1)
    check_gradients(Problem(make_spec(family, **options, **extra), **call))


def rotations(length):
    """Every activation once in every position of a cell's list."""
    names = sorted(ACTIVATIONS)
    return [tuple(names[(k + 5 * j) % len(names)] for j in range(length)) for k in range(len(names))]


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(
    ("family", "names"),
    [(family, names) for family in CELLS for names in rotations(len(USUAL.get(family, GRU)))],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_gradients_of_activations(family, names, clip):
    spec = make_spec(family, activations=names, clip=clip, input_size=1, hidden_size=2)
    check_gradients(Problem(spec, batch=3, seed=1))


@pytest.mark.parametrize("coupled", ["i", "f"])
def test_the_derived_gate_is_ignored(coupled):
    problem = Problem(make_spec("lstm", coupled=coupled, peephole=True))
    loss, row = problem.loss(), "if".index(coupled)
    gates = slice(3 * row, 3 * row + 3)
    for name, array in problem.weights.items():
        array[row if "peephole" in name else gates] = np.nan
    assert problem.loss() == loss
    for name, _, gradient in problem.gradients():
        assert np.isfinite(gradient).all(), name
        if "_l0" in name:
            assert not gradient[row if "peephole" in name else gates].any(), name


ACTIVATION_VALUES = [  # name, alpha, beta, x, f(x), f'(x), by hand
    ("Affine", 2.0, 3.0, -1.5, 0.0, 2.0),
    ("Elu", 2.0, 0.0, -1.0, 2 * (np.exp(-1) - 1), 2 * np.exp(-1)),
    ("Elu", 2.0, 0.0, 1.5, 1.5, 1.0),
    ("HardSigmoid", 0.2, 0.5, 1.0, 0.7, 0.2),
    ("HardSigmoid", 0.2, 0.5, 4.0, 1.0, 0.0),
    ("HardSigmoid", 0.2, 0.5, -4.0, 0.0, 0.0),
    ("Identity", 0.0, 0.0, -3.0, -3.0, 1.0),
    ("LeakyRelu", 0.1, 0.0, -2.0, -0.2, 0.1),
    ("LeakyRelu", 0.1, 0.0, 2.0, 2.0, 1.0),
    ("Relu", 0.0, 0.0, -2.0, 0.0, 0.0),
    ("Relu", 0.0, 0.0, 2.0, 2.0, 1.0),
    ("ScaledTanh", 3.0, 0.5, 2.0, 3 * np.tanh(1), 1.5 / np.cosh(1) ** 2),
    ("Sigmoid", 0.0, 0.0, 2.0, 1 / (1 + np.exp(-2)), np.exp(-2) / (1 + np.exp(-2)) ** 2),
    ("Softplus", 0.0, 0.0, 1.0, np.log(1 + np.e), 1 / (1 + np.exp(-1))),
    ("Softsign", 0.0, 0.0, -3.0, -0.75, 1 / 16),
    ("Tanh", 0.0, 0.0, 0.5, np.tanh(0.5), 1 / np.cosh(0.5) ** 2),
    ("ThresholdedRelu", 1.5, 0.0, 1.0, 0.0, 0.0),
    ("ThresholdedRelu", 1.5, 0.0, 1.5, 0.0, 0.0),
    ("ThresholdedRelu", 1.5, 0.0, 2.0, 2.0, 1.0),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "alpha", "beta", "x", "value", "slope"), ACTIVATION_VALUES)
def test_activation_values(name, alpha, beta, x, value, slope, dtype):
    array, function = np.array([x], dtype), (name, alpha, beta)
    results = activate(array, function), activate_backward(np.ones_like(array), array, function)
    for result, expected in zip(results, (value, slope)):
        assert result.dtype == dtype
        assert_close(result, np.array([expected]))


def test_activation_values_cover_all():
    assert {name for name, *_ in ACTIVATION_VALUES} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_nan(name):
    for clip in (None, 1.0):
        assert np.isnan(activate(np.array([np.nan]), (name, 0.5, 0.5), clip))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_does_not_overflow(dtype):
    with np.errstate(over="raise", invalid="raise"):
        values = sigmoid(np.array([-np.inf, -1e4, -80, 80, 1e4, np.inf], dtype))
    np.testing.assert_array_equal(values[[0, 1, 3, 4, 5]], [0, 0, 1, 1, 1])
    assert_close(values[2], np.exp(-80.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_slope_of_elu_does_not_cancel(dtype):
    """Where the value is already -alpha: it is small, not zero, so an infinite gradient stays infinite."""
    x = np.array([-20, -40, -80], dtype)
    slopes = activate_backward(np.ones_like(x), x, ("Elu", 0.5, 0.0))
    np.testing.assert_allclose(slopes, 0.5 * np.exp(x.astype(np.float64)), rtol=1e-6)
    assert (activate_backward(np.full_like(x, np.inf), x, ("Elu", 0.5, 0.0)) == np.inf).all()


def test_clip_bounds_pre_activations():
    spec = make_spec("rnn", activations=("Identity",), clip=1.5, input_size=1, hidden_size=1)
    one = {name: np.ones(shape) for name, shape in spec.weight_shapes().items()} | {"bias_ih_l0": -np.ones(1)}
    y, _, tape = forward(spec, one, np.array([-1, 1, 1.5, -2]).reshape(4, 1, 1))
    np.testing.assert_array_equal(y.ravel(), [-1, 0, 1.5, -0.5])
    y, _, tape = forward(spec, one, np.array([1.5, 1.6, -4]).reshape(1, 3, 1))  # |a| <= clip passes
    np.testing.assert_array_equal(y.ravel(), [1.5, 1.5, -1.5])
    np.testing.assert_array_equal(backward(spec, one, tape, np.ones_like(y))[0].ravel(), [1, 0, 0])


@pytest.mark.parametrize(("family", "options"), CELL_OPTIONS, ids=name_of)
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (2, 0), (0, 0)])
def test_nothing_to_do(family, options, steps, batch):
    problem = Problem(make_spec(family, bidirectional=True, num_layers=2, **options), steps, batch)
    y, state, tape = problem.forward()
    assert y.shape == problem.dy.shape
    dx, dstate, dweights = backward(problem.spec, problem.weights, tape, problem.dy, problem.dstate)
    assert dx.shape == problem.x.shape
    assert not any(gradient.any() for gradient in dweights.values())
    for initial, last, dlast, dinitial in zip(problem.state, state, problem.dstate, dstate):
        np.testing.assert_array_equal(last, initial)
        np.testing.assert_array_equal(dinitial, dlast)


@pytest.mark.parametrize(("family", "options"), CELL_OPTIONS, ids=name_of)
def test_a_ragged_batch_is_its_sequences(family, options):
    spec = make_spec(family, num_layers=2, bidirectional=True, **options)
    lengths = np.array([3, 5, 1, 4])
    problem = Problem(spec, 5, 4, lengths)
    problem.x[np.arange(5)[:, None] >= lengths] = np.nan
    problem.dy[np.arange(5)[:, None] >= lengths] = np.nan
    y, state, tape = problem.forward()
    dx, dstate, dweights = backward(spec, problem.weights, tape, problem.dy, problem.dstate)
    total = {name: np.zeros_like(gradient) for name, gradient in dweights.items()}
    depth = 2 * spec.hidden_size + 1
    for row, length in enumerate(lengths):
        own = lambda arrays: tuple(array[:, row : row + 1] for array in arrays)  # noqa: E731, B023
        part = slice(0, length), slice(row, row + 1)
        y1, state1, tape1 = forward(spec, problem.weights, problem.x[part], own(problem.state))
        dx1, dstate1, dweights1 = backward(spec, problem.weights, tape1, problem.dy[part], own(problem.dstate))
        assert_close(y[part], y1, depth, length)
        assert_close(dx[part], dx1, depth, length)
        assert not y[length:, row].any()
        assert not dx[length:, row].any()
        for actual, expected in zip(own(state) + own(dstate), state1 + dstate1):
            assert_close(actual, expected, depth, length)
        for suffix, gates in tape.gates.items():
            for name, values in gates.items():
                assert_close(values[part], tape1.gates[suffix][name], depth, length)
                assert not values[length:, row].any()
        for name, gradient in dweights1.items():
            total[name] += gradient
    for name, gradient in dweights.items():
        assert_close(gradient, total[name], depth + lengths.sum(), 5, name=name)


@pytest.mark.parametrize(("family", "options"), CELL_OPTIONS, ids=name_of)
def test_float32(family, options):
    """The same in both precisions, and the calculation stays in its own."""
    exact = Problem(make_spec(family, 20, 30, num_layers=2, bidirectional=True, **options), 12, 3)
    single = Problem(exact.spec, 12, 3)
    single.spec = replace(exact.spec, dtype=np.dtype(np.float32))
    for problem in (exact, single):  # values that both can hold, and states that stay bounded
        narrow = lambda array: (array / 4).astype(np.float32).astype(problem.spec.dtype)  # noqa: E731, B023
        problem.weights = {name: narrow(weight) for name, weight in problem.weights.items()}
        problem.x, problem.dy = narrow(problem.x), narrow(problem.dy)
        problem.state, problem.dstate = (tuple(map(narrow, arrays)) for arrays in (problem.state, problem.dstate))
    (y, state, _), (y1, state1, _) = exact.forward(), single.forward()
    for actual, expected in zip((y1, *state1), (y, *state)):
        assert actual.dtype == np.float32
        assert_close(actual, expected, 90, 24)
    for (name, _, gradient1), (_, _, gradient) in zip(single.gradients(), exact.gradients()):
        assert gradient1.dtype == np.float32
        assert_close(gradient1, gradient, 90 + 36, 24, name=name)


TORCH_CASES = [
    ("rnn", "RNN", {"nonlinearity": "tanh"}, {}),
    ("rnn", "RNN", {"nonlinearity": "relu"}, {"activations": ("Relu",)}),
    ("lstm", "LSTM", {}, {}),
    ("lstm", "LSTM", {"proj_size": 3}, {"proj_size": 3}),
    ("gru_reset_after", "GRU", {}, {}),
]


@pytest.mark.parametrize("lengths", [None, [2, 6, 1, 4]], ids=["full", "packed"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("family", "layer", "torch_options", "options"), TORCH_CASES)
def test_torch(family, layer, torch_options, options, bias, lengths):
    torch = pytest.importorskip("torch", reason="the oracle of this test is PyTorch, which is not installed")
    rnn = torch.nn.utils.rnn
    sizes = {"num_layers": 2, "bidirectional": True, "bias": bias}
    module = getattr(torch.nn, layer)(4, 5, dtype=torch.float64, **sizes, **torch_options)
    problem = Problem(make_spec(family, 4, 5, **sizes, **options), 6, 4, None if lengths is None else np.array(lengths))
    module.load_state_dict({name: torch.tensor(weight) for name, weight in problem.weights.items()})

    x, *state = (torch.tensor(array, requires_grad=True) for array in (problem.x, *problem.state))
    given = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False) if lengths else x
    y, last = module(given, tuple(state) if layer == "LSTM" else state[0])
    y = rnn.pad_packed_sequence(y)[0] if lengths else y
    last = last if layer == "LSTM" else (last,)
    gradients = map(torch.tensor, (problem.dy, *problem.dstate))
    torch.autograd.backward((y, *last), tuple(gradients))

    own_y, own_state, _ = problem.forward()
    for actual, expected in zip((own_y, *own_state), (y, *last)):
        assert_close(actual, expected.detach().numpy(), 9, 12)
    expected = {"x": x, **dict(zip(("h0", "c0"), state)), **dict(module.named_parameters())}
    for name, _, gradient in problem.gradients():
        assert_close(gradient, expected[name].grad.numpy(), 9 + 24, 12, name=name)
