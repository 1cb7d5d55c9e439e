"""Our own ways to run a layer, in the form that `bench` times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import rnnkern

from ..spec import Array
from .case import Case, Problem, Results


class Contender(ABC):
    """A layer ready to run a problem. Only `infer` and `train` are timed."""

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    peer: ClassVar[bool] = False
    turns: ClassVar[int | None] = None
    """At most so many turns of timing."""

    @classmethod
    def lacks(cls, case: Case) -> str | None:
        """Name what a case asks for and this contender doesn't do, or None."""
        return None

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def infer(self) -> Any:
        """Return y and the last state, in the contender's own kind of array."""

    def train(self) -> Any:
        """Forward, then the gradients by x, initial states and all weights, for dy."""
        raise NotImplementedError

    @abstractmethod
    def inferred(self, result: Any) -> Results:
        """Name what `infer` returned, in NumPy."""

    def trained(self, result: Any) -> Results:
        """Name what `train` returned, in NumPy."""
        raise NotImplementedError


def as_tuple(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


class Live(Contender):
    """The native layer, whose weights may change between calls."""

    name = "rnnkern"
    trains = True
    backend: ClassVar[str] = "native"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        case = problem.case
        self.layer = getattr(rnnkern, case.cell.upper())(
            case.shape.I,
            case.shape.H,
            case.num_layers,
            bidirectional=case.bidirectional,
            dtype=case.dtype,
            backend=self.backend,
        )
        self.layer.load_state_dict(problem.weights)
        self.state = problem.state if case.spec.has_cell_state else problem.state[0]
        self.options = {} if case.lengths is None else {"lengths": case.lengths}

    def infer(self) -> Any:
        return self.layer(self.problem.x, **self.options)

    def inferred(self, result: Any) -> Results:
        y, state = result
        return self.problem.results(y, as_tuple(state))

    def train(self) -> Any:
        y, state, tape = self.layer.forward(self.problem.x, self.state, **self.options)
        return y, state, self.layer.backward(tape, self.problem.dy)

    def trained(self, result: Any) -> Results:
        y, state, grads = result
        gradients = self.problem.gradients(grads.x, as_tuple(grads.state), grads.weights)
        return {**self.problem.results(y, as_tuple(state)), **gradients}


class Frozen(Live):
    """A snapshot with packed weights."""

    name = "frozen"
    trains = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.layer = self.layer.freeze()


class Reference(Live):
    """Plain NumPy: a yardstick, not a rival, so a few turns do."""

    name = "NumPy"
    backend = "reference"
    turns = 3


OWN: tuple[type[Contender], ...] = (Live, Frozen, Reference)
