"""The same network asked in every way: equal bits."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnkern
from harness import (
    CELLS,
    ISAS,
    Case,
    Inputs,
    assert_all_same_bits,
    assert_same_bits,
    forward,
    forward_backward,
    make_inputs,
    states_of,
)


def random_case(random: np.random.Generator, seed: int) -> Case:
    large = random.random() < 0.1
    sizes = [int(random.integers(1, 200 if large else 40)) for _ in range(2)]
    options: dict[str, Any] = {
        "num_layers": int(random.integers(1, 4)),
        "bidirectional": bool(random.integers(2)),
        "bias": bool(random.integers(2)),
        "batch_first": bool(random.integers(2)),
    }
    case = Case(
        sorted(CELLS)[random.integers(len(CELLS))],
        int(random.integers(0, 40 if random.random() < 0.2 else 9)),
        int(random.integers(0, 70 if random.random() < 0.2 else 9)),
        *sizes,
        lengths=bool(random.integers(2)),
        state=bool(random.integers(2)),
        seed=seed,
    ).with_options(**options)
    return case if case.valid() and (case.steps or not case.lengths) else random_case(random, seed)


def time_major(array: np.ndarray, layer: Any) -> np.ndarray:
    return array.swapaxes(0, 1) if layer.batch_first else array


def sequence_alone(layer: Any, inputs: Inputs, row: int) -> dict[str, np.ndarray]:
    """What the layer makes of one sequence without a batch, of its own length."""
    x = time_major(inputs.x, layer)
    length = x.shape[0] if inputs.lengths is None else int(inputs.lengths[row])
    state = inputs.state
    if state is not None:
        state = tuple(member[:, row] for member in state) if isinstance(state, tuple) else state[:, row]
    y, last = layer(x[:length, row], state)
    return {"y": y, **states_of(last)}


def step_by_step(layer: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    x, state, outputs = time_major(inputs.x, layer), inputs.state, []
    for x_t in x:
        y_t, state = layer.step(x_t, state)
        outputs.append(y_t)
    return {"y": np.stack(outputs), **states_of(state)}


def attempt(seed: int, number: int) -> None:
    random = np.random.default_rng((2, seed, number))
    case = random_case(random, int(random.integers(2**32)))
    dtype, isa = [np.float32, np.float64][random.integers(2)], ISAS[random.integers(len(ISAS))]
    layer = case.layer(dtype, _isa=isa)
    inputs = make_inputs(case, layer)
    with rnnkern.num_threads(1):
        plain = forward(layer, inputs)
        trained = forward_backward(layer, inputs)
    for threads in (1, 2, 3):
        with rnnkern.num_threads(threads):
            frozen = layer.freeze()
            assert_all_same_bits(forward(layer, inputs), plain)
            assert_all_same_bits(forward(frozen, inputs), plain)
            assert_all_same_bits(forward_backward(layer, inputs, recompute=threads == 2), trained)
            last = forward(layer, inputs, return_sequence=False)
            assert_all_same_bits({k: v for k, v in last.items() if k != "y"}, {k: plain[k] for k in plain if k != "y"})
    assert_all_same_bits({name: trained[name] for name in plain}, plain)
    y = time_major(plain["y"], layer)
    for row in range(min(case.batch, 3)):
        alone = sequence_alone(layer, inputs, row)
        length = len(alone["y"])
        assert_same_bits(alone.pop("y"), y[:length, row], "y alone")
        assert not y[length:, row].any()
        for name, member in alone.items():
            assert_same_bits(member, plain[name][:, row], f"{name} alone")
    trace = layer.trace(inputs.x, inputs.state, lengths=inputs.lengths)
    if not layer.proj_size and not layer.bidirectional:
        state = "h" + ("" if layer.num_layers == 1 else f"_l{layer.num_layers - 1}")
        assert_same_bits(trace[state], plain["y"], "trace")
    if not layer.bidirectional and not case.lengths and case.steps and case.batch:
        for way in (layer, frozen):
            found = step_by_step(way, inputs) if way is layer else streamed(way, inputs, layer)
            assert_same_bits(found.pop("y"), y, "y by steps")
            assert_all_same_bits(found, {name: plain[name] for name in found})


def streamed(frozen: Any, inputs: Inputs, layer: Any) -> dict[str, np.ndarray]:
    """The first half by steps, the second in one piece."""
    x = time_major(inputs.x, layer)
    stream, half = frozen.stream(x.shape[1], inputs.state), len(x) // 2
    pieces = [stream.step(x_t)[None] for x_t in x[:half]]
    rest = stream.run(time_major(x[half:], layer))
    return {"y": np.concatenate([*pieces, time_major(rest, layer)]), **states_of(stream.state)}
