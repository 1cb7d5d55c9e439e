"""Accelerated modules remain PyTorch's: copies, files, weights that are changed, replaced, shared, normed, pruned."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import rnnkern.torch
from torch_harness import (
    CELL_KINDS,
    B,
    H,
    I,
    T,
    assert_near,
    assert_same_bits,
    every,
    grads,
    kinds,
    leaves,
    normal,
    objective,
    on_kernels,
    pair,
    stock,
)

x = normal(T, B, I)


def given(kind):
    return x[0] if kind in CELL_KINDS else x


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": saved_and_loaded,
}


@every
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_copies(kind, how, used):
    module = pair(kind, bias=False)[1].eval()
    expected = module(given(kind))
    if used:
        objective(module(given(kind))).backward()
    copied = COPIES[how](module)
    assert type(copied) is type(module)
    assert not copied.training
    with on_kernels():
        assert_same_bits(copied(given(kind)), expected)
    name, weight = next(iter(copied.named_parameters()))
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(module.get_parameter(name), weight) == (how == "copy")


@every
def test_checkpoints_go_both_ways(kind):
    theirs, ours = stock(kind), getattr(rnnkern.torch, kind)(I, H).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for source, target in ((theirs, ours), (ours, theirs)):
        with torch.no_grad():
            for weight in source.parameters():
                weight.mul_(0.9)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        target.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        assert_near(leaves(ours(given(kind))), leaves(theirs(given(kind))))


@kinds
def test_load_state_dict_by_assignment(kind):
    module = getattr(rnnkern.torch, kind)(I, H, device="meta", dtype=torch.float64)
    theirs = stock(kind)
    module.load_state_dict(theirs.state_dict(), assign=True)
    with on_kernels():
        assert_near(leaves(module(x)), leaves(theirs(x)))


@kinds
def test_an_old_pickle(kind):
    """Without what PyTorch added later: __setstate__ fills it in."""
    module = pair(kind)[1]
    state = module.__getstate__()
    for name in ("proj_size", "_flat_weight_refs"):
        state.pop(name, None)
    again = type(module).__new__(type(module))
    again.__setstate__(state)
    assert_same_bits(again(x), module(x))


# Weights that change

CHANGES = {
    "in place": lambda weight, new: weight.copy_(new),
    "through data": lambda weight, new: weight.data.copy_(new),
    "data itself": lambda weight, new: setattr(weight, "data", new),
    "data, not contiguous": lambda weight, new: setattr(weight, "data", new.T.contiguous().T),
    "data, negated lazily": lambda weight, new: setattr(weight, "data", torch._neg_view(new)),
    "set_": lambda weight, new: weight.set_(new),
    "through numpy": lambda weight, new: weight.detach().numpy().__setitem__(..., new.numpy()),
}


@every
@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_weight_are_seen(kind, change):
    results = []
    for module in pair(kind):
        before = module(given(kind))
        weight = module.get_parameter("weight_hh" if kind in CELL_KINDS else "weight_hh_l0")
        with torch.no_grad():
            CHANGES[change](weight, normal(*weight.shape, seed=9))
        after = module(given(kind))
        objective(after).backward()
        results.append([*leaves(after), *grads(module).values()])
        if kind not in CELL_KINDS:
            assert not torch.equal(leaves(before)[0], leaves(after)[0])
        assert weight.grad is not None or kind in CELL_KINDS
    assert_near(*reversed(results))


@kinds
def test_a_weight_may_be_replaced(kind):
    """Also by a tensor that is no Parameter, as Graph Neural Networks and hypernetworks do."""
    results = []
    for module in pair(kind):
        module.weight_ih_l0 = nn.Parameter(normal(*module.weight_ih_l0.shape, seed=4))
        made = leaves(module(x))
        shape = module.weight_hh_l0.shape
        del module._parameters["weight_hh_l0"]
        source = normal(*shape, seed=5, requires_grad=True)
        module.weight_hh_l0 = source * 2
        made += leaves(module(x))
        objective(made).backward()
        results.append([*made, source.grad, *grads(module).values()])
    assert_near(*reversed(results))


def test_partial_flat_weights():
    """Port of test_partial_flat_weights: forward works while weights are deleted and set one by one."""
    results = []
    for module in pair("LSTM"):
        expected = module(x)
        weights = {name: module.get_parameter(name) for name in module.all_weights and module._flat_weights_names}
        for name in weights:
            del module._parameters[name]
        assert not hasattr(module, "weight_ih_l0")
        for name, weight in weights.items():
            setattr(module, name, weight.detach().clone())
        assert_same_bits(module(x), expected)
        module.double()
        results.append(leaves(module(x)))
    assert_near(*reversed(results))


@kinds
def test_conversions(kind):
    theirs, ours = pair(kind)
    for convert in (lambda m: m.float(), lambda m: m.double(), lambda m: m.to(torch.float32), lambda m: m.cpu()):
        convert(theirs)
        convert(ours)
        dtype = ours.weight_ih_l0.dtype
        with on_kernels():
            found = leaves(ours(x.to(dtype)))
        assert {tensor.dtype for tensor in found} == {dtype}
        assert_near(found, leaves(theirs.to(dtype)(x.to(dtype))))


def test_share_memory():
    module = pair("LSTM")[1]
    expected = module(x)
    module.share_memory()
    with on_kernels():
        assert_same_bits(module(x), expected)


@kinds
def test_weights_of_one_buffer(kind):
    """Views, at odd places of one storage, as flattened optimisers make them."""
    module = pair(kind, num_layers=2, dtype=torch.float32)[1]
    expected = module(x.float())
    flat = torch.cat([torch.zeros(1), *(weight.detach().flatten() for weight in module.parameters())])
    start = 1
    for weight in module.parameters():
        weight.data = flat[start : start + weight.numel()].view_as(weight)
        start += weight.numel()
    assert module.weight_ih_l0.data_ptr() % 16
    with on_kernels():
        assert_same_bits(module(x.float()), expected)


# Weights that are computed

NORMS = {
    "old weight_norm": lambda module, name: nn.utils.weight_norm(module, name),
    "old spectral_norm": lambda module, name: nn.utils.spectral_norm(module, name),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda module, name: prune.random_unstructured(module, name, amount=0.4),
    "l1 prune": lambda module, name: prune.l1_unstructured(module, name, amount=0.4),
}
UNDONE = {
    "old weight_norm": nn.utils.remove_weight_norm,
    "weight_norm": parametrize.remove_parametrizations,
    "prune": prune.remove,
}


@every
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("accelerated", ["before", "after"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_norms(kind, norm, accelerated):
    """Port of test_RNN_cudnn_weight_norm, and the same for what else computes weights."""
    name = "weight_hh" if kind in CELL_KINDS else "weight_hh_l0"
    results = []
    for ours in (False, True):
        module = stock(kind)
        if ours and accelerated == "before":
            rnnkern.torch.accelerate(module)
        torch.manual_seed(0)
        NORMS[norm](module, name)
        if ours and accelerated == "after":
            rnnkern.torch.accelerate(module)
        hx = normal(B, H) if kind in CELL_KINDS else None
        hx = (hx, hx) if kind == "LSTMCell" else hx
        optimiser, found = torch.optim.SGD(module.parameters(), lr=0.01), []
        for _ in range(3):
            optimiser.zero_grad()
            if ours:
                with on_kernels():
                    made = module(given(kind), hx)
            else:
                made = module(given(kind), hx)
            objective(made).backward()
            found += [*leaves(made), *grads(module).values()]
            optimiser.step()
        if norm in UNDONE:
            UNDONE[norm](module, name)
            assert name in dict(module.named_parameters())
            found += leaves(module(given(kind), hx))
            assert type(module) is getattr(rnnkern.torch if ours else nn, kind)
        results.append(found)
    assert_near(*reversed(results))


def test_cached_parametrizations():
    module = parametrizations.weight_norm(pair("GRU")[1], "weight_hh_l0")
    with parametrize.cached():
        a, b = module(x), module(x)
    assert_same_bits(a, b)
    assert_same_bits(a, module(x))


def test_parametrizations_of_all_weights():
    class Scaled(nn.Module):
        def forward(self, weight):
            return weight * 0.5

    results = []
    for module in pair("LSTM", num_layers=2):
        for name in list(module._flat_weights_names):
            parametrize.register_parametrization(module, name, Scaled())
        objective(module(x)).backward()
        results.append([*leaves(module(x)), *grads(module).values()])
    assert_near(*reversed(results))


def test_tied_modules():
    """One module used at two places of a model: one swap, shared weights, gradients of both."""

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = stock("GRU", H, H)
            self.right = self.left

        def forward(self, x):
            return self.right(self.left(x)[0])

    results = []
    for accelerate in (lambda model: model, rnnkern.torch.accelerate):
        model = accelerate(Siamese())
        assert model.left is model.right
        objective(model(normal(T, B, H))).backward()
        results.append(grads(model))
    assert_near(*reversed(results))
