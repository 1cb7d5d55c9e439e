"""rnnkern.torch under torch.compile and torch.export, and its operators by themselves."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from torch import nn
from torch.nn.utils import parametrizations

import rnnkern.torch
from rnnkern.torch import operators
from torch_harness import (
    CELL_KINDS,
    KINDS,
    B,
    H,
    I,
    T,
    assert_near,
    assert_same_type_and_text,
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

BACKENDS = [
    "eager",
    "aot_eager",
    pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs g++")),
]
backends = pytest.mark.parametrize("backend", BACKENDS)
OPTIONS = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "no bias, batch first": {"bias": False, "batch_first": True},
}


@pytest.fixture(autouse=True)
def fresh():
    """As in a new process; `accelerate` sets allow_rnn, which must not depend on the tests before."""
    torch._dynamo.reset()
    before = torch._dynamo.config.allow_rnn
    yield
    torch._dynamo.config.allow_rnn = before
    torch._dynamo.reset()


def graph_of(module, *arguments):
    """The names of the operators that a compiled call runs."""
    names = []

    def backend(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(module, fullgraph=True, backend=backend)(*arguments)
    return names


def state_of(kind, parts=1, **options):
    h = normal(parts, B, H, **options)
    return (h, normal(parts, B, H, seed=2, **options)) if kind == "LSTM" else h


def trained(call, module, kind, x, parts):
    """Results and all gradients of a call."""
    x = x.detach().requires_grad_()
    hx = state_of(kind, parts, requires_grad=True)
    made = leaves(call(x, hx))
    objective(made).backward()
    found = [*made, x.grad, *(leaf.grad for leaf in leaves(hx)), *grads(module).values()]
    module.zero_grad()
    return found


@backends
@kinds
@pytest.mark.parametrize("options", OPTIONS)
def test_compile(kind, options, backend):
    """One graph with the kernels in it, for inference and training, with and without hx."""
    if backend == "inductor" and options != "plain" and kind != "LSTM":
        return  # takes seconds, and knows nothing of kinds and options
    theirs, ours = pair(kind, **OPTIONS[options])
    x = normal(*((B, T, I) if ours.batch_first else (T, B, I)))
    parts = ours.num_layers * (1 + ours.bidirectional)
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    with torch.no_grad():
        assert_near(leaves(compiled(x)), leaves(theirs(x)))
    assert_near(trained(compiled, ours, kind, x, parts), trained(theirs, theirs, kind, x, parts))


@kinds
def test_the_kernels_are_in_the_graph(kind):
    ours = pair(kind)[1]
    assert "rnnkern.recurrence" in graph_of(ours, normal(T, B, I))
    assert "rnnkern.recurrence" in graph_of(ours, normal(T, I))


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_unbatched(kind):
    theirs, ours = pair(kind, num_layers=2)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x, h = normal(T, I), normal(2, H)
    hx = (h, h) if kind == "LSTM" else h
    assert_near(leaves(compiled(x, hx)), leaves(theirs(x, hx)))


@pytest.mark.parametrize("kind", CELL_KINDS)
def test_compiled_cells(kind):
    theirs, ours = pair(kind)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = normal(B, I)
    assert_near(leaves(compiled(x)), leaves(theirs(x)))


@kinds
def test_dynamic_sizes(kind):
    """Any T and B without compiling again."""
    theirs, ours = pair(kind)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, fullgraph=True, backend=count, dynamic=True)
    compilations = 0
    for steps, batch in ((5, 3), (7, 3), (7, 4), (2, 9), (11, 2)):
        x = normal(steps, batch, I)
        assert_near(leaves(compiled(x)), leaves(theirs(x)))
        compilations = compilations or count.frame_count
        module_gradients = []
        for module, call in ((ours, compiled), (theirs, theirs)):
            module.zero_grad()
            objective(call(x)).backward()
            module_gradients.append(grads(module))
        assert_near(*module_gradients)
    assert count.frame_count == compilations


def test_dropout_in_a_graph():
    """Masks of the right probability, for training only, the same ones backward."""
    ours = pair("LSTM", 32, 32, num_layers=2, dropout=0.5)[1]
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = normal(T, B, 32)
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    torch.manual_seed(1)
    eager = ours(x)[0]
    torch.manual_seed(1)
    assert torch.equal(compiled(x)[0], eager)
    for module_gradients, call in (([], ours), ([], compiled)):
        torch.manual_seed(2)
        ours.zero_grad()
        objective(call(x)).backward()
        module_gradients.append(grads(ours))
    ours.eval()
    assert torch.equal(compiled(x)[0], ours(x)[0])


def test_packed_sequences_and_graphs():
    """Where the compiler can't, the results are right nevertheless."""
    theirs, ours = pair("GRU")
    compiled = torch.compile(ours, backend="aot_eager")
    packed = nn.utils.rnn.pack_padded_sequence(normal(T, B, I), torch.tensor([5, 2, 3]), enforce_sorted=False)
    assert_near([compiled(packed)[0].data], [theirs(packed)[0].data])


def same(found, expected):
    return all(map(torch.equal, leaves(found), leaves(expected)))


FROZEN = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
    "no bias, batch first": {"bias": False, "batch_first": True},
}


@kinds
@pytest.mark.parametrize("options", FROZEN)
def test_frozen_layers_in_a_graph(kind, options):
    """One graph with the kernels in it, with no `accelerate` before; the bits of the layer."""
    torch._dynamo.config.allow_rnn = False
    frozen = rnnkern.torch.freeze(stock(kind, **FROZEN[options]))
    x, hx = normal(T, B, I), state_of(kind, 1) if options == "plain" else None
    x = x.transpose(0, 1) if frozen.batch_first else x
    for used in (frozen, frozen.train(), copy.deepcopy(frozen).to("cpu"), pickle.loads(pickle.dumps(frozen))):
        compiled = torch.compile(used, fullgraph=True, backend="aot_eager")
        assert same(compiled(x), frozen(x))
        assert same(compiled(x, hx), frozen(x, hx))
    assert "rnnkern.recurrence" in graph_of(frozen, x, hx)
    assert torch._dynamo.config.allow_rnn is False


@pytest.mark.parametrize("kind", CELL_KINDS)
def test_frozen_cells_in_a_graph(kind):
    frozen = rnnkern.torch.freeze(stock(kind))
    torch._dynamo.config.allow_rnn = False
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    assert_near(leaves(compiled(normal(B, I))), leaves(frozen(normal(B, I))))


def test_frozen_layers_of_our_own_in_a_graph():
    frozen = rnnkern.torch.freeze(rnnkern.torch.LSTM(I, H, proj_size=2, peephole=True, clip=0.5, dtype=torch.float64))
    torch._dynamo.config.allow_rnn = False
    x = normal(T, B, I)
    assert same(torch.compile(frozen, fullgraph=True, backend="aot_eager")(x), frozen(x))


def test_what_a_frozen_layer_s_graph_cannot_do():
    """There is a break, and the results, or PyTorch's errors, are the same."""
    torch._dynamo.config.allow_rnn = False
    frozen = rnnkern.torch.freeze(stock("GRU"))
    compiled = torch.compile(frozen, backend="eager")
    packed = nn.utils.rnn.pack_padded_sequence(normal(T, B, I), torch.tensor([5, 2, 3]), enforce_sorted=False)
    assert torch.equal(compiled(packed)[0].data, frozen(packed)[0].data)
    wrong = normal(T, B, I + 1)
    assert_same_type_and_text(raised(lambda: compiled(wrong)), raised(lambda: frozen(wrong)))
    with pytest.raises(RuntimeError, match="inference only"):
        compiled(normal(T, B, I, requires_grad=True))


class Scorer(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.out = rnn, nn.Linear(H, 2).double()

    def forward(self, x):
        self.rnn.flatten_parameters()
        h = x.new_zeros(self.rnn.num_layers, x.shape[1], self.rnn.hidden_size)
        return self.out(self.rnn(x, h)[0])


@pytest.mark.parametrize("strict", [False, True])
def test_export_of_frozen_layers(strict):
    """By itself, and in a model whose code uses the layer's attributes."""
    torch._dynamo.config.allow_rnn = False
    frozen, x = rnnkern.torch.freeze(stock("GRU")), normal(T, B, I)
    calls = [(frozen, x), (Scorer(frozen).eval(), x)]
    if not strict:
        calls.append((rnnkern.torch.freeze(stock("LSTMCell")), x[0]))
    for module, given in calls:
        program = torch.export.export(module, (given,), strict=strict)
        assert_near(leaves(program.module()(given)), leaves(module(given)))
        assert not any("gru" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refilled_input_with_the_batch_first(kind):
    """Backward has a copy of x, as eager calls have."""
    layer = rnnkern.torch.accelerate(getattr(nn, kind)(4, 6, batch_first=True))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for refilled in (False, True):
        x = torch.ones(3, 5, 4)
        y = compiled(x)[0]
        if refilled:
            x.numpy().fill(7)
        found.append(torch.autograd.grad(y.sum(), layer.weight_ih_l0)[0])
    assert torch.equal(*found)


def test_a_model_around_it():
    class Model(nn.Module):
        def __init__(self, rnn):
            super().__init__()
            self.embed, self.rnn, self.out = nn.Embedding(11, I), rnn, nn.Linear(H, 11)

        def forward(self, tokens):
            return self.out(torch.relu_(self.rnn(self.embed(tokens))[0]))

    torch.manual_seed(0)
    tokens = torch.randint(11, (T, B))
    model = Model(nn.LSTM(I, H, num_layers=2)).double()
    expected = model(tokens)
    nn.functional.cross_entropy(expected.flatten(0, 1), tokens.flatten()).backward()
    expected_grads = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    rnnkern.torch.accelerate(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = compiled(tokens)
    nn.functional.cross_entropy(found.flatten(0, 1), tokens.flatten()).backward()
    assert_near([found], [expected])
    assert_near(grads(model), expected_grads)


@pytest.mark.parametrize("warm", [False, True], ids=["new", "used"])
def test_computed_weights_in_a_graph(warm):
    """A parametrized weight is computed at every call, also after its source has changed."""
    results = []
    for module in pair("LSTM"):
        parametrizations.weight_norm(module, "weight_hh_l0")
        x = normal(T, B, I)
        if warm:
            module(x)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        found = []
        for _ in range(3):
            module.zero_grad()
            made = leaves(compiled(x))
            objective(made).backward()
            found += [*made, *grads(module).values()]
            with torch.no_grad():
                module.parametrizations.weight_hh_l0.original0.mul_(1.5)
        results.append(found)
    assert_near(*reversed(results))


def test_changed_and_replaced_weights_in_a_graph():
    theirs, ours = pair("GRU")
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = normal(T, B, I)
    compiled(x)
    for module in (theirs, ours):
        module.weight_ih_l0.data = normal(3 * H, I, seed=8)
    assert_near(leaves(compiled(x)), leaves(theirs(x)))
    for module in (theirs, ours):
        module.weight_ih_l0 = nn.Parameter(normal(3 * H, I, seed=9))
    assert_near(leaves(compiled(x)), leaves(theirs(x)))


@kinds
def test_other_dtypes_in_a_graph(kind):
    theirs, ours = pair(kind, dtype=torch.bfloat16)
    compiled = torch.compile(ours, backend="aot_eager")
    x = normal(T, B, I, dtype=torch.bfloat16, requires_grad=True)
    objective(compiled(x)).backward()
    assert x.grad is not None
    assert leaves(compiled(x))[0].dtype is torch.bfloat16
    error = (leaves(compiled(x))[0] - leaves(theirs(x))[0]).abs().max()
    assert error <= 8 * torch.finfo(torch.bfloat16).eps


@kinds
def test_wrong_arguments_in_a_graph(kind):
    for x, hx in ((normal(T, B, I + 1), None), (normal(0, B, I), None), (normal(T, B, I), normal(3, B, H))):
        torch._dynamo.reset()
        hx = (hx, hx) if kind == "LSTM" and hx is not None else hx
        theirs, ours = pair(kind)
        assert raised(lambda theirs=theirs, x=x, hx=hx: theirs(x, hx)) is not None
        compiled = torch.compile(ours, backend="eager")
        assert raised(lambda compiled=compiled, x=x, hx=hx: compiled(x, hx)) is not None


@kinds
def test_a_wrong_shaped_weight_in_a_graph(kind):
    """An error, or PyTorch's result; never what isn't there."""
    theirs, ours = pair(kind)
    for module in (theirs, ours):
        module.weight_hh_l0 = nn.Parameter(normal(3, 2))
    compiled = torch.compile(ours, backend="eager")
    assert raised(lambda: theirs(normal(T, B, I))) is not None
    assert raised(lambda: compiled(normal(T, B, I))) is not None


# torch.export


@kinds
def test_export(kind, tmp_path):
    """With a dynamic number of steps, saved and loaded."""
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    steps = torch.export.Dim("steps", min=2, max=1000)
    program = torch.export.export(ours.eval(), (normal(T, B, I),), dynamic_shapes=({0: steps},))
    assert any("rnnkern.recurrence" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "model.pt2")
    for loaded in (program, torch.export.load(tmp_path / "model.pt2")):
        for length in (2, T, 40):
            x = normal(length, B, I)
            assert_near(leaves(loaded.module()(x)), leaves(theirs(x)))


def test_strict_export():
    theirs, ours = pair("LSTM")
    program = torch.export.export(ours, (normal(T, B, I),), strict=True)
    x = normal(T, B, I, seed=4)
    assert_near(leaves(program.module()(x)), leaves(theirs(x)))


# The operators

CASES = {
    "lstm": ("LSTM", {}),
    "rnn, both directions": ("RNN", {"num_layers": 2, "bidirectional": True}),
    "gru without bias": ("GRU", {"bias": False}),
    "projected": ("LSTM", {"proj_size": 3, "num_layers": 2}),
}


def operands(kind, options, layout="plain", state=True, masks=False, dtype=torch.float64, requires_grad=True):
    """The arguments of `recurrence`."""
    module = pair(kind, **options)[1].to(dtype)
    x = normal(T, B, I, dtype=dtype) if layout == "plain" else normal(I, B, T, dtype=dtype).permute(2, 1, 0)
    parts = module.num_layers * (1 + module.bidirectional)
    width = (1 + module.bidirectional) * (module.proj_size or H)
    h0 = normal(parts, B, module.proj_size or H, dtype=dtype, requires_grad=requires_grad) if state else None
    c0 = normal(parts, B, H, dtype=dtype, requires_grad=requires_grad) if state and kind == "LSTM" else None
    weights = [weight.detach().clone().requires_grad_(requires_grad) for weight in module._flat_weights]
    factors = [normal(T, B, width, dtype=dtype).gt(0).to(dtype) * 2 for _ in range(module.num_layers - 1)]
    return (
        x.requires_grad_(requires_grad),
        h0,
        c0,
        weights,
        factors if masks else [],
        module.description(),
        requires_grad,
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["plain", "permuted"])
@pytest.mark.parametrize("state", [False, True])
def test_opcheck(case, layout, state):
    for requires_grad in (False, True):
        arguments = operands(*CASES[case], layout, state, masks=layout == "plain", requires_grad=requires_grad)
        torch.library.opcheck(torch.ops.rnnkern.recurrence.default, arguments)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["plain", "permuted"])
def test_opcheck_backward(case, layout):
    x, h0, c0, weights, masks, network, _ = operands(*CASES[case], layout, requires_grad=False)
    y, hn, cn, tape = torch.ops.rnnkern.recurrence(x, h0, c0, weights, masks, network, True)
    given = torch.randn_like(y), torch.randn_like(hn), torch.randn_like(cn) if c0 is not None else None
    for wanted in (True, False):
        flags = [wanted, True, c0 is not None and wanted, *[True] * len(weights)]
        arguments = (x, h0, c0, weights, masks, tape, *given, network, flags)
        torch.library.opcheck(torch.ops.rnnkern.recurrence_backward.default, arguments)


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_the_layer(case):
    kind, options = CASES[case]
    module = pair(kind, **options)[1]
    x, h0, c0, weights, masks, network, keep = operands(kind, options)
    y, hn, cn, _ = torch.ops.rnnkern.recurrence(x, h0, c0, weights, masks, network, keep)
    with on_kernels():
        expected_y, expected = module(x, (h0, c0) if kind == "LSTM" else h0)
    assert all(map(torch.equal, [y, hn, cn], [expected_y, *leaves(expected)]))


def wrong_operands():
    x, h0, c0, weights, masks, network, keep = operands("LSTM", {"num_layers": 2})
    yield "features", (x[..., :1], h0, c0, weights, masks, network, keep)
    yield "rank", (x[0], h0, c0, weights, masks, network, keep)
    yield "dtype", (x.bfloat16(), h0, c0, weights, masks, network, keep)
    yield "a weight's dtype", (x, h0, c0, [w.float() for w in weights], masks, network, keep)
    yield "a weight's shape", (x, h0, c0, [*weights[:-1], weights[-1][:1]], masks, network, keep)
    yield "too few weights", (x, h0, c0, weights[:-1], masks, network, keep)
    yield "h0", (x, h0[:1], c0, weights, masks, network, keep)
    yield "c0", (x, h0, c0[..., :1], weights, masks, network, keep)
    yield "a mask", (x, h0, c0, weights, [x], network, keep)
    yield "too many masks", (x, h0, c0, weights, [normal(T, B, H)] * 2, network, keep)


@pytest.mark.parametrize(("_", "arguments"), list(wrong_operands()), ids=[name for name, _ in wrong_operands()])
def test_wrong_operands(_, arguments):
    """Errors, nothing read past its end."""
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.rnnkern.recurrence(*arguments)


@pytest.mark.parametrize("wrong", ["tape", "dy", "dhn", "dcn"])
def test_wrong_operands_of_backward(wrong):
    x, h0, c0, weights, masks, network, _ = operands("LSTM", {}, requires_grad=False)
    y, hn, cn, tape = torch.ops.rnnkern.recurrence(x, h0, c0, weights, masks, network, True)
    given = {"tape": tape, "dy": y, "dhn": hn, "dcn": cn}
    given[wrong] = given[wrong][:0]
    wanted = [True] * (3 + len(weights))
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.rnnkern.recurrence_backward(x, h0, c0, weights, masks, *given.values(), network, wanted)


def test_a_description_describes():
    module = rnnkern.torch.GRU(3, 4, 2, bidirectional=True, reset_after=False, clip=0.5, activations=("Relu", "Tanh"))
    again = operators.described(module.description(), torch.float64)
    assert again.spec == module.network(torch.float64).spec


def test_errors_of_eager_calls_are_unchanged_by_compiling():
    theirs, ours = pair("LSTM")
    wrong = normal(T, B, I + 1)
    assert_same_type_and_text(raised(lambda: ours(wrong)), raised(lambda: theirs(wrong)))
