"""rnnkern.torch's layers and cells compute what PyTorch's do: results, all gradients, dropout's masks, errors."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import rnnkern.torch
from harness import Case
from torch_harness import (
    CELL_KINDS,
    CELLS,
    KINDS,
    B,
    H,
    I,
    Problem,
    T,
    arrays,
    assert_near,
    assert_same_type_and_text,
    elsewhere,
    grads,
    kinds,
    leaves,
    normal,
    objective,
    on_kernels,
    pair,
    raised,
    stock,
)

cell_kinds = pytest.mark.parametrize("kind", CELL_KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
flags = itertools.product([False, True], repeat=3)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@dtypes
@pytest.mark.parametrize("kind", ["RNN", "RNNCell"])
def test_an_inactive_relu_lets_nothing_pass(kind, dtype, value):
    modules = pair(kind, nonlinearity="relu", dtype=dtype)
    found = []
    for module in modules:
        x = normal(*((1, B, I) if kind == "RNN" else (B, I)), dtype=dtype, requires_grad=True)
        with torch.no_grad():
            next(bias for name, bias in module.named_parameters() if "bias_ih" in name)[:3] = -99
        y = module(x)[0] if kind == "RNN" else module(x)
        dy = torch.ones_like(y)
        dy[..., 1] = value
        y.backward(dy)
        found.append({"y": y, "dx": x.grad, **grads(module)})
        assert all(tensor.isfinite().all() for tensor in found[-1].values())
    assert_near(found[1], found[0])


# The grid


def assert_parity(problem, dtype):
    theirs, ours = problem.modules(dtype)
    with on_kernels():
        found = problem.everything(ours)
    assert found["y"].dtype is dtype
    expected = problem.everything(theirs)
    assert found.keys() == expected.keys()
    assert_near(found, expected, problem.case)


GRID = [
    pytest.param(
        {"bias": bias, "bidirectional": bidirectional, "batch_first": batch_first, "num_layers": layers}, id=name
    )
    for (bias, bidirectional, batch_first), layers in itertools.product(flags, (1, 2))
    for name in [
        f"{'' if bias else 'no '}bias, {1 + bidirectional}d, {layers}l{', batch first' if batch_first else ''}"
    ]
]


@dtypes
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", GRID)
def test_grid(cell, options, dtype):
    for packed, state, contiguous in itertools.product(("", "sorted", "unsorted"), (False, True), (False, True)):
        assert_parity(Problem(cell, options, packed, state, contiguous), dtype)


@dtypes
@pytest.mark.parametrize("options", GRID)
def test_grid_of_projections(options, dtype):
    for packed, state in itertools.product(("", "sorted", "unsorted"), (False, True)):
        assert_parity(Problem("lstm", {**options, "proj_size": 5}, packed, state, not state), dtype)


@dtypes
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (1, 7, 16, 32), (9, 1, 3, 40), (17, 33, 5, 17), (3, 2, 70, 64)], ids=str
)
def test_sizes(cell, sizes, dtype):
    for packed in ("", "unsorted"):
        options = {"num_layers": 3, "bidirectional": True}
        assert_parity(Problem(cell, options, packed, sizes=Case("", *sizes)), dtype)


@kinds
def test_inference_is_the_same_bits_as_training(kind):
    _, ours = pair(kind, num_layers=2, bidirectional=True, dtype=torch.float32)
    x = normal(T, B, I, dtype=torch.float32)
    expected = leaves(ours(x))
    for mode in (torch.no_grad, torch.inference_mode):
        with on_kernels(), mode():
            found = leaves(ours(x))
        assert all(map(torch.equal, found, expected))
        assert not any(tensor.requires_grad for tensor in found)
        assert found[0].is_inference() == (mode is torch.inference_mode)


@kinds
@dtypes
def test_unbatched(kind, dtype):
    for options in ({}, {"batch_first": True, "bidirectional": True, "num_layers": 2}):
        theirs, ours = pair(kind, **options)
        ours = ours.to(dtype)
        parts = theirs.num_layers * (1 + theirs.bidirectional)
        for given in (False, True):
            found = []
            for module, type_ in ((theirs, torch.float64), (ours, dtype)):
                x = normal(T, I, dtype=type_, requires_grad=True)
                h = normal(parts, H, dtype=type_, requires_grad=True)
                hx = ((h, h * 2) if kind == "LSTM" else h) if given else None
                made = leaves(module(x, hx))
                objective(made).backward()
                found.append([*made, x.grad, h.grad, *grads(module).values()])
                module.zero_grad()
            assert_near(*reversed(found))


@kinds
def test_layout_of_the_output(kind):
    for options, x in (({}, normal(T, B, I)), ({"batch_first": True}, normal(B, T, I))):
        theirs, ours = pair(kind, **options)
        for expected, found in zip(leaves(theirs(x)), leaves(ours(x))):
            assert (found.shape, found.stride()) == (expected.shape, expected.stride())


@cell_kinds
@dtypes
def test_cells(kind, dtype):
    constructors = [{}, {"bias": False}, *([{"nonlinearity": "relu"}] if kind == "RNNCell" else [])]
    for options, batch, given in itertools.product(constructors, ((), (1,), (B,)), (False, True)):
        theirs, ours = pair(kind, **options)
        ours = ours.to(dtype)
        found = []
        for module in (theirs, ours):
            type_ = module.weight_ih.dtype
            x = normal(I, *batch[::-1], dtype=type_, requires_grad=True)
            h = normal(*batch, H, dtype=type_, requires_grad=True)
            hx = ((h, h * 2) if kind == "LSTMCell" else h) if given else None
            with on_kernels() if module is ours else pytest.MonkeyPatch.context():
                made = leaves(module(x.mT if batch else x, hx))
            objective(made).backward()
            found.append([*made, x.grad, h.grad, *grads(module).values()])
        assert [t is None for t in found[0]] == [t is None for t in found[1]]
        assert_near(*reversed(found), Case("lstm", 1, max(1, len(batch)), I, H))


@cell_kinds
def test_a_cell_step_by_step_is_the_layer(kind):
    _, cell = pair(kind)
    _, layer = pair(kind.removesuffix("Cell"))
    layer.load_state_dict({name + "_l0": weight for name, weight in cell.state_dict().items()})
    x, state, found = normal(T, B, I), None, []
    for step in x:
        state = cell(step, state)
        found.append(state[0] if kind == "LSTMCell" else state)
    assert_near([torch.stack(found)], [layer(x)[0]])


# Odd inputs


ODD = {
    "expanded over time": lambda: normal(1, B, I).expand(T, B, I),
    "expanded over the batch": lambda: normal(T, 1, I).expand(T, B, I),
    "expanded over everything": lambda: normal(1).expand(T, B, I),
    "transposed": lambda: normal(I, B, T).permute(2, 1, 0),
    "every second": lambda: normal(2 * T, 2 * B, 2 * I)[::2, ::2, ::2],
    "flipped": lambda: normal(T, B, I).flip(0),
    "overlapping windows": lambda: normal(T + B + I).as_strided((T, B, I), (1, 1, 1)),
    "negated lazily": lambda: torch.complex(normal(T, B, I, seed=2), normal(T, B, I)).conj().imag,
    "infinite": lambda: normal(T, B, I).index_fill(0, torch.tensor(1), torch.inf),
    "not a number": lambda: normal(T, B, I).index_fill(0, torch.tensor(1), torch.nan),
    "huge": lambda: normal(T, B, I) * 1e30,
    "denormal": lambda: normal(T, B, I) * 1e-310,
}


@kinds
@pytest.mark.parametrize("odd", ODD)
def test_odd_inputs(kind, odd):
    results = []
    for module in pair(kind, num_layers=2):
        x = ODD[odd]().detach().requires_grad_()
        if odd == "negated lazily":
            assert x.is_neg()
        made = leaves(module(x))
        objective(made).backward()
        results.append([*made, x.grad, *grads(module).values()])
    if odd in ("infinite", "not a number"):  # the same elements are numbers
        assert not torch.isfinite(results[0][0]).all()
        for theirs, ours in zip(*results):
            assert torch.equal(torch.isfinite(theirs), torch.isfinite(ours))
        return
    assert_near(*reversed(results))


STRIDED_GRADIENTS = {
    "expanded": lambda y: y.sum(),
    "of a transposition": lambda y: (y.permute(2, 0, 1) * normal(*y.permute(2, 0, 1).shape)).sum(),
    "of one step": lambda y: y[-1].square().sum(),
    "of one unit": lambda y: y[..., 1].square().sum(),
    "negated lazily": lambda y: torch.complex(y, y).conj().imag.square().sum(),
}


@kinds
@pytest.mark.parametrize("loss", STRIDED_GRADIENTS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_strided_gradients(kind, loss, batch_first):
    results = []
    for module in pair(kind, bidirectional=True, batch_first=batch_first):
        x = normal(T, B, I, requires_grad=True)
        STRIDED_GRADIENTS[loss](module(x)[0]).backward()
        results.append([x.grad, *grads(module).values()])
    assert_near(*reversed(results))


@kinds
def test_a_gradient_that_is_negated_lazily(kind):
    results = []
    for module in pair(kind):
        x = normal(T, B, I, requires_grad=True)
        gradient = torch._neg_view(normal(T, B, H, seed=3))
        assert gradient.is_neg()
        module(x)[0].backward(gradient)
        results.append([x.grad, *grads(module).values()])
    assert_near(*reversed(results))


@pytest.mark.parametrize(
    ("kind", "which"), [(kind, which) for kind in KINDS for which in range(3 if kind == "LSTM" else 2)]
)
def test_only_one_result_is_used(kind, which):
    """Gradients by the others are missing, not zeros."""
    results = []
    for module in pair(kind, num_layers=2, bidirectional=True):
        x = normal(T, B, I, requires_grad=True)
        made = leaves(module(x))
        made[which].square().sum().backward()
        results.append([x.grad, *grads(module).values()])
    assert_near(*reversed(results))


@kinds
def test_no_sequences(kind):
    """B = 0: results, and gradients of zero."""
    for module in pair(kind, num_layers=2, bidirectional=True):
        x = normal(T, 0, I, requires_grad=True)
        y, _ = module(x)
        assert y.shape == (T, 0, 2 * H)
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert all((gradient == 0).all() for gradient in grads(module).values())


@cell_kinds
def test_no_sequences_of_a_cell(kind):
    theirs, ours = pair(kind)
    x = normal(0, I)
    assert [t.shape for t in leaves(ours(x))] == [t.shape for t in leaves(theirs(x))]


@cell_kinds
def test_no_units(kind):
    for module in pair(kind, 4, 0):
        assert leaves(module(normal(B, 4)))[0].shape == (B, 0)


# Packed sequences


@kinds
def test_any_packing(kind):
    """From lists of sequences, in any order, with one length, with one sequence; hx of each in its own place."""
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    for lengths in ([3], [4, 4, 4], [5, 3, 1], [1, 5, 2, 5, 3]):
        rows = [normal(length, I, seed=length + i) for i, length in enumerate(lengths)]
        h = normal(4, len(lengths), H)
        hx = (h, h / 2) if kind == "LSTM" else h
        packed = pack_sequence(rows, enforce_sorted=False)
        with on_kernels():
            y, last = ours(packed, hx)
        expected_y, expected_last = theirs(packed, hx)
        assert isinstance(y, PackedSequence)
        assert y.batch_sizes is packed.batch_sizes
        assert y.sorted_indices is packed.sorted_indices
        assert_near([y.data, *leaves(last)], [expected_y.data, *leaves(expected_last)])


@kinds
def test_packed_is_the_same_bits_as_each_alone(kind):
    _, ours = pair(kind, num_layers=2, bidirectional=True, dtype=torch.float32)
    lengths = [2, 5, 1, 4]
    rows = [normal(length, I, seed=i, dtype=torch.float32) for i, length in enumerate(lengths)]
    y, last = ours(pack_sequence(rows, enforce_sorted=False))
    padded, found = nn.utils.rnn.pad_packed_sequence(y)
    assert found.tolist() == lengths
    for i, row in enumerate(rows):
        alone_y, alone_last = ours(row)
        assert torch.equal(padded[: lengths[i], i], alone_y)
        assert all(torch.equal(one[:, i], other) for one, other in zip(leaves(last), leaves(alone_last)))


@kinds
def test_packing_may_change_after_the_call(kind):
    results = []
    for module in pair(kind):
        packed = pack_padded_sequence(normal(T, B, I), torch.tensor([5, 3, 2]))
        y, _ = module(packed)
        packed.batch_sizes.fill_(10**9)
        y.data.square().sum().backward()
        results.append(grads(module))
    assert_near(*reversed(results))


@kinds
def test_packed_rows_that_are_negated_lazily(kind):
    """Contiguous ones, which no copy makes plain; their gradient too."""
    results = []
    for module in pair(kind):
        rows = torch._neg_view(normal(8, I)).requires_grad_()
        y, _ = module(PackedSequence(rows, torch.tensor([3, 2, 2, 1])))
        y.data.backward(torch._neg_view(normal(8, H, seed=3)))
        results.append([y.data, rows.grad, *grads(module).values()])
    assert_near(*reversed(results))


def with_sizes(sizes, rows=8, **indices):
    return lambda: PackedSequence(normal(rows, I), torch.tensor(sizes), **indices)


WRONG_PACKINGS = {
    "rising": with_sizes([1, 2, 5]),
    "too few rows": with_sizes([3, 3, 3]),
    "too many rows": with_sizes([3, 2]),
    "zeros": with_sizes([4, 4, 0]),
    "negative": with_sizes([9, -1]),
    "no steps": with_sizes([], rows=0),
    "one index for all": with_sizes([3, 3, 2], sorted_indices=torch.tensor([0]), unsorted_indices=torch.tensor([0])),
    "index out of range": with_sizes(
        [3, 3, 2], sorted_indices=torch.tensor([0, 1, 9]), unsorted_indices=torch.tensor([0, 1, 9])
    ),
}


@kinds
@pytest.mark.parametrize("packing", WRONG_PACKINGS)
@pytest.mark.parametrize("state", [False, True])
def test_wrong_packings(kind, packing, state):
    """PyTorch's error, or its result; never what isn't there."""
    theirs, ours = pair(kind)
    given = WRONG_PACKINGS[packing]()
    h = normal(1, 3, H)
    hx = ((h, h) if kind == "LSTM" else h) if state else None
    expected = raised(lambda: theirs(given, hx))
    assert_same_type_and_text(raised(lambda: ours(given, hx)), expected)
    if expected is None:
        assert_near(leaves(ours(given, hx)), leaves(theirs(given, hx)))


# Dropout


def after_seed(function):
    torch.manual_seed(3)
    return function()


@kinds
@dtypes
@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}], ids=str)
def test_dropout(kind, dtype, p, options):
    """The masks are PyTorch's, bit for bit, and the generator is left where PyTorch leaves it."""
    theirs, ours = pair(kind, 7, 11, num_layers=3, dropout=p, **options)
    ours = ours.to(dtype)
    for packed in (False, True):
        results = []
        for module in (theirs.to(dtype), ours):
            x = normal(6, 5, 7, dtype=dtype, requires_grad=True)
            shape = (5, 6) if module.batch_first else (6, 5)
            lengths = torch.tensor([6, 2, 5, 1, 6][: shape[0]])
            given = x.transpose(0, 1) if module.batch_first else x
            given = pack_padded_sequence(given, lengths, module.batch_first, False) if packed else given
            with on_kernels() if module is ours else pytest.MonkeyPatch.context():
                made = after_seed(lambda module=module, given=given: leaves(module(given)))
            after = torch.rand(4)
            objective(made).backward()
            results.append([*made, x.grad, *grads(module).values(), after])
            module.zero_grad()
        assert torch.equal(results[0].pop(), results[1].pop())
        assert_near(*reversed(results), Case("lstm", 6, 5, 7, 11, (("num_layers", 3), ("bidirectional", True))))


@kinds
def test_dropped_elements_are_the_same(kind):
    """With the second layer's input weights the identity, its masks show."""
    masks = []
    for module in pair(kind, 64, 64, num_layers=2, dropout=0.5, bias=False):
        x = normal(T, B, 64, requires_grad=True)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                weight.copy_(
                    torch.ones_like(weight) / 64
                    if name == "weight_ih_l0"
                    else torch.eye(64).repeat(len(weight) // 64, 1)
                )
        first = module.weight_hh_l0
        y = after_seed(lambda module=module, x=x: module(x)[0])
        y.sum().backward()
        masks.append([first.grad == 0, module.weight_ih_l1.grad == 0, (y * 1e9).sign()])
    assert all(map(torch.equal, *masks))


@kinds
def test_dropout_only_in_training_and_between_layers(kind):
    x = normal(T, B, I)
    for options, training in (({"num_layers": 2, "dropout": 0.5}, False), ({"num_layers": 2}, True)):
        _, ours = pair(kind, **options)
        ours.train(training)
        state = torch.get_rng_state()
        assert torch.equal(ours(x)[0], ours(x)[0])
        assert torch.equal(torch.get_rng_state(), state)
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        one = getattr(rnnkern.torch, kind)(I, H, dropout=0.5).double()
    assert torch.equal(one(x)[0], one(x)[0])


@kinds
def test_dropout_may_be_changed(kind):
    """Port of test_RNN_change_dropout: p, and training or not, are those of each call."""
    results = []
    for module in pair(kind, num_layers=2, dropout=0.2):
        made = []
        for p, training in ((0.2, True), (0.7, True), (0.0, True), (1.0, True), (0.7, False), (0.2, True)):
            module.dropout = p
            module.train(training)
            made += after_seed(lambda module=module: leaves(module(normal(T, B, I))))
        results.append(made)
    assert_near(*reversed(results))


# Which gradients


def wanted_sets(kind):
    names = ["x", "h", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_hh_l1", "bias_hh_l1"]
    yield from ([name] for name in names)
    yield from itertools.combinations(names, 2)
    yield [name for name in names if not name.endswith("_l0")]
    yield names


@kinds
def test_requires_grad_on_any_subset(kind):
    for wanted in wanted_sets(kind):
        results = []
        for module in pair(kind, num_layers=2):
            for name, weight in module.named_parameters():
                weight.requires_grad_(name in wanted)
            x = normal(T, B, I, requires_grad="x" in wanted)
            h = normal(2, B, H, requires_grad="h" in wanted)
            made = leaves(module(x, (h, h.detach() / 2) if kind == "LSTM" else h))
            objective(made).backward()
            results.append({"dx": x.grad, "dh": h.grad, **grads(module)})
        assert [value is None for value in results[0].values()] == [value is None for value in results[1].values()]
        assert_near(*reversed(results))


@kinds
def test_no_gradients_at_all(kind):
    _, ours = pair(kind)
    ours.requires_grad_(False)
    assert not any(tensor.requires_grad for tensor in leaves(ours(normal(T, B, I))))


@kinds
def test_gradients_by_some_inputs(kind):
    """torch.autograd.grad and backward(inputs=) by a part of what requires it."""
    results = []
    for module in pair(kind, num_layers=2):
        x = normal(T, B, I, requires_grad=True)
        y, _ = module(x)
        (dw,) = torch.autograd.grad(y.square().sum(), [module.weight_hh_l1], retain_graph=True)
        y.square().sum().backward(inputs=[x, module.bias_ih_l0])
        assert module.weight_hh_l1.grad is None
        results.append([dw, x.grad, module.bias_ih_l0.grad])
    assert_near(*reversed(results))


# Errors


def tensors(*shapes, dtype=torch.float64):
    return tuple(normal(*shape, dtype=dtype) for shape in shapes)


LAYER_ERRORS = {
    "1-D": lambda kind: (normal(I), None),
    "4-D": lambda kind: (normal(1, T, B, I), None),
    "input_size": lambda kind: (normal(T, B, I + 1), None),
    "input_size unbatched": lambda kind: (normal(T, I + 1), None),
    "dtype": lambda kind: (normal(T, B, I, dtype=torch.float32), None),
    "integers": lambda kind: (normal(T, B, I).long(), None),
    "complex": lambda kind: (normal(T, B, I).to(torch.complex128), None),
    "half": lambda kind: (normal(T, B, I).half(), None),
    "no steps": lambda kind: (normal(0, B, I), None),
    "no features": lambda kind: (normal(T, B, 0), None),
    "a list": lambda kind: ([[1.0]], None),
    "an array": lambda kind: (normal(T, B, I).numpy(), None),
    "nothing": lambda kind: (None, None),
    "batch of h": lambda kind: (normal(T, B, I), hidden(kind, (2, B + 1, H))),
    "size of h": lambda kind: (normal(T, B, I), hidden(kind, (2, B, H + 1))),
    "layers of h": lambda kind: (normal(T, B, I), hidden(kind, (3, B, H))),
    "2-D h": lambda kind: (normal(T, B, I), hidden(kind, (2, H))),
    "3-D h unbatched": lambda kind: (normal(T, I), hidden(kind, (2, 1, H))),
    "dtype of h": lambda kind: (normal(T, B, I), hidden(kind, (2, B, H), torch.float32)),
    "h for no sequences": lambda kind: (normal(T, 0, I), hidden(kind, (2, B, H))),
    "h of the other kind": lambda kind: (normal(T, B, I), hidden("GRU" if kind == "LSTM" else "LSTM", (2, B, H))),
    "one of h and c": lambda kind: (normal(T, B, I), tensors((2, B, H))),
    "three": lambda kind: (normal(T, B, I), tensors((2, B, H), (2, B, H), (2, B, H))),
    "size of c": lambda kind: (normal(T, B, I), tensors((2, B, H), (2, B, H + 1))),
    "h is a list": lambda kind: (normal(T, B, I), list(tensors((2, B, H), (2, B, H)))),
    "h is a number": lambda kind: (normal(T, B, I), 1.0),
    "h is on meta": lambda kind: (normal(T, B, I), hidden(kind, (2, B, H), device="meta")),
    "x is on meta": lambda kind: (normal(T, B, I).to("meta"), None),
    "x is sparse": lambda kind: (normal(T, B, I).to_sparse(), None),
}


def hidden(kind, shape, dtype=torch.float64, device="cpu"):
    h = normal(*shape, dtype=dtype).to(device)
    return (h, h) if kind == "LSTM" else h


def assert_same_outcome(theirs, ours, arguments):
    """The same error, or near results."""
    expected = raised(lambda: theirs(*arguments))
    assert_same_type_and_text(raised(lambda: ours(*arguments)), expected)
    if expected is None:
        assert_near(leaves(ours(*arguments)), leaves(theirs(*arguments)))


@kinds
@pytest.mark.parametrize("wrong", LAYER_ERRORS)
def test_errors_of_layers(kind, wrong):
    assert_same_outcome(*pair(kind, num_layers=2), LAYER_ERRORS[wrong](kind))


CELL_ERRORS = {
    "3-D": lambda kind: (normal(1, B, I), None),
    "0-D": lambda kind: (normal(1)[0], None),
    "input_size": lambda kind: (normal(B, I + 1), None),
    "dtype": lambda kind: (normal(B, I, dtype=torch.float32), None),
    "batch of h": lambda kind: (normal(B, I), hidden(kind, (B + 1, H))),
    "size of h": lambda kind: (normal(B, I), hidden(kind, (B, H + 1))),
    "1-D h": lambda kind: (normal(B, I), hidden(kind, (H,))),
    "2-D h unbatched": lambda kind: (normal(I), hidden(kind, (1, H))),
    "3-D h": lambda kind: (normal(B, I), hidden(kind, (1, B, H))),
    "dtype of h": lambda kind: (normal(B, I), hidden(kind, (B, H), torch.float32)),
    "one of h and c": lambda kind: (normal(B, I), tensors((B, H))),
    "size of c": lambda kind: (normal(B, I), tensors((B, H), (B, H + 1))),
    "a list": lambda kind: ([1.0], None),
}


@cell_kinds
@pytest.mark.parametrize("wrong", CELL_ERRORS)
def test_errors_of_cells(kind, wrong):
    given = CELL_ERRORS[wrong](kind.removesuffix("Cell"))
    assert_same_outcome(*pair(kind), given)


WRONG_CONSTRUCTIONS = [
    {"proj_size": 3}, {"proj_size": 6}, {"proj_size": -1}, {"dropout": 2}, {"dropout": -0.1}, {"dropout": True},
    {"dropout": "a"}, {"bias": 1}, {"batch_first": None}, {"num_layers": 0}, {"nonlinearity": "sigmoid"},
    {"hidden_size": 0}, {"input_size": 1.5}, {"unknown": 1}, {"input_size": None},
]  # fmt: skip


@kinds
@pytest.mark.parametrize("wrong", WRONG_CONSTRUCTIONS, ids=str)
def test_errors_of_constructors(kind, wrong):
    keywords = {"input_size": I, "hidden_size": H, **wrong}
    expected = raised(lambda: getattr(nn, kind)(**keywords))
    assert_same_type_and_text(raised(lambda: getattr(rnnkern.torch, kind)(**keywords)), expected)


def test_positional_arguments():
    assert rnnkern.torch.RNN(3, 4, 2, "relu", False, True).nonlinearity == "relu"
    assert rnnkern.torch.LSTM(3, 4, 2, False, True, 0.5, True, 2).proj_size == 2
    assert rnnkern.torch.GRU(3, 4, 2, False, True, 0.5, True).bidirectional
    assert rnnkern.torch.RNNCell(3, 4, False, "relu").nonlinearity == "relu"


@kinds
def test_initial_weights_are_stock_s(kind):
    weights = []
    for namespace in (nn, rnnkern.torch):
        torch.manual_seed(7)
        weights.append(getattr(namespace, kind)(I, H, 2, bidirectional=True).state_dict())
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@kinds
def test_wrong_shaped_weights(kind):
    """A weight that was replaced by one of another shape is PyTorch's error (or result), never read past its end."""
    for name, shape in (
        ("weight_ih_l0", (1, 1)),
        ("weight_hh_l0", (2,)),
        ("bias_ih_l0", (1,)),
        ("weight_hh_l0", (0, 0)),
    ):
        theirs, ours = pair(kind)
        for module in (theirs, ours):
            setattr(module, name, nn.Parameter(normal(*shape)))
        x = normal(T, B, I)
        assert_same_outcome(theirs, ours, (x,))


@kinds
def test_a_missing_weight(kind):
    theirs, ours = pair(kind)
    for module in (theirs, ours):
        del module.weight_hh_l0
    x = normal(T, B, I)
    assert_same_type_and_text(raised(lambda: ours(x)), raised(lambda: theirs(x)))


def test_a_layer_of_bfloat16_takes_pytorch_s_way():
    theirs, ours = stock("LSTM", dtype=torch.bfloat16), rnnkern.torch.accelerate(stock("LSTM", dtype=torch.bfloat16))
    x = normal(T, B, I, dtype=torch.bfloat16)
    with elsewhere():
        found = leaves(ours(x))
    assert all(map(torch.equal, found, leaves(theirs(x))))


def test_arrays_are_compared():
    """The comparison of this file fails where it should."""
    one = {"y": normal(3)}
    assert arrays({"y": None}) == {}
    with pytest.raises(AssertionError):
        assert_near(one, {"y": normal(3) + 1e-9})
    with pytest.raises(AssertionError):
        assert_near({"y": normal(3) * torch.nan}, one)
