"""Our own ways to run a layer, in the form that `bench` times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import rnnkern

from ..spec import Array
from .case import Problem, Results


class Contender(ABC):
    """A layer ready to run a problem. Only `infer` and `train` are timed."""

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    peer: ClassVar[bool] = False
    turns: ClassVar[int | None] = None
    """At most so many turns of timing."""

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
        kind = getattr(rnnkern, problem.case.cell.upper())
        self.layer = kind(problem.case.shape.I, problem.case.shape.H, backend=self.backend)
        self.layer.load_state_dict(problem.weights)
        self.state = problem.state if problem.case.cell == "lstm" else problem.state[0]

    def infer(self) -> Any:
        return self.layer(self.problem.x)

    def inferred(self, result: Any) -> Results:
        y, state = result
        return self.problem.results(y, as_tuple(state))

    def train(self) -> Any:
        y, state, tape = self.layer.forward(self.problem.x, self.state)
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
