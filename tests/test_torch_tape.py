"""What backward needs is kept apart from what the user can change: as much may be changed as with PyTorch's layers."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
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

CASES = {
    **{kind: (kind, {}, "plain") for kind in KINDS + CELL_KINDS},
    "relu": ("RNN", {"nonlinearity": "relu"}, "plain"),
    "projected": ("LSTM", {"proj_size": 3}, "plain"),
    **{f"{kind}, batch first": (kind, {"batch_first": True}, "plain") for kind in KINDS},
    **{f"{kind}, transposed": (kind, {}, "transposed") for kind in KINDS},
    **{f"{kind}, unbatched": (kind, {}, "unbatched") for kind in KINDS},
    **{f"{kind}, one step": (kind, {}, "one step") for kind in KINDS},
    **{f"{kind}, packed": (kind, {"num_layers": 2, "bidirectional": True}, "packed") for kind in KINDS},
}
CHANGED = ["x", "h0", "c0", "y", "hn", "cn", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]


def changed(module, kind, mode, change, unseen, inputs_grad):
    """Gradients, after what has a name, if anything, was halved between forward and backward; or PyTorch's error."""
    shape = {"unbatched": (T, I), "one step": (1, B, I)}.get(mode, (T, B, I))
    if kind in CELL_KINDS:
        shape = B, I
    elif mode == "transposed" or module.batch_first:
        shape = B, T, I
    x = normal(*shape)
    x = (x.transpose(0, 1) if mode == "transposed" else x).requires_grad_(inputs_grad)
    given = pack_padded_sequence(x, torch.tensor([2, T, 1]), enforce_sorted=False) if mode == "packed" else x
    parts = () if kind in CELL_KINDS else (module.num_layers * (1 + module.bidirectional),)
    h, c = (
        normal(*parts, *(() if mode == "unbatched" else (B,)), size, seed=seed, requires_grad=inputs_grad)
        for seed, size in ((2, getattr(module, "proj_size", 0) or H), (3, H))
    )
    made = leaves(module(given, (h, c) if kind.startswith("LSTM") else h))
    value = objective([leaf * 1 for leaf in made])  # which saves none of them
    suffix = "" if kind in CELL_KINDS else "_l0"
    things = {"x": leaves(given)[0], "h0": h, **dict(zip(("y", "hn", "cn"), made))}
    things |= {"c0": c} if kind.startswith("LSTM") else {}
    things |= {name.removesuffix(suffix): weight for name, weight in module.named_parameters()}
    with torch.no_grad():
        if change not in things:
            pass
        elif unseen:
            things[change].detach().numpy()[...] *= 0.5
        else:
            things[change].mul_(0.5)
    error = raised(value.backward)
    if error is not None:
        assert "modified" in str(error)
        return error
    return [*(leaf.grad for leaf in (x, h, c)), *grads(module).values()]


@pytest.mark.parametrize("inputs_grad", [False, True], ids=["weights", "all"])
@pytest.mark.parametrize("case", CASES)
def test_changes_between_forward_and_backward(case, inputs_grad):
    """Seen by PyTorch or not: where its layers' gradients stay right, so do ours; what these refuse may be refused."""
    kind, options, mode = CASES[case]
    expected = changed(pair(kind, **options)[0], kind, mode, None, False, inputs_grad)
    for change in CHANGED:
        for unseen in (False, True):
            theirs, ours = (
                changed(module, kind, mode, change, unseen, inputs_grad) for module in pair(kind, **options)
            )
            refused = isinstance(theirs, Exception)
            if refused and isinstance(ours, Exception):
                continue
            if refused or all(a is b is None or torch.allclose(a, b) for a, b in zip(theirs, expected)):
                assert not isinstance(ours, Exception), (change, unseen)
                assert_near(ours, expected)


@pytest.mark.parametrize("change", [lambda y: y.data.mul_(0), lambda y: y.detach().numpy()[1:2].fill(7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_the_result_is_the_callers(kind, dtype, change):
    def gradients(module, change):
        module.to(dtype)
        x = normal(*((B, I) if kind in CELL_KINDS else (T, B, I)), dtype=dtype, requires_grad=True)
        made = leaves(module(x))
        loss = objective([leaf * 1 for leaf in made])
        for leaf in made:
            change(leaf)
        loss.backward()
        return [x.grad, *grads(module).values()]

    theirs, ours = pair(kind, **({} if kind in CELL_KINDS else {"bidirectional": True}))
    with on_kernels():
        found = gradients(ours, change)
    assert_near(found, gradients(theirs, lambda leaf: None))


@every
def test_a_frozen_layers_input_may_be_changed(kind):
    """Nothing of PyTorch's needs it: a residual connection may add to it in place."""

    def gradients(module):
        start = given_of(kind).requires_grad_()
        x = start * 1
        y = leaves(module.requires_grad_(False)(x))[0]
        x += y.sum()
        objective(x).backward()
        return [start.grad]

    theirs, ours = pair(kind)
    with on_kernels():
        found = gradients(ours)
    assert_near(found, gradients(theirs))


def given_of(kind):
    return normal(*((B, I) if kind in CELL_KINDS else (T, B, I)))


@kinds
def test_inference_tensors_with_the_batch_first(kind):
    """PyTorch's layers save a copy: a backbone in inference mode, and a layer that is trained on top."""
    results = []
    for module in pair(kind, batch_first=True):
        with torch.inference_mode():
            x = normal(B, T, I)
        objective(module(x)).backward()
        results.append(grads(module))
    assert_near(*reversed(results))


@kinds
def test_second_derivatives_through_a_copy_of_x(kind):
    results = []
    for module in pair(kind, batch_first=True):
        x = normal(B, T, I, requires_grad=True)
        (gradient,) = torch.autograd.grad(objective(module(x)), x, create_graph=True)
        gradient.square().sum().backward()
        results.append([x.grad, *grads(module).values()])
    assert_near(*reversed(results))


@kinds
def test_a_changed_bias_is_noticed_where_it_counts(kind):
    module = pair(kind)[1]
    x = normal(T, B, I, requires_grad=True)
    value = objective(module(x))
    with torch.no_grad():
        module.bias_ih_l0.mul_(2)
    error = raised(lambda: torch.autograd.grad(value, x, create_graph=True))
    assert isinstance(error, RuntimeError)
    assert "modified by an inplace operation" in str(error)


# Autocast


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_in_autocast(kind, dtype, create_graph):
    """Of a forward pass outside: nothing is rounded."""

    def gradients(module, inside):
        module.float()
        x = given_of(kind).float().requires_grad_()
        value = objective(module(x))
        with torch.autocast("cpu", dtype, enabled=inside):
            return torch.autograd.grad(value, [x, *module.parameters()], create_graph=create_graph)

    module = pair(kind)[1]
    expected = gradients(module, False)
    assert_near(gradients(module, True), expected)


def test_forward_in_autocast_and_backward_outside():
    results = []
    for module in pair("GRU"):
        module.float()
        with torch.autocast("cpu", torch.bfloat16):
            value = objective(module(normal(T, B, I, dtype=torch.float32)))
        value.backward()
        results.append(grads(module))
    assert all(map(torch.equal, *(result.values() for result in results)))


# Saved tensors


@kinds
def test_all_that_grows_with_the_steps_is_a_saved_tensor(kind):
    """No attribute of the graph holds any of it, so hooks can put it elsewhere, and checkpoints drop it."""
    module = pair(kind)[1]
    node = module(normal(T, B, I, requires_grad=True))[0].grad_fn
    weights = {id(weight) for weight in module.parameters()}
    mine = [value for value in vars(node).values() if isinstance(value, (list, tuple, torch.Tensor))]
    tensors = [t for value in mine for t in leaves(value) if isinstance(t, torch.Tensor)]
    assert all(id(tensor) in weights for tensor in tensors)


@kinds
def test_weights_changed_before_a_checkpoint_runs_again(kind):
    """Both passes are those of the new weights, as with PyTorch's layer."""

    def gradients(module):
        x = normal(T, B, I, requires_grad=True)
        y, _ = checkpoint(module, x, use_reentrant=False)
        value = y.sum()
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(0.5)
        value.backward()
        return [x.grad, *grads(module).values()]

    theirs, ours = pair(kind)
    with on_kernels():
        found = gradients(ours)
    assert_near(found, gradients(theirs))


# Odd inputs


@kinds
def test_a_sparse_input_with_dropout(kind):
    theirs, ours = pair(kind, num_layers=2, dropout=0.5)
    errors = [raised(lambda module=module: module(normal(T, B, I).to_sparse())) for module in (ours, theirs)]
    assert_same_type_and_text(*errors)


# AOTInductor


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs g++")
@pytest.mark.parametrize(("kind", "options"), [("LSTM", {"num_layers": 2, "dropout": 0.3}), ("GRU", {})])
def test_aot_inductor(kind, options, tmp_path):
    theirs, ours = pair(kind, **options)
    x = normal(T, B, I)
    with torch.no_grad():
        exported = torch.export.export(ours.eval(), (x,))
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "model.pt2"))
        found = torch._inductor.aoti_load_package(path)(x)
        assert_near(leaves(found), leaves(theirs.eval()(x)))
