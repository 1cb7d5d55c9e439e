"""Odd tensors for PyTorch's layers and for ours: the same results and gradients, or both refuse."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnnkern.torch
from harness import Case, assert_all_close
from torch_harness import leaves, objective

T, B, I, H = 4, 3, 5, 6  # noqa: E741
KINDS = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


class Subclass(torch.Tensor):
    pass


def normal(random: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape)).to(dtype)


def odd(random: np.random.Generator, tensor: torch.Tensor) -> torch.Tensor:
    """The same values in another layout or kind of tensor, or something else altogether."""
    n = tensor.ndim
    ways = [
        lambda t: t,
        lambda t: t.clone().requires_grad_(),
        lambda t: (t * 1.0).requires_grad_() * 1.0,
        lambda t: t.transpose(0, n - 1).contiguous().transpose(0, n - 1),
        lambda t: torch.cat([t, t], -1)[..., : t.shape[-1]],
        lambda t: torch.stack([t, t], -1)[..., 0],
        lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
        lambda t: t[:1].expand(t.shape),
        lambda t: t[..., :1].expand(t.shape),
        lambda t: t.as_subclass(Subclass),
        lambda t: t.neg().conj().neg(),
        lambda t: t.flip(0),
        lambda t: nn.Parameter(t.clone()),
        lambda t: t.to(torch.float32 if t.dtype == torch.float64 else torch.float64),
        lambda t: t.half(),
        lambda t: t.to(torch.complex64),
        lambda t: t.long(),
        lambda t: t.to_sparse(),
        lambda t: t.to("meta"),
        lambda t: t[0],
        lambda t: t[None],
        lambda t: t[..., :-1],
        lambda t: t[:0],
        lambda t: t[:1],
        lambda t: t.narrow(min(1, n - 1), 0, 0),
        lambda t: torch.where(t > 1, torch.nan, t),
        lambda t: torch.where(t > 1, torch.inf, t),
        lambda t: t * 1e30,
        lambda t: t.numpy(),
        lambda t: t.tolist(),
        lambda t: None,
    ]
    likely = 12  # the first ones are right
    return ways[random.integers(likely if random.random() < 0.7 else len(ways))](tensor)


def can_be_packed(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.ndim == 3 and x.device.type == "cpu" and x.layout is torch.strided


def outcome(module: nn.Module, random: np.random.Generator, make: Any) -> Any:
    """Results and gradients by name, or the error."""
    x, hx, context = make(random)
    try:
        with context, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = module(x) if hx is None else module(x, hx)
            tensors = leaves(made)
            if any(tensor.requires_grad for tensor in tensors):
                objective(made).backward()
    except Exception as error:
        return error
    inputs = [leaf for leaf in leaves((x, hx)) if isinstance(leaf, torch.Tensor) and leaf.is_leaf]
    named = {f"result {i}": tensor for i, tensor in enumerate(tensors)}
    named |= {f"gradient {i}": leaf.grad for i, leaf in enumerate(inputs) if leaf.grad is not None}
    return named | {f"d{name}": weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def attempt(seed: int, number: int) -> None:
    random = np.random.default_rng((3, seed, number))
    kind = KINDS[random.integers(len(KINDS))]
    is_cell = kind.endswith("Cell")
    dtype = (torch.float32, torch.float64)[random.integers(2)]
    options: dict[str, Any] = {"bias": bool(random.integers(2))}
    if not is_cell:
        options |= {"num_layers": int(random.integers(1, 3)), "bidirectional": bool(random.integers(2))}
        options |= {"batch_first": bool(random.integers(2))}
        if kind == "LSTM" and random.random() < 0.3:
            options["proj_size"] = 3
    torch.manual_seed(number)
    theirs = getattr(nn, kind)(I, H, **options).to(dtype)
    for weight in theirs.parameters():
        weight.requires_grad_(bool(random.random() < 0.8))
    ours = rnnkern.torch.accelerate(copy.deepcopy(theirs))
    frozen_random = random.bit_generator.state

    def make(again: np.random.Generator) -> tuple[Any, Any, Any]:
        again.bit_generator.state = frozen_random
        shape = (B, I) if is_cell else (B, T, I) if options["batch_first"] else (T, B, I)
        x: Any = odd(again, normal(again, *shape, dtype=dtype))
        if (
            not is_cell
            and again.random() < 0.2
            and isinstance(x, torch.Tensor)
            and x.ndim == 3
            and x.device.type == "cpu"
        ):
            rows = x.shape[0 if options["batch_first"] else 1]
            steps = x.shape[1 if options["batch_first"] else 0]
            if rows and steps and x.layout is torch.strided:
                lengths = torch.from_numpy(again.integers(1, steps + 1, rows))
                x = pack_padded_sequence(x, lengths, options["batch_first"], enforce_sorted=False)
        parts = () if is_cell else (options["num_layers"] * (1 + options["bidirectional"]),)
        sizes = (options.get("proj_size") or H, H)[: 1 + kind.startswith("LSTM")]
        hx: Any = tuple(odd(again, normal(again, *parts, B, size, dtype=dtype)) for size in sizes)
        hx = None if again.random() < 0.3 else hx if kind.startswith("LSTM") else hx[0]
        contexts = [contextlib.nullcontext, contextlib.nullcontext, torch.no_grad, torch.inference_mode]
        return x, hx, contexts[again.integers(len(contexts))]()

    expected, found = outcome(theirs, np.random.default_rng(), make), outcome(ours, np.random.default_rng(), make)
    compare(found, expected)


def compare(found: Any, expected: Any) -> None:
    if isinstance(expected, Exception) or isinstance(found, Exception):
        assert type(found) is type(expected), f"ours: {found!r:.300}\nstock: {expected!r:.300}"
        return
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    for name, theirs in expected.items():
        ours = found[name]
        assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device), name
        assert ours.requires_grad == theirs.requires_grad, name
        assert ours.is_inference() == theirs.is_inference(), name
    numbers = {
        name: (ours.detach().numpy(), expected[name].detach().numpy())
        for name, ours in found.items()
        if ours.device.type == "cpu" and ours.layout is torch.strided
    }
    finite = all(np.isfinite(pair).all() and np.abs(pair).max(initial=0) < 1e6 for pair in numbers.values())
    if finite:
        case = Case("lstm", 4 * T, B, I, 4 * H, (("num_layers", 2),))
        # Both round, so each may be off.
        assert_all_close(*({f"weight {k}": v[i] / 2 for k, v in numbers.items()} for i in (0, 1)), case)
