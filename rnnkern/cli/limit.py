"""The limit of a case on a machine whose limits are known: about the shortest time that it can take.

It is the sum over phases (input product, recurrence, each gradient product) of the longest of what must be computed at
the measured peak, what must be read or written at the measured bandwidth of the cache that holds it, and, step by step
in a recurrence, what waits for each other; and of the activations at their measured throughput.

The weights of a recurrence are read again at each step: by each thread its share, and the threads meet at each step,
or by each thread all of a direction's, for sequences of its own. The cheaper way counts, with as many threads as it
likes. Where a nearer cache holds a part of the weights from one step to the next, a kernel can be faster than this.
Directions run at the same time, layers one after the other. What a call reads or writes once comes from where
all of the call's arrays fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..spec import Array
from .case import Case
from .probes import Level, Limits


@dataclass(frozen=True)
class Pointwise:
    """What a cell computes per unit and step beside the products."""

    sigmoids: int
    tanhs: int
    chain_sigmoids: int
    """Of those, the ones that wait for each other."""
    chain_tanhs: int
    chain_multiply_adds: int
    """Those between the sums of one step and those of the next."""
    backward_tanhs: int
    backward_chain: int
    """Multiply-adds that wait for each other, backward."""


POINTWISE: Mapping[str, Pointwise] = {
    "lstm": Pointwise(3, 2, 1, 1, 3, 1, 4),
    "gru": Pointwise(2, 1, 1, 1, 3, 0, 4),
    "rnn": Pointwise(0, 1, 0, 1, 0, 0, 1),
}


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float
    bound: str
    """What takes that long."""
    flops: float = 0
    bytes: float = 0
    """Read or written."""


@dataclass(frozen=True)
class Limit:
    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def bound(self) -> str:
        """What most of the time goes into."""
        seconds: dict[str, float] = {}
        for phase in self.phases:
            seconds[phase.bound] = seconds.get(phase.bound, 0) + phase.seconds
        return max(seconds, key=lambda bound: seconds[bound])

    @property
    def flops(self) -> float:
        return sum(phase.flops for phase in self.phases)

    @property
    def intensity(self) -> float:
        """FLOPs per byte read or written."""
        return self.flops / sum(phase.bytes for phase in self.phases)


@dataclass(frozen=True)
class Recurrence:
    """The steps of one layer, all of its directions."""

    name: str
    rows: Array
    """Active sequences at each step."""
    directions: int
    units: int
    flops: float
    """Of one row, one direction."""
    weights: float
    """Bytes, of one direction."""
    moved: float
    """Bytes a row and direction that are read or written once."""
    sigmoids: int
    """Per unit and row."""
    tanhs: int
    chain: float
    """Seconds from the end of one step's sums to the end of the next one's."""


def limit(case: Case, train: bool, teams: Sequence[Limits]) -> Limit:
    """Return the limit of a case.

    Parameters
    ----------
    case
        In the dtype of `teams`.
    train
        Whether the gradients by inputs, states and weights are wanted, too.
    teams
        Measured with different numbers of threads. Products use the most, a recurrence any of them.
    """
    spec, size = case.spec, case.spec.dtype.itemsize
    widest = max(teams, key=lambda team: team.threads)
    directions, units, gates = spec.num_directions, spec.hidden_size, spec.num_gates
    rows = case.active_rows[case.active_rows > 0]
    total = float(rows.sum())
    home = home_level(case, train, widest)
    point, team = POINTWISE[case.cell], widest
    forward_chain = (
        point.chain_sigmoids * team.sigmoid_latency
        + point.chain_tanhs * team.tanh_latency
        + (point.chain_multiply_adds + math.ceil(math.log2(units))) * team.multiply_add_latency
    )
    backward_chain = (point.backward_chain + math.ceil(math.log2(gates * units))) * team.multiply_add_latency
    square = gates * units * units
    recurrence = Recurrence(
        "recurrence",
        rows,
        directions,
        units,
        2.0 * square,
        float(size * square),
        float(size * units),  # y
        point.sigmoids,
        point.tanhs,
        forward_chain,
    )
    backward = Recurrence(
        "dh product",
        rows,
        directions,
        units,
        2.0 * square,
        float(size * square),
        float(size * units),  # dy
        0,
        point.backward_tanhs,
        backward_chain,
    )
    recurrences = [recurrence_phases(recurrence, teams, home)]
    if train:
        recurrences.append(recurrence_phases(backward, teams, home))

    def phases() -> Iterator[Phase]:
        for layer in range(spec.num_layers):
            width = spec.layer_input_size(layer)
            weights = directions * gates * units * width
            into = (2.0 * total * weights, float(size * (weights + total * width)))
            yield product_phase("input product", *into, widest, home)
            yield from recurrences[0]
            if train:
                yield from recurrences[1]
                yield product_phase("dx product", *into, widest, home)
                yield product_phase("dW_ih", *into, widest, home)
                moved = float(size * directions * (square + total * units))
                yield product_phase("dW_hh", 2.0 * total * directions * square, moved, widest, home)

    return Limit(tuple(phases()))


def home_level(case: Case, train: bool, team: Limits) -> Level:
    """Where everything fits that a call reads and writes."""
    sequences = int(case.active_rows.sum()) * (case.shape.I + case.spec.num_directions * case.shape.H)
    together = float(case.spec.dtype.itemsize * (case.parameters + sequences) * (2 if train else 1))
    return team.level(together / team.threads, together)


def product_phase(name: str, flops: float, moved: float, team: Limits, home: Level) -> Phase:
    arithmetic, moving = flops / team.peak, moved / home.bandwidth
    return Phase(name, max(arithmetic, moving), bound_name(arithmetic, moving, 0, home), flops, moved)


def recurrence_phases(work: Recurrence, teams: Sequence[Limits], home: Level) -> tuple[Phase, ...]:
    """Steps and activations, by the cheapest of the teams and ways to split."""
    ways = [way for team in teams for way in splits(work, team, home)]
    return min(ways, key=lambda phases: sum(phase.seconds for phase in phases))


def splits(work: Recurrence, team: Limits, home: Level) -> Iterator[tuple[Phase, ...]]:
    """Give the phases of each way to split the work over the threads of a team."""
    threads, directions = team.threads, work.directions
    together = directions * work.weights

    # All rows by all threads, each for its units.
    level = team.level(together / threads, together)
    wait = work.chain + (team.barrier if threads > 1 else 0)
    yield steps(work, team, home, level, directions * work.rows, together, wait)

    # All units by each thread, for its rows of one direction.
    each = min(threads // directions, int(work.rows.max()))
    if each * directions > 1:
        level = team.level(work.weights, together)
        busiest = threads * np.ceil(work.rows / each)  # as many rows as all threads do meanwhile
        yield steps(work, team, home, level, busiest, threads * work.weights, work.chain)


def steps(
    work: Recurrence, team: Limits, home: Level, level: Level, rows: Array, weights: float, wait: float
) -> tuple[Phase, ...]:
    """All steps: of `rows` rows each, reading `weights` bytes from a level, waiting so many seconds."""
    real = float(work.directions * work.rows.sum())
    arithmetic = rows * (work.flops / team.peak)
    moving = weights / level.bandwidth + work.directions * work.rows * (work.moved / home.bandwidth)
    seconds = float(np.maximum(np.maximum(arithmetic, moving), wait).sum())
    bound = bound_name(float(arithmetic.sum()), float(moving.sum()), wait * len(rows), level)
    moved = weights * len(rows) + real * work.moved
    products = Phase(work.name, seconds, bound, real * work.flops, moved)
    values = float(rows.sum()) * work.units
    activations = values * (work.sigmoids / team.sigmoid + work.tanhs / team.tanh)
    return products, Phase(f"activations of the {work.name}", activations, "activations")


def bound_name(arithmetic: float, moving: float, waiting: float, level: Level) -> str:
    names = {"multiply-adds": arithmetic, level.name: moving, "latency": waiting}
    return max(names, key=lambda name: names[name])
