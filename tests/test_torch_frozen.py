"""rnnkern.torch.freeze."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence

import rnnkern.torch
from torch_harness import (
    CELL_KINDS,
    B,
    H,
    I,
    T,
    assert_near,
    assert_same_bits,
    assert_same_type_and_text,
    every,
    given,
    kinds,
    leaves,
    normal,
    pair,
    raised,
    stock,
)

freeze = rnnkern.torch.freeze


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits(kind, dtype):
    theirs, ours = pair(kind, dtype=dtype)
    x = given(kind, dtype=dtype)
    for module in (ours, theirs):
        assert_same_bits(freeze(module)(x), ours(x))
    assert_near(leaves(freeze(theirs)(x)), leaves(theirs.double()(x.double())))


OPTIONS = [
    {"num_layers": 2, "bidirectional": True},
    {"batch_first": True, "bias": False},
    {"num_layers": 2, "dropout": 0.9},
]


@kinds
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(kind, options):
    """Dropout is off. With a state, unbatched, packed."""
    ours = pair(kind, **options)[1].eval()
    frozen = freeze(ours.train())
    ours.eval()
    parts = ours.num_layers * (1 + ours.bidirectional)
    for shape in ((T, B, I), (T, I), (1, 1, I)):
        x = normal(*shape)
        batch = () if len(shape) == 2 else (shape[0] if ours.batch_first else shape[1],)
        h = normal(parts, *batch, H)
        for hx in (None, (h, h / 2) if kind == "LSTM" else h):
            assert_same_bits(frozen(x, hx), ours(x, hx))
    for x in (normal(0, B, I), normal(T, B, I + 1), normal(T, B, I).float(), normal(I)):
        expected = raised(lambda x=x: ours(x))
        assert_same_type_and_text(raised(lambda x=x: frozen(x)), expected)
    packed = pack_padded_sequence(normal(T, B, I), torch.tensor([2, 5, 1]), enforce_sorted=False)
    assert_same_bits(frozen(packed), ours(packed))


def test_own_options():
    layer = rnnkern.torch.LSTM(I, H, proj_size=2, peephole=True, coupled="i", clip=0.5, dtype=torch.float64)
    x = normal(T, B, I)
    assert_same_bits(freeze(layer)(x), layer(x))
    assert not freeze(layer).matches(rnnkern.torch.LSTM(I, H, proj_size=2, dtype=torch.float64))


@every
def test_a_snapshot(kind):
    """Changes of the module don't reach it, and are seen by `matches`."""
    module = pair(kind)[1]
    frozen, x = freeze(module), given(kind)
    before = frozen(x)
    assert frozen.matches(module)
    weight = next(module.parameters())
    weight.data[0, 0] += 1e-9
    assert not frozen.matches(module)
    weight.data.add_(1)
    assert_same_bits(frozen(x), before)
    assert not torch.equal(leaves(module(x))[0], leaves(before)[0])
    assert freeze(module).matches(module)


def test_matches_is_bit_for_bit():
    module = stock("GRU")
    with torch.no_grad():
        module.bias_ih_l0.zero_()
        frozen = freeze(module)
        module.bias_ih_l0[0] = -0.0
        assert not frozen.matches(module)
        module.bias_ih_l0[0] = torch.nan
        assert freeze(module).matches(module)
    assert freeze(module).matches(copy.deepcopy(module))
    assert freeze(module).matches(rnnkern.torch.accelerate(copy.deepcopy(module)))
    other = stock("GRU", batch_first=True)
    other.load_state_dict(module.state_dict())
    assert not freeze(module).matches(other)
    assert not freeze(module).matches(copy.deepcopy(module).float())
    assert not freeze(module).matches(stock("LSTM"))
    with pytest.raises(TypeError, match="Linear"):
        freeze(module).matches(nn.Linear(2, 3))


@every
def test_no_parameters(kind):
    frozen = freeze(stock(kind))
    for ask in (
        lambda: frozen.parameters(),
        lambda: list(frozen.named_parameters()),
        lambda: frozen.load_state_dict({}),
        lambda: torch.optim.SGD(frozen.parameters(), lr=0.1),
    ):
        with pytest.raises(RuntimeError, match="no Parameters"):
            ask()
    assert frozen.state_dict() == {}
    assert list(frozen.buffers()) == list(frozen.children()) == []


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(I, H), nn.Linear(H, 2)

    def forward(self, x):
        self.rnn.flatten_parameters()
        h = x.new_zeros(self.rnn.num_layers, x.shape[1], self.rnn.hidden_size)
        return self.out(self.rnn(x, (h, h))[0])


def test_inside_a_larger_model():
    model = Model().double().eval()
    x = normal(T, B, I)
    expected = model(x)
    model.rnn = freeze(model.rnn)
    assert_near([model(x)], [expected])
    assert [name for name, _ in model.named_parameters()] == ["out.weight", "out.bias"]
    assert list(model.state_dict()) == ["out.weight", "out.bias"]
    assert len(list(model.parameters())) == 2
    model.load_state_dict(model.state_dict())
    for used in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.train(), model.to(torch.float64)):
        assert torch.equal(used(x), model(x))
    model(x).sum().backward()  # of what comes after it
    assert model.out.weight.grad is not None
    with pytest.raises(RuntimeError, match="stays where it is"):
        model.float()
    rnnkern.torch.restore(rnnkern.torch.accelerate(model))
    assert isinstance(model.rnn, rnnkern.torch.FrozenLayer)


@every
@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda frozen: pickle.loads(pickle.dumps(frozen))])
def test_copies(kind, how):
    module = stock(kind)
    frozen = freeze(module)
    copied = how(frozen)
    assert_same_bits(copied(given(kind)), frozen(given(kind)))
    assert copied.matches(module)
    assert repr(copied) == repr(frozen)
    assert repr(stock(kind)) in repr(frozen)


@every
def test_inference_only(kind):
    frozen = freeze(stock(kind))
    x = given(kind, requires_grad=True)
    with pytest.raises(RuntimeError, match="inference only"):
        frozen(x)
    state = normal(*((B, H) if kind in CELL_KINDS else (1, B, H)), requires_grad=True)
    with pytest.raises(RuntimeError, match="inference only"):
        frozen(x.detach(), (state, state) if kind.startswith("LSTM") else state)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert_same_bits(frozen(x), frozen(x.detach()))
    assert not leaves(frozen(x.detach()))[0].requires_grad
    with pytest.raises(RuntimeError, match="inference only"):
        torch.func.grad(lambda x: leaves(frozen(x))[0].sum())(x.detach())


def test_a_packed_sequence_that_requires_grad():
    frozen = freeze(stock("LSTM"))
    packed = pack_padded_sequence(normal(T, B, I, requires_grad=True), torch.tensor([5, 2, 1]))
    with pytest.raises(RuntimeError, match="inference only"):
        frozen(packed)


@every
def test_freezing_leaves_the_generator_alone(kind):
    module = stock(kind)
    state = torch.get_rng_state()
    freeze(module).matches(module)
    pickle.loads(pickle.dumps(freeze(module)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("wrong", [nn.Linear(2, 3), None, nn.LSTM, "LSTM", nn.Sequential(nn.LSTM(2, 3))], ids=str)
def test_what_cannot_be_frozen(wrong):
    with pytest.raises(TypeError, match="expected one of RNN, LSTM, GRU"):
        freeze(wrong)


def test_a_subclass_cannot_be_frozen():
    class Own(nn.LSTM):
        pass

    with pytest.raises(TypeError, match="Own"):
        freeze(Own(2, 3))


@pytest.mark.parametrize("options", [{"dtype": torch.bfloat16}, {"device": "meta"}], ids=str)
def test_weights_that_cannot_be_frozen(options):
    with pytest.raises(TypeError, match="float32 or float64 on the CPU"):
        freeze(nn.LSTM(2, 3, **options))


class Halved(nn.Module):
    """A parametrization that computes something else in training."""

    def forward(self, weight):
        return weight * 3 if self.training else weight / 2


WEIGHT = {"RNN": "weight_hh_l0", "LSTM": "weight_hh_l0", "GRUCell": "weight_ih"}
COMPUTED = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "prune": lambda module, name: prune.random_unstructured(module, name, 0.5),
    "prune twice": lambda module, name: prune.l1_unstructured(prune.random_unstructured(module, name, 0.3), name, 0.5),
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "parametrized orthogonal": parametrizations.orthogonal,
    "parametrized by the user": lambda module, name: parametrize.register_parametrization(module, name, Halved()),
}


def tensors_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict(keep_vars=True).items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", WEIGHT)
@pytest.mark.parametrize("how", COMPUTED)
def test_computed_weights(kind, how):
    """What the layer computes in evaluation mode, from its tensors as they are now, none of which changes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = rnnkern.torch.accelerate(COMPUTED[how](stock(kind), WEIGHT[kind]))
        module(given(kind))
        state = {name: torch.randn_like(tensor).abs() + 0.5 for name, tensor in module.state_dict().items()}
    module.load_state_dict({**state, **{name: t for name, t in module.state_dict().items() if "mask" in name}})
    before, random, weight = tensors_of(module), torch.get_rng_state(), vars(module).get(WEIGHT[kind])
    for _ in range(2):
        frozen = freeze(module)
        assert frozen.matches(module)
    assert all(map(torch.equal, before.values(), tensors_of(module).values()))
    assert torch.equal(torch.get_rng_state(), random)
    assert vars(module).get(WEIGHT[kind]) is weight
    assert module.training
    assert_same_bits(frozen(given(kind)), module.eval()(given(kind)))
    assert frozen.matches(module)
    with torch.no_grad():
        next(tensor for name, tensor in module.named_parameters() if WEIGHT[kind] in name).mul_(-3)
    if "spectral" not in how and "orthogonal" not in how:  # these don't depend on the scale, but for rounding
        assert not frozen.matches(module)


def test_computed_weights_in_parametrize_cached():
    """PyTorch's cache goes by addresses of modules."""
    modules = [parametrizations.weight_norm(stock("LSTM"), "weight_hh_l0") for _ in range(3)]
    for i, module in enumerate(modules):
        module.parametrizations.weight_hh_l0.original0.data.mul_(1 + i)
    with parametrize.cached():
        frozen = [freeze(module) for module in modules]
    for layer, module in zip(frozen, modules):
        assert layer.matches(module)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_frozen_in_other_modes():
    module = nn.utils.weight_norm(stock("GRU"), "weight_ih_l0")
    with torch.inference_mode():
        frozen = freeze(module)
    assert_near(leaves(frozen(normal(T, B, I))), leaves(module(normal(T, B, I))))
    assert not any(tensor.is_inference() for tensor in frozen._snapshot.parameters())
    with torch.device("meta"):
        assert freeze(module).matches(module)


def doubled(module, arguments):
    return (arguments[0] * 2, *arguments[1:])


class OwnPruning(prune.Identity):
    """Does more than to set a weight."""

    def __call__(self, module, inputs):
        super().__call__(module, inputs)
        return doubled(module, inputs)


UNFIT = {
    "a forward pre-hook": lambda module: module.register_forward_pre_hook(doubled),
    "with kwargs": lambda module: module.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
    "a forward hook": lambda module: module.register_forward_hook(lambda module, arguments, result: result),
    "a forward hook that looks on": lambda module: module.register_forward_hook(lambda *_: None, always_call=True),
    "pruning with more to it": lambda module: OwnPruning.apply(module, next(iter(dict(module.named_parameters())))),
    "another forward": lambda module: setattr(module, "forward", doubled),
    "PyTorch's forward": lambda module: setattr(module, "forward", nn.Module.forward),
}


@every
@pytest.mark.parametrize("how", UNFIT)
def test_what_a_frozen_layer_would_drop(kind, how):
    """Said, with its name; `matches` can't tell either."""
    module = stock(kind)
    frozen = freeze(module)
    UNFIT[how](module)
    for call in (freeze, frozen.matches):
        with pytest.raises(ValueError, match=r"expected one (whose results no hook|that its class) .*(hook|forward)"):
            call(module)
    if how == "a forward pre-hook":
        with pytest.raises(ValueError, match=r"the forward pre-hook doubled: remove it"):
            freeze(module)


def test_a_frozen_layer_is_one_while_weights_change():
    module, x, done = stock("LSTM", 16, 64), normal(2, 1, 16), threading.Event()

    def write():
        for i in itertools.cycle(range(100)):
            for weight in module.parameters():
                weight.data.fill_(i / 1000)
            if done.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            frozen = freeze(module)
            assert_same_bits(pickle.loads(pickle.dumps(frozen))(x), frozen(x))
    finally:
        done.set()
        writer.join()


def test_what_changes_no_result():
    """Hooks of backward, and those of the process, which a frozen layer calls too; a method put back in its place."""
    module, x = stock("LSTM"), normal(T, B, I)
    module.register_full_backward_hook(lambda *_: None)
    module.flatten_parameters = lambda: None
    module.forward = module.forward
    frozen = freeze(module)
    handle = nn.modules.module.register_module_forward_pre_hook(doubled)
    try:
        assert_same_bits(frozen(x), freeze(module)(x))
        assert_near(leaves(frozen(x)), leaves(module(x)))
    finally:
        handle.remove()
    handle = frozen.register_forward_pre_hook(doubled)
    assert_near(leaves(frozen(x)), leaves(module(x * 2)))


@every
def test_attributes(kind):
    """Those of PyTorch's, for a model's own code; they can't be changed, and the weights are not there."""
    options = (
        {} if kind in CELL_KINDS else {"num_layers": 2, "batch_first": True, "dropout": 0.5, "bidirectional": True}
    )
    module = stock(kind, **options)
    for how in (freeze, lambda module: pickle.loads(pickle.dumps(freeze(module))), lambda m: copy.copy(freeze(m))):
        frozen = how(module)
        names = [name for name, value in vars(module).items() if isinstance(value, (int, str, float))]
        for name in set(names) - {"training"}:
            assert getattr(frozen, name) == getattr(module, name)
            with pytest.raises(AttributeError, match="can't be changed"):
                setattr(frozen, name, getattr(module, name))
        frozen.flatten_parameters()
        for name in dict(module.named_parameters()):
            with pytest.raises(AttributeError, match=f"{name}: a frozen layer has no Parameters"):
                getattr(frozen, name)
            assert not hasattr(frozen, name)
            with pytest.raises(AttributeError, match="can't be changed"):
                setattr(frozen, name, getattr(module, name))
    for ask in (frozen.reset_parameters, lambda: setattr(frozen, "bias", nn.Parameter(torch.zeros(1)))):
        with pytest.raises((RuntimeError, AttributeError), match="frozen layer"):
            ask()
    with pytest.raises(RuntimeError, match="no Parameters"):
        frozen.weight = nn.Parameter(torch.zeros(1))
    assert freeze(module)._get_name() + "(" in repr(frozen)
    assert frozen.matches(module)


@every
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_traced_by_fx(kind):
    """TorchScript gets PyTorch's module; in fx's graph a frozen layer is a leaf, as PyTorch's are."""

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = freeze(stock(kind))

        def forward(self, x):
            return self.rnn(x)

    model, x = Around(), given(kind)
    assert_near(leaves(torch.jit.script(model)(x)), leaves(model(x)))
    graph = torch.fx.symbolic_trace(model)
    assert_same_bits(graph(x), model(x))
    assert "call_module" in [node.op for node in graph.graph.nodes]


def test_functional_call():
    frozen, x = freeze(stock("GRU")), normal(T, B, I)
    assert_same_bits(torch.func.functional_call(frozen, {}, x), frozen(x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_modes_and_transforms():
    """Traced, under autocast, in a graph, in forward mode: as the layer is."""
    theirs, ours = pair("LSTM", dtype=torch.float32)
    frozen, x = freeze(ours), normal(T, B, I, dtype=torch.float32)
    traced = torch.jit.trace(lambda x: frozen(x)[0], (x,), check_trace=False)
    other = normal(T, B, I, seed=7, dtype=torch.float32)
    assert torch.equal(traced(other), theirs(other)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert raised(lambda: theirs(x)) is not None or frozen(x)[0].dtype is theirs(x)[0].dtype
    x, frozen, theirs = x.double(), freeze(ours.double()), theirs.double()
    _, tangent = torch.func.jvp(lambda x: frozen(x)[0], (x,), (x,))
    _, expected = torch.func.jvp(lambda x: theirs(x)[0], (x,), (x,))
    assert torch.equal(tangent, expected)


def test_cells_of_no_units():
    with pytest.raises(TypeError, match="GRUCell"):
        freeze(stock("GRUCell", 3, 0))
