"""What was measured on a case, and who won."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import geometric_mean, median, quantiles
from typing import Any

from .case import Case, Shape
from .contenders import OWN, Reference
from .limit import Limit, Phase
from .peers import PEERS

OURS = tuple(kind.name for kind in (*OWN, *PEERS) if kind is not Reference and not kind.peer)
RIVALS = tuple(kind.name for kind in PEERS if kind.peer)


@dataclass(frozen=True)
class Outcome:
    case: Case
    samples: Mapping[str, Sequence[float]]
    """By contender: seconds of each call."""
    errors: Mapping[str, str]
    """By contender: why it was not timed."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """By contender: what it doesn't do."""
    limit: Limit | None = None
    """Where the machine's limits were measured."""

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
        own, other = self.own_seconds, name and self.seconds(name)
        return other / own if own and other else None

    @property
    def own_seconds(self) -> float | None:
        """The best of our ways; None if none was timed."""
        own = self.best(OURS)
        return None if own is None else self.seconds(own)

    @property
    def fraction(self) -> float | None:
        """Of the limit: its time / the best of ours."""
        own = self.own_seconds
        return self.limit.seconds / own if self.limit and own else None

    @property
    def speedup_at_limit(self) -> float | None:
        """How many times faster than the best rival the limit is."""
        rival = self.rival and self.seconds(self.rival)
        return rival / self.limit.seconds if self.limit and rival else None

    def as_dict(self) -> dict[str, Any]:
        limit = {}
        if self.limit:
            phases = [asdict(phase) for phase in self.limit.phases]
            limit["limit"] = {
                "microseconds": self.limit.seconds * 1e6,
                "bound": self.limit.bound,
                "fraction": self.fraction,
                "speedup": self.speedup_at_limit,
                "phases": phases,
            }
        return {
            "cell": self.case.cell,
            **self.case.shape._asdict(),
            "num_layers": self.case.num_layers,
            "bidirectional": self.case.bidirectional,
            "ragged": self.case.ragged,
            "dtype": self.case.dtype,
            "microseconds": {name: microseconds(values) for name, values in self.samples.items()},
            "rival": self.rival,
            "speedup": self.speedup(self.rival),
            "errors": dict(self.errors),
            "lacks": dict(self.lacks),
            **limit,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Outcome:
        """Return what `as_dict` was made of, with each contender's median for all of its samples."""
        options = {name: entry[name] for name in ("num_layers", "bidirectional", "ragged", "dtype")}
        phases = [Phase(**phase) for phase in entry.get("limit", {}).get("phases", [])]
        return cls(
            Case(entry["cell"], Shape(*(entry[name] for name in Shape._fields)), **options),
            {name: (times["median"] / 1e6,) for name, times in entry["microseconds"].items()},
            entry["errors"],
            entry["lacks"],
            Limit(tuple(phases)) if phases else None,
        )


def headline(settings: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Say what was measured, and where; both as in the record that `bench` writes."""
    what = "Training (forward + all gradients)" if settings["train"] else "Inference"
    threads = settings["threads"]
    return f"{what}, {settings['dtype']}, {threads} thread{'s' * (threads > 1)}, {machine['processor']}"


def microseconds(samples: Sequence[float]) -> dict[str, float]:
    low, middle, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
    scaled = {"median": middle * 1e6, "quartile_1": low * 1e6, "quartile_3": high * 1e6, "best": min(samples) * 1e6}
    return {**{name: round(value, 3) for name, value in scaled.items()}, "calls": len(samples)}


def means(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Geometric means of the speed-up, by cell and for all.

    Against the best rival, `best`, and what it would be at the limit, `limit`; and against each contender.
    """
    cells = list(dict.fromkeys(outcome.case.cell for outcome in outcomes))
    groups = {cell: [outcome for outcome in outcomes if outcome.case.cell == cell] for cell in cells}
    if len(cells) > 1:
        groups["all"] = list(outcomes)
    return {group: _means(members) for group, members in groups.items()}


def _means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    ratios = {"best": [outcome.speedup(outcome.rival) for outcome in outcomes]}
    ratios |= {name: [outcome.speedup(name) for outcome in outcomes] for name in (*RIVALS, Reference.name)}
    ratios["limit"] = [outcome.speedup_at_limit for outcome in outcomes]
    known = {name: [ratio for ratio in values if ratio is not None] for name, values in ratios.items()}
    return {name: geometric_mean(values) for name, values in known.items() if values}
