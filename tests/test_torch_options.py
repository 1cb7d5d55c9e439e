"""rnnkern.torch's layers with options that PyTorch has not got."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

import rnnkern
import rnnkern.torch
from harness import Case, assert_all_close
from torch_harness import (
    B,
    H,
    I,
    T,
    arrays,
    assert_near,
    assert_same_type_and_text,
    elsewhere,
    grads,
    leaves,
    normal,
    objective,
    on_kernels,
    raised,
)

OPTIONS = {
    "linear": ("RNN", {"nonlinearity": "linear"}),
    "clipped rnn": ("RNN", {"clip": 0.7}),
    "softsign": ("RNN", {"activations": ("Softsign",)}),
    "peephole": ("LSTM", {"peephole": True}),
    "coupled i": ("LSTM", {"coupled": True}),
    "coupled f": ("LSTM", {"coupled": "f", "bias": False}),
    "activations": ("LSTM", {"activations": (("HardSigmoid", 0.3, 0.4), "Softsign", ("Elu", 0.7)), "peephole": True}),
    "all": ("LSTM", {"peephole": True, "coupled": "i", "clip": 0.9, "proj_size": 3, "num_layers": 2}),
    "reset before": ("GRU", {"reset_after": False}),
    "reset before, all": ("GRU", {"reset_after": False, "bias": False, "clip": 0.8, "num_layers": 2}),
    "gru activations": ("GRU", {"activations": (("HardSigmoid", 0.2, 0.5), ("ScaledTanh", 1.2, 0.8))}),
    "directions": ("RNN", {"activations": ("Softplus", "ThresholdedRelu"), "bidirectional": True}),
}
every = pytest.mark.parametrize("name", OPTIONS)


def make(name, bidirectional=False, **more):
    """Of float64."""
    kind, options = OPTIONS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"bidirectional": bidirectional, **options, **more}
        return getattr(rnnkern.torch, kind)(I, H, **options, dtype=torch.float64)


def numpy_twin(layer, name, dtype):
    """rnnkern's NumPy layer with the same weights."""
    kind, options = OPTIONS[name]
    options = {"bidirectional": layer.bidirectional, "batch_first": layer.batch_first, **options}
    twin = getattr(rnnkern, kind)(I, H, **options, dtype=dtype)
    twin.load_state_dict({key: weight.numpy() for key, weight in layer.state_dict().items()})
    return twin


def case_of(layer):
    return Case("", T, B, I, H, (("num_layers", layer.num_layers), ("bidirectional", layer.bidirectional)))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_against_the_numpy_layers(name, dtype, batch_first):
    """Results and all gradients, also of sequences of different lengths."""
    for bidirectional, packed in itertools.product((False, True), repeat=2):
        layer = make(name, bidirectional, batch_first=batch_first).to(dtype)
        twin = numpy_twin(layer, name, np.float32 if dtype is torch.float32 else np.float64)
        parts = layer.num_layers * (1 + layer.bidirectional)
        x = normal(*((B, T, I) if batch_first else (T, B, I)), dtype=dtype, requires_grad=True)
        h = normal(parts, B, layer.proj_size or H, dtype=dtype, requires_grad=True)
        c = normal(parts, B, H, dtype=dtype, seed=2, requires_grad=True)
        hx = (h, c) if layer.mode == "LSTM" else h
        lengths = [2, T, 1] if packed else None
        given = pack_padded_sequence(x, torch.tensor(lengths), batch_first, False) if packed else x
        with on_kernels():
            y, last = layer(given, hx)
        if packed:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first)
        made = [y, *leaves(last)]
        cotangents = [normal(*tensor.shape, seed=5 + i, dtype=dtype) for i, tensor in enumerate(made)]
        torch.autograd.backward(made, cotangents)
        dy, *dstate = (tensor.numpy() for tensor in cotangents)
        state = tuple(leaf.detach().numpy() for leaf in leaves(hx))
        as_state = tuple if layer.mode == "LSTM" else (lambda members: members[0])
        expected_y, expected_last, tape = twin.forward(x.detach().numpy(), as_state(state), lengths=lengths)
        expected = twin.backward(tape, dy, as_state(dstate))
        found = {"y": y, **dict(zip("hc", leaves(last))), "dx": x.grad}
        found |= {f"d{key}": leaf.grad for key, leaf in zip("hc", leaves(hx))}
        found |= {f"d{key}": gradient for key, gradient in grads(layer).items()}
        members = expected_last if isinstance(expected_last, tuple) else (expected_last,)
        dmembers = expected.state if isinstance(expected.state, tuple) else (expected.state,)
        wanted = {"y": expected_y, **dict(zip("hc", members)), "dx": expected.x}
        wanted |= {f"d{key}": array for key, array in zip("hc", dmembers)}
        wanted |= {f"d{key}": array for key, array in expected.weights.items()}
        assert_all_close(arrays(found), wanted, case_of(layer))


@every
@pytest.mark.parametrize("bidirectional", [False, True])
def test_composite(name, bidirectional):
    """The way in PyTorch's operations agrees with the kernels: batches, packed, unbatched, with a state, dropout."""
    layer = make(name, bidirectional, batch_first=bidirectional)
    parts = layer.num_layers * (1 + layer.bidirectional)
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    packed = pack_padded_sequence(normal(*shape), torch.tensor([3, T, 1]), layer.batch_first, False)
    for x, batch in ((normal(*shape), (B,)), (normal(T, I), ()), (packed, (B,))):
        h = normal(parts, *batch, layer.proj_size or H)
        state = (h, normal(parts, *batch, H, seed=2)) if layer.mode == "LSTM" else h
        for hx in (None, state):
            results = []
            for run in (layer.forward, layer.forward_elsewhere):
                layer.zero_grad()
                torch.manual_seed(0)
                made = leaves(run(x, hx))
                objective(made).backward()
                results.append([*made, *grads(layer).values()])
            assert_near(*results, case_of(layer))


def test_composite_dropout():
    layer = make("all", dropout=0.5)
    results = []
    for run in (layer.forward, layer.forward_elsewhere):
        torch.manual_seed(0)
        results.append(leaves(run(normal(T, B, I), None)))
    assert_near(*results, case_of(layer))


@every
def test_gradients(name):
    layer = make(name)
    x = normal(3, 2, I, requires_grad=True)
    h = normal(layer.num_layers * (1 + layer.bidirectional), 2, layer.proj_size or H, requires_grad=True)
    c = normal(len(h), 2, H, seed=2, requires_grad=True)
    weights = dict(layer.named_parameters())

    def function(x, h, c, *values):
        hx = (h, c) if layer.mode == "LSTM" else h
        return tuple(leaves(functional_call(layer, dict(zip(weights, values)), (x, hx))))

    given = (x, h, c if layer.mode == "LSTM" else None, *weights.values())
    with on_kernels():
        assert gradcheck(function, given, fast_mode=True)
        assert gradgradcheck(function, given, fast_mode=True)


@every
def test_transforms_and_other_dtypes(name):
    """What goes another way with PyTorch's cells goes the composite way with these."""
    layer, x = make(name), normal(T, B, I)
    weights = {key: weight.detach() for key, weight in layer.named_parameters()}

    def loss(weights, x):
        return objective(functional_call(layer, weights, (x,)))

    with elsewhere():
        found = torch.func.grad(loss, argnums=(0, 1))(weights, x)
    x.requires_grad_()
    objective(layer(x)).backward()
    assert_near({**found[0], "x": found[1]}, {**grads(layer), "x": x.grad}, case_of(layer))
    x = x.detach()
    stacked = torch.func.vmap(lambda x: layer(x)[0])(torch.stack([x, x * 2]))
    assert_near([stacked[0], stacked[1]], [layer(x)[0], layer(x * 2)[0]], case_of(layer))
    low = copy.deepcopy(layer).bfloat16()
    assert low(x.bfloat16())[0].dtype is torch.bfloat16
    assert layer.to("meta")(x.to("meta"))[0].is_meta


@every
def test_in_a_graph(name):
    layer, x = make(name), normal(T, B, I)
    torch._dynamo.reset()
    before, torch._dynamo.config.allow_rnn = torch._dynamo.config.allow_rnn, True
    try:
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        results = []
        for call in (compiled, layer):
            layer.zero_grad()
            made = leaves(call(x))
            objective(made).backward()
            results.append([*made, *grads(layer).values()])
    finally:
        torch._dynamo.config.allow_rnn = before
    assert_near(*results, case_of(layer))


@every
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies(name, how):
    layer, x = make(name), normal(T, B, I)
    copied = how(layer)
    assert repr(copied) == repr(layer)
    assert all(map(torch.equal, leaves(copied(x)), leaves(layer(x))))
    again = make(name)
    again.load_state_dict(layer.state_dict())
    assert all(map(torch.equal, leaves(again(x)), leaves(layer(x))))


def test_peepholes_are_parameters():
    layer = rnnkern.torch.LSTM(I, H, num_layers=2, bidirectional=True, peephole=True)
    names = [name for name in layer.state_dict() if "peephole" in name]
    assert names == [f"weight_peephole{suffix}" for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse")]
    assert all(layer.get_parameter(name).shape == (3, H) for name in names)
    bound = H**-0.5
    assert all(0 < layer.get_parameter(name).abs().max() <= bound for name in names)
    assert set(layer.state_dict()) == set(rnnkern.LSTM(I, H, 2, bidirectional=True, peephole=True).weights)


def test_a_derived_gate_has_no_gradient():
    layer = make("coupled i")
    objective(layer(normal(T, B, I))).backward()
    assert (layer.weight_ih_l0.grad[:H] == 0).all()
    assert (layer.weight_ih_l0.grad[H:] != 0).any()


def test_usual_options_are_pytorch_s():
    """The defaults, spelt out, are a layer that `restore` can give back."""
    layer = rnnkern.torch.LSTM(I, H, peephole=False, coupled=False, activations=None, clip=None)
    assert type(rnnkern.torch.restore(layer)) is torch.nn.LSTM
    assert type(rnnkern.torch.restore(rnnkern.torch.GRU(I, H, reset_after=True))) is torch.nn.GRU
    layer = rnnkern.torch.GRU(I, H, reset_after=False)
    assert type(rnnkern.torch.restore(layer)) is rnnkern.torch.GRU
    with pytest.raises(TypeError, match="no layer with these options"):
        torch.jit.script(layer)


def test_shown():
    text = repr(rnnkern.torch.LSTM(I, H, peephole=True, clip=0.5))
    assert "peephole=True" in text
    assert "clip=0.5" in text


WRONG = [
    ("LSTM", {"peephole": 1}), ("LSTM", {"coupled": "x"}), ("LSTM", {"clip": -1.0}), ("LSTM", {"clip": "a"}),
    ("LSTM", {"activations": ("Tanh",)}), ("GRU", {"activations": ("Tanh", "Unknown")}), ("GRU", {"reset_after": 0}),
    ("RNN", {"activations": "Tanh"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "wrong"), WRONG, ids=str)
def test_wrong_options(kind, wrong):
    """The errors of the NumPy layers."""
    expected = raised(lambda: getattr(rnnkern, kind)(I, H, **wrong))
    assert isinstance(expected, (TypeError, ValueError))
    assert_same_type_and_text(raised(lambda: getattr(rnnkern.torch, kind)(I, H, **wrong)), expected)


@pytest.mark.parametrize("name", ["peephole", "reset before"])
def test_wrong_arguments(name):
    """PyTorch's types of errors."""
    layer = make(name)
    usual = getattr(torch.nn, layer.__class__.__name__)(I, H).double()
    h = normal(1, B, H + 1)
    wrong = [
        (normal(I), None), (normal(T, B, I + 1), None), (normal(0, B, I), None), (normal(T, B, I).float(), None),
        (normal(T, B, I), (h, h) if layer.mode == "LSTM" else h), (normal(T, B, I), 1.0), (None, None),
    ]  # fmt: skip
    for arguments in wrong:
        expected = raised(lambda arguments=arguments: usual(*arguments))
        assert expected is not None
        assert type(raised(lambda arguments=arguments: layer(*arguments))) is type(expected), arguments


@every
def test_no_sequences(name):
    layer = make(name)
    x = normal(T, 0, I, requires_grad=True)
    y, _ = layer(x)
    assert y.shape == (T, 0, (1 + layer.bidirectional) * (layer.proj_size or H))
    y.sum().backward()
    assert x.grad.shape == x.shape


HELD = {  # and what all pre-activations are to be, so that the activations are held there
    "clip": ("LSTM", {"clip": 0.5, "peephole": True}, 9),
    "coupled": ("LSTM", {"clip": 0.5, "coupled": "f"}, 9),
    "relu": ("LSTM", {"activations": ("HardSigmoid", "Relu", "Relu")}, -9),
    "thresholded relu": ("RNN", {"activations": (("ThresholdedRelu", 0.5),)}, -9),
    "hard sigmoid": ("RNN", {"activations": ("HardSigmoid",)}, 9),
    "gru": ("GRU", {"activations": ("HardSigmoid", "Relu")}, -9),
    "reset before": ("GRU", {"clip": 0.5, "reset_after": False}, 9),
}


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("in_torch", [False, True], ids=["kernels", "composite"])
@pytest.mark.parametrize("name", HELD)
def test_nothing_passes_where_an_activation_is_held(name, in_torch, value):
    kind, options, bias = HELD[name]
    layer = getattr(rnnkern.torch, kind)(I, H, **options)
    torch.nn.init.constant_(layer.bias_ih_l0, bias)
    x = torch.ones(1, B, I, requires_grad=True)
    y, _ = layer(x)
    dy = torch.zeros_like(y)
    dy[0, 1, 2] = value
    wanted = [x, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]
    for gradient in torch.autograd.grad(y, wanted, dy, create_graph=in_torch):
        assert not gradient.any()


@pytest.mark.parametrize("in_torch", [False, True], ids=["kernels", "composite"])
def test_the_derived_gate_is_ignored(in_torch):
    layer = make("coupled i")
    with torch.no_grad():
        for weight in layer.parameters():
            weight[:H] = torch.nan
    x = normal(T, B, I, requires_grad=True)
    y, _ = layer(x)
    assert y.isfinite().all()
    dx, *gradients = torch.autograd.grad(y.sum(), [x, *layer.parameters()], create_graph=in_torch)
    assert dx.isfinite().all()
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[:H].any()


@pytest.mark.parametrize(
    "text",
    [
        "GRU(3, 4, reset_after=False)",
        "RNN(3, 4, nonlinearity='linear')",
        "LSTM(3, 4, bidirectional=True, clip=3.0, peephole=True)",
        "LSTM(3, 4, activations=(('HardSigmoid', 0.2, 0.5), 'Relu', ('Elu', 1.0)))",
    ],
)
def test_repr_is_what_one_types(text):
    assert repr(eval(f"rnnkern.torch.{text}")) == f"rnnkern.torch.{text}"
