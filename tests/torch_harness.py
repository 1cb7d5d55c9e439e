"""PyTorch's recurrent modules and ours with the same weights, and everything that a call of them computes."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnnkern.torch
from harness import Case, assert_all_close
from rnnkern.torch.layers import Layer, Recurrent

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
}
KINDS = ["RNN", "LSTM", "GRU"]
CELL_KINDS = [kind + "Cell" for kind in KINDS]
kinds = pytest.mark.parametrize("kind", KINDS)
every = pytest.mark.parametrize("kind", KINDS + CELL_KINDS)
I, H, T, B = 4, 6, 5, 3  # noqa: E741
"""Sizes of what has no reason for others."""


def stock(kind, *sizes, dtype=torch.float64, **options):
    """PyTorch's module of a kind, with weights that float32 can hold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(nn, kind)(*(sizes or (I, H)), **options).to(dtype)


def pair(kind, *sizes, **options):
    """PyTorch's module and ours, with weights of their own."""
    theirs = stock(kind, *sizes, **options)
    return theirs, rnnkern.torch.accelerate(copy.deepcopy(theirs))


def normal(*shape, seed=1, dtype=torch.float64, requires_grad=False):
    """Standard normal numbers that float32 can hold."""
    values = np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype).requires_grad_(requires_grad)


def leaves(result):
    """The tensors in what a module returns, or takes."""
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, (tuple, list)):
        return [leaf for member in result for leaf in leaves(member)]
    return [] if result is None else [result]


def given(kind, **options):
    """x for a module of some kind."""
    return normal(*((B, I) if kind in CELL_KINDS else (T, B, I)), **options)


def objective(result):
    """A scalar that every element of a result counts in, differently."""
    return sum((leaf.square() * (1 + i) + leaf.sin()).sum() for i, leaf in enumerate(leaves(result)))


def grads(module):
    return {name: weight.grad for name, weight in module.named_parameters()}


def arrays(tensors):
    """By name, without those that are not there."""
    if not isinstance(tensors, dict):
        # Any may be the gradient of a weight, which is a sum over all steps: so says the name.
        tensors = {f"result or weight's gradient {i}": tensor for i, tensor in enumerate(tensors)}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items() if tensor is not None}


def assert_near(actual, expected, case=None):
    """Tensors, by name or in order, are what is expected up to the rounding of a case; the same are missing."""
    assert_all_close(arrays(actual), arrays(expected), case or Case("lstm", T, B, I, H, (("num_layers", 2),)))


def assert_same_bits(found, expected):
    found, expected = leaves(found), leaves(expected)
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def assert_same_type_and_text(actual, expected):
    assert type(actual) is type(expected), f"{actual!r} instead of {expected!r}"
    assert str(actual) == str(expected)


def raised(function):
    """What a call raises; None: nothing."""
    try:
        function()
    except Exception as error:
        return error
    return None


@contextmanager
def paths():
    """Whether each call of an accelerated module in the block went to the kernels or "elsewhere"."""
    taken: list[str] = []
    forward = Recurrent.forward

    def forward_counted(self, input, hx=None):
        taken.append("kernels")
        return forward(self, input, hx)

    def counted(elsewhere):
        def elsewhere_counted(self, input, hx):
            taken[-1:] = ["elsewhere"]
            return elsewhere(self, input, hx)

        return elsewhere_counted

    with (
        patch.object(Recurrent, "forward", forward_counted),
        patch.object(Recurrent, "forward_elsewhere", counted(Recurrent.forward_elsewhere)),
        patch.object(Layer, "forward_elsewhere", counted(Layer.forward_elsewhere)),
    ):
        yield taken


@contextmanager
def on_kernels():
    """Every call in the block runs on the kernels; there is one."""
    with paths() as taken:
        yield
    assert set(taken) == {"kernels"}, taken


@contextmanager
def elsewhere():
    """Every call in the block goes PyTorch's own way; there is one."""
    with paths() as taken:
        yield
    assert set(taken) == {"elsewhere"}, taken


@dataclass(frozen=True)
class Problem:
    """A layer, the sizes of a call, and how its input is given."""

    cell: str
    options: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the layer."""
    packed: str = ""
    """"", "sorted" or "unsorted"."""
    state: bool = True
    contiguous: bool = True
    sizes: Case = field(default_factory=lambda: Case(""))
    """Steps, batch, input size and hidden size."""

    @property
    def case(self) -> Case:
        return Case(self.cell, *self._sizes(), tuple(self.options.items()))

    def _sizes(self):
        return self.sizes.steps, self.sizes.batch, self.sizes.input_size, self.sizes.hidden_size

    def modules(self, dtype):
        """PyTorch's in float64, and ours."""
        kind, own = CELLS[self.cell]
        theirs, ours = pair(kind, self.sizes.input_size, self.sizes.hidden_size, **own, **self.options)
        return theirs, ours.to(dtype)

    def everything(self, module, state_grad=True):
        """All that a forward and a backward pass compute, by name."""
        dtype = module.weight_ih_l0.dtype
        steps, batch, input_size, hidden_size = self._sizes()
        parts = module.num_layers * (1 + module.bidirectional)

        def given(*shape, seed):
            if self.contiguous or len(shape) < 2:
                return normal(*shape, seed=seed, dtype=dtype)
            return normal(*shape[::-1], seed=seed, dtype=dtype).permute(*range(len(shape))[::-1])

        shape = (batch, steps) if module.batch_first else (steps, batch)
        x = given(*shape, input_size, seed=1).requires_grad_()
        sequence, lengths = x, None
        if self.packed:
            lengths = np.random.default_rng(0).integers(1, steps + 1, batch)
            lengths[0] = steps
            lengths = -np.sort(-lengths) if self.packed == "sorted" else np.roll(lengths, 2)
            sequence = pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, self.packed == "sorted")
        sizes = (module.proj_size or hidden_size, hidden_size)[: 1 + (module.mode == "LSTM")]
        state = [given(parts, batch, size, seed=2 + i).requires_grad_(state_grad) for i, size in enumerate(sizes)]
        hx = (tuple(state) if module.mode == "LSTM" else state[0]) if self.state else None
        y, last = module(sequence, hx)
        results = dict(zip(("y", "h", "c"), (*leaves(y), *leaves(last))))
        gradients = [normal(*made.shape, seed=5 + i, dtype=dtype) for i, made in enumerate(results.values())]
        torch.autograd.backward(list(results.values()), gradients)
        return {
            **results,
            "dx": x.grad,
            **({f"d{name}": member.grad for name, member in zip("hc", state)} if self.state else {}),
            **{f"d{name}": gradient for name, gradient in grads(module).items()},
        }
