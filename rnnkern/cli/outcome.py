"""What was measured on a case, and who won."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median, quantiles
from typing import Any

from .case import Case
from .contenders import OWN, Reference
from .peers import PEERS

OURS = tuple(kind.name for kind in OWN if kind is not Reference)
RIVALS = tuple(kind.name for kind in PEERS)


@dataclass(frozen=True)
class Outcome:
    case: Case
    samples: Mapping[str, Sequence[float]]
    """By contender: seconds of each call."""
    errors: Mapping[str, str]
    """By contender: why it was not timed."""

    def seconds(self, name: str) -> float | None:
        """Median; None if not timed."""
        return median(self.samples[name]) if name in self.samples else None

    def best(self, names: Iterable[str]) -> str | None:
        """Return the fastest of some contenders; None if none was timed."""
        timed = {name: seconds for name in names if (seconds := self.seconds(name)) is not None}
        return min(timed, key=lambda name: timed[name]) if timed else None

    @property
    def rival(self) -> str | None:
        """The best peer, or the reference where no peer was timed."""
        return self.best(RIVALS) or self.best([Reference.name])

    def speedup(self, name: str | None) -> float | None:
        """How many times faster the best of our ways is than a contender; None if either was not timed."""
        own = self.best(OURS)
        if own is None or name is None or name not in self.samples:
            return None
        return median(self.samples[name]) / median(self.samples[own])

    def as_dict(self) -> dict[str, Any]:
        return {
            "cell": self.case.cell,
            **self.case.shape._asdict(),
            "microseconds": {name: microseconds(values) for name, values in self.samples.items()},
            "rival": self.rival,
            "speedup": self.speedup(self.rival),
            "errors": dict(self.errors),
        }


def microseconds(samples: Sequence[float]) -> dict[str, float]:
    low, middle, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    scaled = {"median": middle * 1e6, "quartile_1": low * 1e6, "quartile_3": high * 1e6, "best": min(samples) * 1e6}
    return {**{name: round(value, 3) for name, value in scaled.items()}, "calls": len(samples)}


def means(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Geometric means of the speed-up, by cell and for all, against the best rival and against each contender."""
    cells = list(dict.fromkeys(outcome.case.cell for outcome in outcomes))
    groups = {cell: [outcome for outcome in outcomes if outcome.case.cell == cell] for cell in cells}
    if len(cells) > 1:
        groups["all"] = list(outcomes)
    return {group: _means(members) for group, members in groups.items()}


def _means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    ratios = {"best": [outcome.speedup(outcome.rival) for outcome in outcomes]}
    ratios |= {name: [outcome.speedup(name) for outcome in outcomes] for name in (*RIVALS, Reference.name)}
    known = {name: [ratio for ratio in values if ratio is not None] for name, values in ratios.items()}
    return {name: geometric_mean(values) for name, values in known.items() if values}
