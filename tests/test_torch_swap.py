"""accelerate, restore and report."""

from __future__ import annotations

import copy
import socket

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrizations

import rnnkern.torch
from torch_harness import (
    CELL_KINDS,
    B,
    H,
    I,
    T,
    assert_near,
    assert_same_type_and_text,
    every,
    leaves,
    normal,
    objective,
    on_kernels,
    raised,
    stock,
)


class Model(nn.Module):
    """Recurrent modules of all kinds, at all depths."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(I, H)
        self.rnns = nn.ModuleList([stock("LSTM", H, H), nn.Sequential(stock("GRU", H, H))])
        self.cells = nn.ModuleDict({"a": stock("GRUCell", H, H), "b": stock("LSTMCell", H, H)})
        self.double()

    def forward(self, x):
        y = self.rnns[1](self.rnns[0](self.embed(x))[0])[0]
        return self.cells["b"](self.cells["a"](y[-1]))


@pytest.fixture(autouse=True)
def allow_rnn():
    """`accelerate` changes it for the whole process."""
    before, remembered = torch._dynamo.config.allow_rnn, rnnkern.torch.swap._allow_rnn_before
    torch._dynamo.config.allow_rnn, rnnkern.torch.swap._allow_rnn_before = False, None
    rnnkern.torch.swap._accelerated.clear()
    yield
    torch._dynamo.config.allow_rnn, rnnkern.torch.swap._allow_rnn_before = before, remembered


@every
def test_in_place(kind):
    module = stock(kind)
    attributes, weights = set(module.__dict__), dict(module.named_parameters())
    assert rnnkern.torch.accelerate(module) is module
    assert type(module) is getattr(rnnkern.torch, kind)
    assert isinstance(module, getattr(nn, kind))
    assert set(module.__dict__) == attributes
    assert all(module.get_parameter(name) is weight for name, weight in weights.items())
    assert repr(module) == "rnnkern.torch." + repr(stock(kind)), "a model's repr shows what is accelerated"
    assert rnnkern.torch.restore(module) is module
    assert type(module) is getattr(nn, kind)
    assert repr(module) == repr(stock(kind))
    assert set(module.__dict__) == attributes


def test_nested():
    model = Model()
    x = normal(T, B, I)
    expected, state, keys = leaves(model(x)), model.state_dict(), [name for name, _ in model.named_modules()]
    rnnkern.torch.accelerate(model)
    with on_kernels():
        assert_near(leaves(model(x)), expected)
    assert list(model.state_dict()) == list(state)
    assert [name for name, _ in model.named_modules()] == keys
    assert [type(module).__module__.split(".")[0] for module in (model.rnns[0], model.rnns[1][0], model.embed)] == [
        "rnnkern", "rnnkern", "torch",
    ]  # fmt: skip
    rnnkern.torch.restore(model)
    assert_near(leaves(model(x)), expected)
    assert all(not type(module).__module__.startswith("rnnkern") for module in model.modules())


def test_report():
    model = Model()
    before = rnnkern.torch.report(model)
    names = ["rnns.0", "rnns.1.0", "cells.a", "cells.b"]
    assert before.swapped == {}
    assert sorted(before.left) == sorted(names)
    assert not before.allow_rnn
    assert before.left["rnns.0"] == "torch.nn.LSTM: not accelerated"
    after = rnnkern.torch.report(rnnkern.torch.accelerate(model))
    assert sorted(after.swapped) == sorted(names)
    assert after.left == {}
    assert after.allow_rnn
    for name in names:
        assert after.swapped[name] == repr(model.get_submodule(name))
        assert name in str(after)
    assert "allow_rnn is True" in str(after)
    assert "no recurrent modules" in str(rnnkern.torch.report(nn.Linear(2, 2)))


def test_what_is_left_is_said_why():
    class Own(nn.LSTM):
        def forward(self, x, hx=None):
            return super().forward(x * 2, hx)

    model = nn.ModuleDict(
        {
            "own": Own(I, H),
            "low": nn.GRU(I, H, dtype=torch.bfloat16),
            "meta": nn.RNN(I, H, device="meta"),
            "none": nn.RNNCell(I, 0),
            "fine": nn.LSTM(I, H),
        }
    )
    report = rnnkern.torch.report(rnnkern.torch.accelerate(model))
    assert type(model["own"]) is Own
    assert list(report.swapped) == ["fine"]
    assert "subclass" in report.left["own"]
    assert "Own" in report.left["own"]
    assert "bfloat16" in report.left["low"]
    assert "meta" in report.left["meta"]
    assert "hidden_size is 0" in report.left["none"]
    x = normal(T, B, I, dtype=torch.float32)
    assert torch.equal(model["own"](x)[0], nn.LSTM.forward(model["own"], x * 2)[0])


def stock_path(*arguments):
    return arguments


@every
def test_a_replaced_forward(kind):
    """Whoever replaced it decides what runs; back in its place it is the class's own again."""
    model = nn.Sequential(stock(kind))
    own = model[0].forward
    model[0].forward = own
    rnnkern.torch.accelerate(model)
    assert f"{kind}.forward" in rnnkern.torch.report(model).left["0"], "PyTorch's, bound before"
    model[0].forward = stock_path
    report = rnnkern.torch.report(model)
    assert report.swapped == {}
    assert "its forward was replaced, by stock_path" in report.left["0"]
    del model[0].forward
    assert list(rnnkern.torch.report(model).swapped) == ["0"]
    model[0].forward = model[0].forward
    assert list(rnnkern.torch.report(model).swapped) == ["0"]
    model[0] = rnnkern.torch.freeze(rnnkern.torch.restore(stock(kind)))
    model[0].forward = stock_path
    report = rnnkern.torch.report(model)
    assert report.frozen == {}
    assert "stock_path" in report.left["0"]


@every
def test_a_class_whose_forward_was_replaced(kind, monkeypatch):
    """Where somebody replaced what all modules of a class of PyTorch's compute, they are left alone."""
    module = stock(kind)
    monkeypatch.setattr(getattr(torch.nn, kind), "forward", stock_path)
    assert rnnkern.torch.accelerate(module) is module
    report = rnnkern.torch.report(module)
    assert report.swapped == {}
    assert "its forward was replaced, by stock_path" in report.left[""]
    with pytest.raises(ValueError, match="forward was replaced, by stock_path"):
        rnnkern.torch.freeze(module)
    monkeypatch.undo()
    assert list(rnnkern.torch.report(rnnkern.torch.accelerate(module)).swapped) == [""]


class Counted(rnnkern.torch.LSTM):
    """Computes what ours does."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_everything_recurrent_is_in_the_report():
    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnns = nn.ModuleList([stock("LSTM"), stock("GRU"), stock("LSTMCell"), stock("RNNCell")]).float()

    x = normal(T, B, I)
    model = nn.ModuleDict(
        {
            "quantized": torch.ao.quantization.quantize_dynamic(Quantized(), dtype=torch.qint8),
            "quantizable": torch.ao.nn.quantizable.LSTM(I, H),
            "scripted": torch.jit.script(nn.Sequential(stock("GRU"))),
            "traced": torch.jit.trace(stock("LSTM"), (x,), check_trace=False),
            "frozen": rnnkern.torch.freeze(stock("LSTM")),
            "ours": Counted(I, H),
            "base": nn.RNNBase("LSTM", I, H),
            "other": nn.Linear(2, 2),
        }
    )
    report = rnnkern.torch.report(rnnkern.torch.accelerate(model))
    assert report.swapped == {"ours": "Counted(4, 6)"}
    assert report.frozen == {"frozen": "rnnkern.torch.FrozenLayer(LSTM(4, 6))"}
    quantized = [f"quantized.rnns.{i}" for i in range(4)]
    assert sorted(report.left) == sorted([*quantized, "quantizable", "scripted.0", "traced", "base"])
    assert all("quantized" in report.left[name] for name in (*quantized, "quantizable"))
    assert all("TorchScript" in report.left[name] for name in ("scripted.0", "traced"))
    assert "GRU" in report.left["scripted.0"]
    for name in (*report.left, *report.frozen):
        assert f" {name}: " in str(report)
    assert list(rnnkern.torch.report(model["scripted"]).left) == ["0"]
    assert list(rnnkern.torch.report(model["quantizable"]).left) == [""]
    assert "frozen            the model itself: " in str(rnnkern.torch.report(model["frozen"]))


def test_twice():
    model = Model()
    rnnkern.torch.accelerate(rnnkern.torch.accelerate(model))
    assert len(rnnkern.torch.report(model).swapped) == 4
    rnnkern.torch.restore(model)
    assert len(rnnkern.torch.report(model).left) == 4
    rnnkern.torch.restore(model)
    assert torch._dynamo.config.allow_rnn is False


@pytest.mark.parametrize("before", [False, True])
def test_allow_rnn(before):
    """Set once, and set back to what it was."""
    torch._dynamo.config.allow_rnn = before
    model = Model()
    rnnkern.torch.accelerate(nn.Linear(2, 2))
    assert torch._dynamo.config.allow_rnn is before
    rnnkern.torch.accelerate(model)
    other = rnnkern.torch.accelerate(Model())
    assert torch._dynamo.config.allow_rnn is True
    rnnkern.torch.restore(nn.Linear(2, 2))
    assert torch._dynamo.config.allow_rnn is True
    rnnkern.torch.restore(model)
    assert torch._dynamo.config.allow_rnn is True, "the other model still needs it"
    rnnkern.torch.restore(other)
    assert torch._dynamo.config.allow_rnn is before


@pytest.mark.parametrize("function", ["accelerate", "restore", "report"])
@pytest.mark.parametrize("wrong", [None, nn.LSTM, [nn.LSTM(2, 3)], "model", torch.zeros(3)], ids=repr)
def test_not_a_module(function, wrong):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        getattr(rnnkern.torch, function)(wrong)


def test_scripted_models():
    scripted = torch.jit.script(nn.Sequential(nn.LSTM(2, 3)))
    with pytest.raises(TypeError, match=r"before torch\.jit\.script"):
        rnnkern.torch.accelerate(scripted)


@every
def test_hooks_survive(kind):
    module, seen = stock(kind), []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    rnnkern.torch.accelerate(module)
    x = normal(*((B, I) if kind in CELL_KINDS else (T, B, I)), requires_grad=True)
    objective(leaves(module(x))[0]).backward()
    assert seen == ["forward", "backward"]


def test_restore_of_a_parametrized_module():
    model = nn.Sequential(parametrizations.weight_norm(stock("LSTM"), "weight_hh_l0"))
    kind, x = type(model[0]), normal(T, B, I)
    expected = leaves(model(x))
    rnnkern.torch.accelerate(model)
    assert list(rnnkern.torch.report(model).swapped) == ["0"]
    assert type(model[0]) is not kind
    with on_kernels():
        assert_near(leaves(model(x)), expected)
    rnnkern.torch.restore(model)
    assert type(model[0]).__mro__[1:] == kind.__mro__[1:]
    assert type(model[0]).__name__ == kind.__name__
    assert all(map(torch.equal, leaves(model(x)), expected))


def test_restore_leaves_what_pytorch_has_not_got():
    model = nn.Sequential(rnnkern.torch.LSTM(I, H, peephole=True), rnnkern.torch.GRU(H, H))
    rnnkern.torch.restore(model)
    assert [type(module) for module in model] == [rnnkern.torch.LSTM, nn.GRU]


def test_with_an_optimiser_in_between():
    """The Parameters stay the same objects, so an optimiser that is there already trains them."""
    models = [Model(), Model()]
    models[1].load_state_dict(models[0].state_dict())
    optimisers = [torch.optim.Adam(model.parameters()) for model in models]
    rnnkern.torch.accelerate(models[1])
    for _ in range(3):
        for model, optimiser in zip(models, optimisers):
            optimiser.zero_grad()
            objective(model(normal(T, B, I))).backward()
            optimiser.step()
    found, expected = (dict(model.named_parameters()) for model in models[::-1])
    assert_near(found, expected)


@pytest.fixture
def gloo():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize("order", ["accelerate first", "DDP first"])
@pytest.mark.usefixtures("gloo")
def test_ddp(order):
    expected, model = Model(), Model()
    model.load_state_dict(expected.state_dict())
    if order == "accelerate first":
        wrapped = nn.parallel.DistributedDataParallel(rnnkern.torch.accelerate(model))
    else:
        wrapped = rnnkern.torch.accelerate(nn.parallel.DistributedDataParallel(model))
    assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
    assert len(rnnkern.torch.report(wrapped).swapped) == 4
    x = normal(T, B, I)
    with on_kernels():
        objective(wrapped(x)).backward()
    objective(expected(x)).backward()
    found = {name.removeprefix("module."): weight.grad for name, weight in wrapped.named_parameters()}
    assert_near(found, {name: weight.grad for name, weight in expected.named_parameters()})


@pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed")
@pytest.mark.parametrize("order", ["accelerate first", "fully_shard first"])
@pytest.mark.usefixtures("gloo")
def test_fully_shard(order):
    """It gives modules a class of their own, with FSDPModule in front."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def shard(model):
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(model.rnns[0], mesh=mesh)
        fully_shard(model, mesh=mesh)

    expected, model = Model(), Model()
    model.load_state_dict(expected.state_dict())
    steps = [rnnkern.torch.accelerate, shard]
    for step in steps if order == "accelerate first" else steps[::-1]:
        step(model)
    assert type(model.rnns[0]).__name__ == "FSDPLSTM"
    report = rnnkern.torch.report(model)
    assert len(report.swapped) == 4
    assert report.swapped["rnns.0"] == "rnnkern.torch.FSDPLSTM(6, 6)"
    x = normal(T, B, I)
    for _ in range(2):
        with on_kernels():
            objective(model(x)).backward()
        objective(expected(x)).backward()
    found = {name: weight.grad.full_tensor() for name, weight in model.named_parameters()}
    assert_near(found, {name: weight.grad for name, weight in expected.named_parameters()})
    with pytest.raises(ValueError, match="forward pre-hook"):
        rnnkern.torch.freeze(model.rnns[0])
    rnnkern.torch.restore(model)
    assert isinstance(model.rnns[0], dist.fsdp.FSDPModule)
    assert not isinstance(model.rnns[0], rnnkern.torch.LSTM)
    assert_near(leaves(model(x)), leaves(expected(x)))


def test_deepcopy_of_a_model():
    model = rnnkern.torch.accelerate(Model())
    copied = copy.deepcopy(model)
    assert len(rnnkern.torch.report(copied).swapped) == 4
    rnnkern.torch.restore(copied)
    assert len(rnnkern.torch.report(model).swapped) == 4


def test_an_accelerated_model_has_pytorch_s_errors():
    model = Model()
    wrong = normal(T, B, I + 1)
    expected = raised(lambda: model(wrong))
    assert_same_type_and_text(raised(lambda: rnnkern.torch.accelerate(model)(wrong)), expected)
