"""Odd values for every argument of everything that is public."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import numpy as np

import rnnkern

from .odd import Mischief, fingerprint, value

T, B, I, H, O = 4, 3, 2, 3, 2  # noqa: E741
HONEST = (TypeError, ValueError, MemoryError, Mischief)
CLASSES = ("RNN", "LSTM", "GRU", "Jordan")


@cache
def layer(kind: str, backend: str, deep: bool) -> Any:
    sizes = (I, H, O) if kind == "Jordan" else (I, H)
    options = {"num_layers": 2, "dropout": 0.5} if deep else {}
    return getattr(rnnkern, kind)(*sizes, seed=0, backend=backend, **options)


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape, dtype=np.float32)


def state_for(random: np.random.Generator, net: Any) -> Any:
    parts, size = net.num_layers, net._spec.output_size
    h = normal(random, parts, B, size)
    return (h, normal(random, parts, B, H)) if isinstance(net, rnnkern.LSTM) else h


def entry(random: np.random.Generator) -> tuple[str, Any, list[Any], dict[str, Any], list[np.ndarray]]:
    """A public function, right arguments for it, and arrays of the layer's own that it must not change."""
    kind = CLASSES[random.integers(4)]
    net = layer(kind, ("native", "reference")[random.integers(2)], bool(random.integers(2)))
    x, state, lengths = normal(random, T, B, I), state_for(random, net), [4, 2, 3]
    frozen, own = net.freeze(), list(net.weights.values())
    y, _, tape = net.forward(x, state, lengths=lengths)
    call = {"lengths": lengths, "return_sequence": True}
    weight = next(iter(net.weights))
    size = net._spec.output_size
    h, V = normal(random, 5, H), 7
    targets = random.integers(0, V, 5)
    stream = frozen.stream(B, state)
    choices = {
        "call": (net, [x, state], call),
        "forward": (net.forward, [x, state], {**call, "recompute": True}),
        "backward": (net.backward, [tape, y, state], {"wrt": ("x", "state", "weights")}),
        "step": (net.step, [x[0], state], {}),
        "trace": (net.trace, [x, state], {"lengths": lengths}),
        "trace_gradients": (net.trace_gradients, [x, state], {"lengths": lengths, "dy": y}),
        "frozen": (frozen, [x, state], call),
        "frozen.step": (frozen.step, [x[0], state], {}),
        "stream": (frozen.stream, [B, state], {}),
        "stream.step": (stream.step, [x[0]], {"out": np.empty((B, size), np.float32)}),
        "stream.run": (stream.run, [x], {}),
        "stream.reset": (stream.reset, [1], {}),
        "stream.state": (lambda given: setattr(stream, "state", given), [state], {}),
        "stream.generate": (lambda x0, fn: stream.generate(x0, fn, 3), [x[0], lambda y: y[:, :I].copy()], {}),
        "load_state_dict": (lambda given: copy_of(net).load_state_dict(given), [net.state_dict()], {}),
        "one weight": (lambda given: copy_of(net).weights.__setitem__(weight, given), [net.weights[weight]], {}),
        "explain": (rnnkern.explain, [net, T, B], {"lengths": lengths}),
        "constructor": (getattr(rnnkern, kind), [2, 3, 2][: 2 + (kind == "Jordan")], constructor(kind)),
        "linear_cross_entropy": (
            rnnkern.linear_cross_entropy,
            [h, normal(random, V, H), normal(random, V), targets],
            {"mask": targets > 1, "ignore_index": 3, "reduction": "mean", "gradient": True},
        ),
        "load": (rnnkern.load, ["/nowhere/at all"], {}),
    }
    name = list(choices)[random.integers(len(choices))]
    return name, *choices[name], own


def copy_of(net: Any) -> Any:
    return copy.deepcopy(net)


def constructor(kind: str) -> dict[str, Any]:
    options = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "dtype": np.float32,
        "seed": 0,
        "backend": "native",
        "activations": None,
        "clip": None,
    }
    own = {"RNN": {"nonlinearity": "tanh"}, "LSTM": {"proj_size": 0, "peephole": False, "coupled": False}}
    return options | own.get(kind, {"reset_after": True} if kind == "GRU" else {"output": "softmax"})


def attempt(seed: int, number: int) -> None:
    random = np.random.default_rng((1, seed, number))
    name, function, positional, keywords, own = entry(random)
    places = [*range(len(positional)), *keywords]
    for _ in range(1 + int(random.random() < 0.3)):
        place = places[random.integers(len(places))]
        (positional if isinstance(place, int) else keywords)[place] = value(
            random, positional[place] if isinstance(place, int) else keywords[place]
        )
    given = [*positional, *(member for key, member in keywords.items() if key != "out")]
    before = fingerprint([*given, *own])
    allowed = (*HONEST, OSError) if name == "load" else HONEST
    if name == "backward":
        allowed = (*allowed, RuntimeError)
    answer = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*positional, **keywords)
    except Exception as error:
        answer = error
    shown = f"{name}({', '.join(type(item).__name__ for item in given)})"
    if answer is not None:
        honest = isinstance(answer, allowed) and not isinstance(answer, RecursionError)
        assert honest, f"{shown} raised {type(answer).__name__}: {str(answer)[:300]}"
        assert str(answer) or isinstance(answer, (Mischief, MemoryError)), f"{shown}: no message"
    assert fingerprint([*given, *own]) == before, f"{shown} changed what it was given"
