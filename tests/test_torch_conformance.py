"""PyTorch's own tests of its recurrent modules (test/test_modules.py), on ours.

Constructor arguments, inputs, references and errors are those of torch.testing._internal.common_modules.
"""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("expecttest", reason="torch.testing needs expecttest")

import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_utils import freeze_rng_state, noncontiguous_like

import rnnkern.torch
from torch_harness import arrays, assert_near, elsewhere, leaves, on_kernels, paths

INFOS = {
    info.module_cls.__name__: info for info in module_db if info.module_cls.__name__ in rnnkern.torch.layers.__dict__
}
every = pytest.mark.parametrize("name", INFOS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def test_all_are_there():
    assert sorted(INFOS) == ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"]


@pytest.fixture(autouse=True)
def same_inputs():
    torch.manual_seed(0)


def samples(name, dtype=torch.float64, requires_grad=False, training=False, **keywords):
    """(module of ours, arguments, keywords, reference or None)."""
    info = INFOS[name]
    found = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training, **keywords
    )
    for sample in found:
        module = getattr(rnnkern.torch, name)(*sample.constructor_input.args, **sample.constructor_input.kwargs)
        yield module.to(dtype).train(training), *inputs(sample.forward_input), sample.reference_fn


def inputs(given):
    return given.args, given.kwargs


def twin(module):
    """PyTorch's module with the same Parameters."""
    return rnnkern.torch.swap.restored(module)


def as_leaves(arguments, requires_grad=True):
    """Copies that gradients end at."""

    def copy(value):
        if isinstance(value, PackedSequence):
            return PackedSequence(copy(value.data), *value[1:])
        if isinstance(value, tuple):
            return tuple(map(copy, value))
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_(requires_grad)

    return [copy(value) for value in arguments]


def forward_backward(module, arguments):
    """Results, and gradients of arguments and weights."""
    module.zero_grad()
    made = leaves(module(*arguments))
    torch.autograd.backward(made, [torch.cos(torch.arange(t.numel(), dtype=t.dtype)).view_as(t) for t in made])
    return [*made, *(leaf.grad for leaf in leaves(arguments)), *(weight.grad for weight in module.parameters())]


@every
@dtypes
@modes
def test_forward(name, dtype, training):
    for module, args, kwargs, reference in samples(name, dtype, training=training):
        with on_kernels():
            found = leaves(module(*args, **kwargs))
        assert_near(found, leaves(twin(module)(*args, **kwargs)))
        with on_kernels():
            assert_near(found, leaves(reference(module, *args, **kwargs)))


@every
@dtypes
def test_factory_keywords(name, dtype):
    info = INFOS[name]
    for sample in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True):
        given = sample.constructor_input
        for device in ("cpu", "meta"):
            module = getattr(rnnkern.torch, name)(*given.args, **given.kwargs, device=device, dtype=dtype)
            assert {(weight.dtype, weight.device.type) for weight in module.parameters()} == {(dtype, device)}


@every
def test_repr(name):
    for module, *_ in samples(name):
        assert repr(module) == "rnnkern.torch." + repr(twin(module))


@every
def test_pickle(name):
    for module, args, kwargs, _ in samples(name):
        again = pickle.loads(pickle.dumps(module))
        assert type(again) is type(module)
        with on_kernels():
            assert all(map(torch.equal, leaves(again(*args, **kwargs)), leaves(module(*args, **kwargs))))


@every
def test_functional(name):
    for module, args, kwargs, _ in samples(name):
        weights = {key: weight.detach() * 1.5 for key, weight in module.named_parameters()}
        before = leaves(module(*args, **kwargs))
        with on_kernels():
            found = leaves(functional_call(module, weights, args, kwargs))
        expected = leaves(functional_call(twin(module), weights, args, kwargs))
        assert_near(found, expected)
        assert all(map(torch.equal, leaves(module(*args, **kwargs)), before))
        assert not torch.equal(found[0], before[0]) or not found[0].any()  # relu may leave nothing


@every
@modes
def test_inputs_may_be_anywhere(name, training):
    """Non-contiguous inputs and gradients."""
    for module, args, _, _ in samples(name, requires_grad=True, training=training, **packed(name)):
        expected = forward_backward(twin(module), as_leaves(args))
        strided = as_leaves(args)
        for leaf in leaves(strided):
            leaf.data = noncontiguous_like(leaf.data)
        assert not any(leaf.is_contiguous() for leaf in leaves(strided))
        with on_kernels():
            assert_near(forward_backward(module, strided), expected)


def packed(name):
    return {"with_packed_sequence": True} if name in ("RNN", "GRU") else {}


def differentiable(module, args):
    """A function of tensors, and those: for gradcheck."""
    args = as_leaves(args)
    weights = dict(module.named_parameters())
    flat = (*leaves(args), *weights.values())

    def function(*tensors):
        rest = iter(tensors)
        given = [rebuilt(value, rest) for value in args]
        return tuple(leaves(functional_call(module, dict(zip(weights, rest)), tuple(given))))

    return function, flat


def rebuilt(value, tensors):
    if isinstance(value, PackedSequence):
        return PackedSequence(next(tensors), *value[1:])
    if isinstance(value, tuple):
        return tuple(rebuilt(member, tensors) for member in value)
    return next(tensors)


@every
@modes
def test_grad(name, training):
    for module, args, _, _ in samples(name, training=training, **packed(name)):
        function, flat = differentiable(module, args)
        with on_kernels():
            assert gradcheck(function, flat, fast_mode=True)


@every
def test_gradgrad(name):
    for module, args, _, _ in samples(name, **packed(name)):
        if isinstance(args[0], PackedSequence) and (len(args[0].data) > 8 or module.batch_first):
            continue  # only the small ones, and once: they have no batch_first
        function, flat = differentiable(module, args)
        with on_kernels():
            assert gradgradcheck(function, flat, fast_mode=True)


@every
def test_to_and_back(name):
    for module, args, kwargs, _ in samples(name):
        expected = leaves(module(*args, **kwargs))
        module.to(torch.bfloat16)
        with elsewhere():
            low = leaves(module(*(as_type(value, torch.bfloat16) for value in args)))
        assert {tensor.dtype for tensor in low} == {torch.bfloat16}
        module.to(torch.float32)
        args = [as_type(value, torch.float32) for value in args]
        with on_kernels():
            again = leaves(module(*args))
        assert_near(again, leaves(twin(module)(*args)))
        assert [tensor.shape for tensor in again] == [tensor.shape for tensor in expected]


def as_type(value, dtype):
    return tuple(member.to(dtype) for member in value) if isinstance(value, tuple) else value.to(dtype)


@every
def test_to_empty(name):
    for module, *_ in samples(name):
        weights = [weight.shape for weight in module.parameters()]
        module.to("meta").to_empty(device="cpu")
        assert [weight.shape for weight in module.parameters()] == weights
        assert {weight.device.type for weight in module.parameters()} == {"cpu"}


@every
def test_training_and_evaluation_do_not_differ(name):
    for module, args, kwargs, _ in samples(name):
        with freeze_rng_state():
            found = [arrays(leaves(module.train(mode)(*args, **kwargs))) for mode in (True, False)]
        for key in found[0]:
            assert (found[0][key] == found[1][key]).all()


@every
@dtypes
def test_errors(name, dtype):
    info = INFOS[name]
    kind = getattr(rnnkern.torch, name)
    for error in info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False):
        given = error.module_error_input
        args, kwargs = inputs(given.constructor_input)
        if error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(error.error_type, match=error.error_regex):
                kind(*args, **kwargs)
            continue
        with pytest.raises(error.error_type) as stock:
            INFOS[name].module_cls(*args, **kwargs)(*given.forward_input.args)
        with pytest.raises(error.error_type, match=error.error_regex) as ours:
            kind(*args, **kwargs)(*given.forward_input.args)
        assert str(ours.value) == str(stock.value)


def test_this_sees_which_way_a_call_goes():
    module, x = rnnkern.torch.LSTM(2, 3), torch.zeros(1, 1, 2)
    with paths() as taken:
        module(x)
        module(x[:, :0])
        rnnkern.torch.LSTMCell(2, 3)(x[0])
    assert taken == ["kernels", "elsewhere", "kernels"]
