"""Too little memory at any moment of a call: a MemoryError, nothing half done, and afterwards the same bits as ever.

Linux only: the limit is that of the process's address space.
"""

from __future__ import annotations

import os
import resource
from typing import Any

import numpy as np

import rnnkern
from harness import CELLS, Case, assert_all_same_bits, forward_backward, make_inputs

PAGE = os.sysconf("SC_PAGE_SIZE")


def address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * PAGE


class Limit:
    """At most so many bytes more than the process has now."""

    def __init__(self, more: int) -> None:
        self.more = more

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + self.more, self.before[1]))

    def __exit__(self, *_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def attempt(seed: int, number: int) -> None:
    random = np.random.default_rng((4, seed, number))
    case = Case(
        sorted(CELLS)[random.integers(len(CELLS))],
        *(int(random.integers(1, most)) for most in (200, 60, 100)),
        int(random.integers(2, 100)),
        seed=number,
    ).with_options(num_layers=int(random.integers(1, 3)), bidirectional=bool(random.integers(2)))
    layer = case.layer()
    inputs = make_inputs(case, layer)
    weights = layer.state_dict()
    expected = forward_backward(layer, inputs)
    ways = [
        lambda: forward_backward(layer, inputs, recompute=bool(number % 2)),
        lambda: layer.freeze()(inputs.x, inputs.state),
        lambda: layer.trace(inputs.x, inputs.state),
        lambda: layer.load_state_dict({name: array + 1 for name, array in weights.items()}),
    ]
    way = ways[random.integers(len(ways))]
    try:
        with Limit(int(2 ** random.uniform(10, 26))):
            found = way()
    except MemoryError:
        pass
    else:
        if way is ways[0]:
            assert_all_same_bits(found, expected)
    if way is ways[3]:
        changed = {float((array - weights[name]).min()) > 0.5 for name, array in layer.weights.items()}
        assert len(changed) == 1, "half of the weights were loaded"
        layer.load_state_dict(weights)
    assert_all_same_bits(forward_backward(layer, inputs), expected)
    assert rnnkern.get_num_threads() >= 1
