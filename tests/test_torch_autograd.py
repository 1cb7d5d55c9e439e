"""rnnkern.torch under autograd: second derivatives, changes in place, hooks, checkpoints, function transforms."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from torch_harness import (
    CELL_KINDS,
    KINDS,
    B,
    H,
    I,
    T,
    assert_near,
    assert_same_type_and_text,
    elsewhere,
    every,
    grads,
    kinds,
    leaves,
    normal,
    objective,
    on_kernels,
    pair,
    raised,
)


def inputs(kind, requires_grad=True):
    """x, and h or h and c, that a module of some kind with a layer takes."""
    cell = kind in CELL_KINDS
    x = normal(*((B, I) if cell else (T, B, I)), requires_grad=requires_grad)
    h = normal(*((B, H) if cell else (1, B, H)), requires_grad=requires_grad)
    return x, ((h, normal(*h.shape, seed=2, requires_grad=requires_grad)) if kind.startswith("LSTM") else h)


def compare(kind, function, *sizes, **options):
    """`function(module)` gives near tensors, by name or in order, for PyTorch's module and ours."""
    theirs, ours = pair(kind, *sizes, **options)
    with on_kernels():
        found = function(ours)
    assert_near(found, function(theirs))


def all_gradients(module, given):
    return [*(leaf.grad for leaf in leaves(given)), *grads(module).values()]


# Gradients of gradients

OPTIONS = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "no bias, batch first": {"bias": False, "batch_first": True},
    "projected": {"proj_size": 3},
    "relu": {"nonlinearity": "relu"},
}


def options_of(kind):
    names = [name for name in OPTIONS if name not in ("projected", "relu")]
    return names + {"LSTM": ["projected"], "RNN": ["relu"]}.get(kind, [])


EVERY_OPTION = [(kind, name) for kind in KINDS for name in options_of(kind)]


@pytest.mark.parametrize(("kind", "options"), EVERY_OPTION)
def test_gradcheck(kind, options):
    module = pair(kind, 3, 4, **OPTIONS[options])[1]
    parts = module.num_layers * (1 + module.bidirectional)
    batch = 2 if module.batch_first else 3
    x = normal(2, 3, 3) if module.batch_first else normal(3, batch, 3)
    x = x.requires_grad_()
    h = normal(parts, batch, module.proj_size or 4, requires_grad=True)
    c = normal(parts, batch, 4, seed=2, requires_grad=True)
    weights = dict(module.named_parameters())

    def function(x, h, c, *values):
        hx = (h, c) if kind == "LSTM" else h
        return tuple(leaves(functional_call(module, dict(zip(weights, values)), (x, hx))))

    given = (x, h, c if kind == "LSTM" else None, *weights.values())
    with on_kernels():
        assert gradcheck(function, given, fast_mode=True)
        assert gradgradcheck(function, given, fast_mode=True)


@every
def test_gradgradcheck_of_every_kind(kind):
    module = pair(kind)[1]
    x, hx = inputs(kind)

    def function(x, *state):
        return tuple(leaves(module(x, state if kind.startswith("LSTM") else state[0])))

    with on_kernels():
        assert gradgradcheck(function, (x, *leaves(hx)), fast_mode=True)


@kinds
def test_gradgradcheck_of_packed_sequences(kind):
    module = pair(kind, bidirectional=True)[1]
    x = normal(3, B, I, requires_grad=True)

    def function(x, *_):
        return tuple(leaves(module(pack_padded_sequence(x, torch.tensor([2, 3, 1]), enforce_sorted=False))))

    with on_kernels():
        assert gradgradcheck(function, (x, *module.parameters()), fast_mode=True)


@kinds
def test_gradient_penalty(kind):
    """The use of double backward: the gradient by x is part of the loss."""

    def penalty(module):
        x, hx = inputs(kind)
        (gradient,) = torch.autograd.grad(objective(module(x, hx)), x, create_graph=True)
        (objective(module(x, hx)) + (gradient.norm() - 1) ** 2).backward()
        return all_gradients(module, (x, hx))

    compare(kind, penalty)


@kinds
def test_third_derivatives(kind):
    def third(module):
        x = normal(2, 1, I, requires_grad=True)
        value = module(x)[0].sum()
        found = []
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            found.append(gradient)
            value = gradient.square().sum()
        return found

    compare(kind, third)


@kinds
def test_double_backward_through_dropout(kind):
    def penalty(module):
        torch.manual_seed(1)
        x, hx = normal(T, B, I, requires_grad=True), None
        (gradient,) = torch.autograd.grad(objective(module(x, hx)), x, create_graph=True)
        gradient.square().sum().backward()
        return all_gradients(module, (x,))

    compare(kind, penalty, num_layers=3, dropout=0.4)


@every
def test_arguments_that_depend_on_each_other(kind):
    """The gradients by each ends there, also when they have a graph."""

    def dependent(module):
        x, _ = inputs(kind)
        first = x if kind in CELL_KINDS else x[:1]
        h = (first @ normal(I, H)).tanh()
        given = (h, h) if kind.startswith("LSTM") else h
        (gradient,) = torch.autograd.grad(objective(module(x, given)), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        return [gradient, second]

    compare(kind, dependent)


def test_one_tensor_for_h_and_c():
    def shared(module):
        x, (h, _) = inputs("LSTM")
        (gradient,) = torch.autograd.grad(objective(module(x, (h, h))), h, create_graph=True)
        return [gradient, *torch.autograd.grad(gradient.square().sum(), [x, h])]

    compare("LSTM", shared)


@kinds
@pytest.mark.parametrize("create_graph", [False, True])
def test_tied_weights(kind, create_graph):
    """Port of test_cudnn_weight_tying: both directions have the same Parameters."""

    def tied(module):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(module, name + "_l0_reverse", getattr(module, name + "_l0"))
        optimiser = torch.optim.SGD(module.parameters(), lr=0.001)
        found = []
        for _ in range(3):
            optimiser.zero_grad()
            x = normal(T, B, I, requires_grad=True)
            value = objective(module(x))
            if create_graph:
                (gradient,) = torch.autograd.grad(value, x, create_graph=True)
                value = value + gradient.square().sum()
            value.backward()
            optimiser.step()
            found += [value, *all_gradients(module, (x,))]
        return found

    compare(kind, tied, bidirectional=True)


def test_layers_that_share_a_parameter():
    def shared(module):
        module.weight_ih_l1 = module.weight_ih_l2 = module.weight_hh_l0
        objective(module(normal(T, B, H))).backward()
        return grads(module)

    compare("GRU", shared, H, H, num_layers=3)


# Backward again, and in between


@kinds
def test_backward_twice(kind):
    def twice(module):
        x, hx = inputs(kind)
        value = objective(module(x, hx))
        value.backward(retain_graph=True)
        once = [gradient.clone() for gradient in all_gradients(module, (x, hx))]
        value.backward()
        again = all_gradients(module, (x, hx))
        assert all(torch.allclose(2 * a, b) for a, b in zip(once, again))
        return [*once, *again]

    compare(kind, twice)


@every
def test_backward_after_the_graph_was_freed(kind):
    def error(module):
        x, hx = inputs(kind)
        value = objective(module(x, hx))
        value.backward()
        return raised(value.backward)

    theirs, ours = map(error, pair(kind))
    assert_same_type_and_text(ours, theirs)


CHANGES_OF_Y = {
    "relu_": lambda y: y.relu_(),
    "dropout": lambda y: F.dropout(y, 0.5, inplace=True),
    "zero_": lambda y: y.zero_(),
    "one step": lambda y: y[1].mul_(3),
    "leaky_relu_ of a view": lambda y: F.leaky_relu_(y.flatten()),
}


@kinds
@pytest.mark.parametrize("change", CHANGES_OF_Y)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=["1", "2"])
def test_the_output_may_be_changed_in_place(kind, change, options):
    """As PyTorch's may. (float32: with oneDNN's LSTM it may not.)"""

    def changed(module):
        torch.manual_seed(5)
        x = normal(T, B, I, requires_grad=True)
        y, last = module(x)
        CHANGES_OF_Y[change](y)
        found = [y, *leaves(last)]
        objective(found).backward(retain_graph=True)
        objective(found).backward()
        return [*found, *all_gradients(module, (x,))]

    compare(kind, changed, **options)


@kinds
def test_the_last_state_may_be_changed_in_place(kind):
    def changed(module):
        x = normal(T, B, I, requires_grad=True)
        y, last = module(x)
        for member in leaves(last):
            member.mul_(2)
        objective([y, *leaves(last)]).backward()
        return all_gradients(module, (x,))

    compare(kind, changed)


@kinds
def test_outputs_of_packed_sequences_may_be_changed_in_place(kind):
    def changed(module):
        x = normal(T, B, I, requires_grad=True)
        y, _ = module(pack_padded_sequence(x, torch.tensor([2, 5, 1]), enforce_sorted=False))
        y.data.relu_()
        objective(y).backward()
        return all_gradients(module, (x,))

    compare(kind, changed, num_layers=2)


def change_x(module, x, hx):
    x.mul_(2)


def change_weight(module, x, hx):
    module.get_parameter("weight_hh" + ("" if isinstance(module, nn.RNNCellBase) else "_l0")).mul_(2)


def step(module, x, hx):
    torch.optim.SGD(module.parameters(), lr=0.1).step()


@every
@pytest.mark.parametrize("change", [change_x, change_weight, step])
def test_what_backward_needs_was_changed_in_place(kind, change):
    """PyTorch's error, for x and for weights."""

    def error(module):
        given = inputs(kind)
        value = objective(module(*given))
        value.backward(retain_graph=True)
        with torch.no_grad():
            change(module, *given)
        return raised(value.backward)

    theirs, ours = map(error, pair(kind))
    assert type(theirs) is type(ours) is RuntimeError
    head = "one of the variables needed for gradient computation has been modified by an inplace operation"
    assert head in str(theirs)
    assert head in str(ours)


@kinds
def test_accumulated_gradients(kind):
    def accumulate(module):
        for seed in range(3):
            objective(module(normal(T + seed, B, I, seed=seed))).backward()
        return grads(module)

    compare(kind, accumulate)


@kinds
def test_truncated_back_propagation(kind):
    def train(module):
        optimiser, state, found = torch.optim.SGD(module.parameters(), lr=0.1), None, []
        for seed in range(4):
            y, state = module(normal(T, B, I, seed=seed), state)
            optimiser.zero_grad()
            objective(y).backward()
            optimiser.step()
            state = tuple(member.detach() for member in state) if kind == "LSTM" else state.detach()
            found += [y, *leaves(state)]
        return found

    compare(kind, train)


@kinds
def test_back_propagation_through_calls(kind):
    def train(module):
        state, found = None, []
        for seed in range(3):
            y, state = module(normal(T, B, I, seed=seed), state)
            found.append(y)
        objective(found).backward()
        return grads(module)

    compare(kind, train)


@kinds
def test_the_graph_is_freed(kind):
    """Neither the results nor the tape outlive the last reference."""
    module = pair(kind)[1]
    x = normal(T, B, I, requires_grad=True)
    y, last = module(x)
    alive = [weakref.ref(tensor) for tensor in (y, *leaves(last), y.grad_fn)]
    gc.disable()
    try:
        del y, last
        assert [reference() for reference in alive] == [None] * len(alive)
    finally:
        gc.enable()


def test_anomaly_mode():
    module = pair("LSTM")[1]
    x = normal(T, B, I).index_fill(0, torch.tensor(1), torch.nan)
    with warnings.catch_warnings(), torch.autograd.detect_anomaly():
        warnings.simplefilter("ignore")
        error = raised(module(x)[0].sum().backward)
    assert isinstance(error, RuntimeError)
    assert "returned nan values" in str(error)


# Hooks


@kinds
def test_hooks_on_tensors(kind):
    def hooked(module):
        x, hx = inputs(kind)
        y, _ = module(x, hx)
        y.retain_grad()
        x.register_hook(lambda gradient: gradient * 2)
        y.register_hook(lambda gradient: gradient + 1)
        module.weight_hh_l0.register_hook(lambda gradient: gradient.clamp(-1, 1))
        seen = []
        module.bias_ih_l0.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.clone()))
        objective(y).backward()
        return [y.grad, *all_gradients(module, (x, hx)), *seen]

    compare(kind, hooked)


@every
def test_hooks_on_modules(kind):
    def hooked(module):
        x, hx = inputs(kind)
        seen, order = [], []
        module.register_forward_pre_hook(lambda module, given: (given[0] * 2, *given[1:]))
        module.register_forward_hook(lambda module, given, result: order.append("forward"))
        module.register_full_backward_pre_hook(lambda module, gradients: order.append("backward"))
        module.register_full_backward_hook(lambda module, given, result: seen.extend(leaves(given)))
        made = leaves(module(x, hx))
        objective(made[0]).backward()
        assert order == ["forward", "backward"]
        return [*made, *seen, *all_gradients(module, (x, hx))]

    compare(kind, hooked)


SAVED = {
    "transposed": (lambda t: t.movedim(-1, 0).contiguous(), lambda t: t.movedim(0, -1)) ,
    "as arrays": (lambda t: t.numpy().copy(), torch.from_numpy),
    "copied": (torch.clone, torch.clone),
    "negated": (torch.neg, torch._neg_view),
    "expanded": (lambda t: torch.stack([t, t], -1), lambda t: t[..., 1]),
}  # fmt: skip


@every
@pytest.mark.parametrize("hooks", SAVED)
def test_hooks_on_saved_tensors(kind, hooks):
    """What they give back may be laid out in another way."""

    def hooked(module):
        x, hx = inputs(kind)
        with torch.autograd.graph.saved_tensors_hooks(*SAVED[hooks]):
            made = module(x, hx)
        objective(made).backward()
        return [*leaves(made), *all_gradients(module, (x, hx))]

    compare(kind, hooked)


def test_hooks_that_give_back_something_else():
    """An error, not a look at what isn't there."""
    module = pair("LSTM")[1]
    x, hx = inputs("LSTM")
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t.flatten()[:1]):
        value = objective(module(x, hx))
    assert raised(value.backward) is not None


@kinds
def test_saved_tensors_on_the_cpu(kind):
    def saved(module):
        x, hx = inputs(kind)
        with torch.autograd.graph.save_on_cpu():
            made = module(x, hx)
        objective(made).backward()
        return all_gradients(module, (x, hx))

    compare(kind, saved, num_layers=1)


@kinds
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(kind, use_reentrant):
    def recomputed(module):
        torch.manual_seed(2)
        x = normal(T, B, I, requires_grad=True)
        y, last = checkpoint(module, x, use_reentrant=use_reentrant)
        objective([y, *leaves(last)]).backward()
        return [y, *all_gradients(module, (x,))]

    compare(kind, recomputed, num_layers=2, dropout=0.3)


# Transforms of functions


def weights_of(module):
    return {name: weight.detach() for name, weight in module.named_parameters()}


@every
def test_functional_call(kind):
    def called(module):
        weights = {name: (weight * 1.1).requires_grad_() for name, weight in weights_of(module).items()}
        x, hx = inputs(kind)
        before = {name: weight.clone() for name, weight in module.named_parameters()}
        made = functional_call(module, weights, (x, hx))
        objective(made).backward()
        assert all(torch.equal(weight, before[name]) for name, weight in module.named_parameters())
        assert all(weight.grad is None for weight in module.parameters())
        return [*leaves(made), *(weight.grad for weight in weights.values()), *(leaf.grad for leaf in leaves((x, hx)))]

    compare(kind, called)


@every
def test_func_grad(kind):
    theirs, ours = pair(kind)
    x, hx = inputs(kind, requires_grad=False)

    def gradients(module):
        def loss(weights, x):
            return objective(functional_call(module, weights, (x, hx)))

        by_weights, by_x = torch.func.grad(loss, argnums=(0, 1))(weights_of(module), x)
        return {**by_weights, "x": by_x}

    with elsewhere():
        found = gradients(ours)
    assert_near(found, gradients(theirs))


@every
def test_tensors_that_are_left_of_a_transform(kind):
    """They are wrapped, and the graph is that of what is inside."""
    results = []
    for module in pair(kind):
        x, hx = inputs(kind)
        kept = []

        def loss(weights, x, kept=kept):
            kept.append(({name: weight * 2 for name, weight in weights.items()}, x * 2))
            return x.sum()

        torch.func.grad(loss)(weights_of(module), x)
        for weights, argument in ({}, kept[0][1]), (kept[0][0], x):
            objective(functional_call(module, weights, (argument, hx))).backward()
        results.append({**grads(module), "x": x.grad})
    assert_near(*reversed(results))


@kinds
def test_func_vjp_and_jvp(kind):
    theirs, ours = pair(kind)
    x = normal(T, B, I)

    def found(module):
        y, back = torch.func.vjp(lambda x: module(x)[0], x)
        _, tangent = torch.func.jvp(lambda x: module(x)[0], (x,), (x * 2,))
        return [y, *back(y), tangent]

    with elsewhere():
        ours_found = found(ours)
    assert_near(ours_found, found(theirs))


@kinds
def test_jacobian(kind):
    """torch.autograd.functional, one row after the other and all at once (vmap over backward)."""
    theirs, ours = pair(kind)
    x = normal(2, 1, I)
    for vectorize in (False, True):
        jacobians = [
            torch.autograd.functional.jacobian(lambda x, module=module: module(x)[0], x, vectorize=vectorize)
            for module in (ours, theirs)
        ]
        assert_near([jacobians[0]], [jacobians[1]])


@every
def test_batched_gradients(kind):
    def batched(module):
        x, hx = inputs(kind)
        y = leaves(module(x, hx))[0]
        by = [x, *leaves(hx), *module.parameters()]
        return torch.autograd.grad(y, by, normal(7, *y.shape), is_grads_batched=True)

    compare(kind, batched)


@every
def test_hessian(kind):
    def hessian(module):
        x, hx = inputs(kind, requires_grad=False)
        x = x[..., :1, :]
        hx = tuple(member[..., :1, :] for member in hx) if isinstance(hx, tuple) else hx[..., :1, :]
        return [torch.autograd.functional.hessian(lambda x: leaves(module(x, hx))[0].square().sum(), x)]

    compare(kind, hessian)


def test_modes_of_autograd():
    """set_grad_enabled, inference tensors as inputs, requires_grad after the call."""
    theirs, ours = pair("LSTM")
    for module in (theirs, ours):
        with torch.set_grad_enabled(False), torch.enable_grad():
            assert module(normal(T, B, I))[0].requires_grad
        with torch.inference_mode():
            x = normal(T, B, I)
        assert x.is_inference()
    expected, found = (raised(lambda module=module: module(x)) for module in (theirs, ours))
    assert_same_type_and_text(found, expected)
    with torch.no_grad():
        assert_near(leaves(ours(x)), leaves(theirs(x)))
