"""What was measured on a case, and who won."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import geometric_mean
from typing import Any

from .case import Case, Shape
from .contenders import OWN, Reference
from .limit import Limit, Phase
from .peers import PEERS
from .timing import Timing

OURS = tuple(kind.name for kind in (*OWN, *PEERS) if kind is not Reference and not kind.peer)
RIVALS = tuple(kind.name for kind in PEERS if kind.peer)


@dataclass(frozen=True)
class Outcome:
    case: Case
    timings: Mapping[str, Timing]
    """By contender."""
    errors: Mapping[str, str]
    """By contender: why it was not timed."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """By contender: what it doesn't do."""
    limit: Limit | None = None
    """Where the machine's limits were measured."""

    def seconds(self, name: str) -> float | None:
        """Median; None if not timed."""
        return self.timings[name].median if name in self.timings else None

    def best(self, names: Iterable[str]) -> str | None:
        """Return the fastest of some contenders; None if none was timed."""
        timed = {name: seconds for name in names if (seconds := self.seconds(name)) is not None}
        return min(timed, key=lambda name: timed[name]) if timed else None

    def sure(self, names: Iterable[str]) -> str | None:
        """Return the fastest; None also if one that was disturbed might be it, going by its best call."""
        names = tuple(names)
        fastest = self.best(names)
        if fastest is None:
            return None
        bar = self.timings[fastest].median
        timed = (self.timings[name] for name in names if name in self.timings)
        return None if any(timing.disturbed and timing.best <= bar for timing in timed) else fastest

    @property
    def rival(self) -> str | None:
        """The best peer."""
        return self.best(RIVALS)

    @property
    def left_out(self) -> bool:
        """Whether there was no time for it."""
        return not self.timings and not self.errors

    @property
    def disturbed(self) -> bool:
        """Whether there is no speed-up for the only reason that other programs were at work."""
        return self.best(OURS) is not None and self.rival is not None and self.speedup is None

    @property
    def speedup(self) -> float | None:
        """How many times faster the best of our ways is than the best peer; None if either is not known."""
        return self.speedup_over(self.sure(RIVALS))

    def speedup_over(self, name: str | None) -> float | None:
        """How many times faster the best of our ways is than a contender; None if either is not known."""
        own = self.own_seconds
        other = self.seconds(name) if name and self.sure([name]) else None
        return other / own if own and other else None

    @property
    def own_seconds(self) -> float | None:
        """The best of our ways; None if it is not known."""
        own = self.sure(OURS)
        return None if own is None else self.seconds(own)

    @property
    def fraction(self) -> float | None:
        """Of the limit: its time / the best of ours."""
        own = self.own_seconds
        return self.limit.seconds / own if self.limit and own else None

    @property
    def speedup_at_limit(self) -> float | None:
        """How many times faster than the best peer the limit is."""
        name = self.sure(RIVALS)
        rival = name and self.seconds(name)
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
            "microseconds": {name: timing.as_dict() for name, timing in self.timings.items()},
            "rival": self.rival,
            "speedup": self.speedup,
            "disturbed": self.disturbed,
            "left_out": self.left_out,
            "errors": dict(self.errors),
            "lacks": dict(self.lacks),
            **limit,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Outcome:
        """Return what `as_dict` was made of."""
        options = {name: entry[name] for name in ("num_layers", "bidirectional", "ragged", "dtype")}
        phases = [Phase(**phase) for phase in entry.get("limit", {}).get("phases", [])]
        return cls(
            Case(entry["cell"], Shape(*(entry[name] for name in Shape._fields)), **options),
            {name: Timing.from_dict(times) for name, times in entry["microseconds"].items()},
            entry["errors"],
            entry["lacks"],
            Limit(tuple(phases)) if phases else None,
        )


def headline(settings: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Say what was measured, and where; both as in the record that `bench` writes."""
    what = "Training (forward + all gradients)" if settings["train"] else "Inference"
    threads = settings["threads"]
    return f"{what}, {settings['dtype']}, {threads} thread{'s' * (threads > 1)}, {machine['processor']}"


def times(value: float) -> str:
    """A ratio in two decimals, a large one in none."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def means(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Geometric means of the speed-up, by cell and for all, of the rows that were not disturbed.

    Against the best peer, `best`, and what it would be at the limit, `limit`; and against each contender. There is none
    where more than half of the rows were disturbed, and no group without a peer.
    """
    cells = list(dict.fromkeys(outcome.case.cell for outcome in outcomes))
    groups = {cell: [outcome for outcome in outcomes if outcome.case.cell == cell] for cell in cells}
    if len(cells) > 1:
        groups["all"] = list(outcomes)
    return {group: _means(members) for group, members in groups.items()}


def _means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    compared = [outcome for outcome in outcomes if outcome.rival]
    ratios = {"best": [(outcome.speedup, outcome.disturbed) for outcome in compared]}
    for name in (*RIVALS, Reference.name):
        ratios[name] = [(outcome.speedup_over(name), name in outcome.timings) for outcome in compared]
    ratios["limit"] = [(outcome.speedup_at_limit, outcome.limit is not None) for outcome in compared]
    found = {}
    for name, pairs in ratios.items():
        known = [ratio for ratio, _ in pairs if ratio is not None]
        lost = sum(ratio is None and wanted for ratio, wanted in pairs)
        if known and lost <= len(known):
            found[name] = geometric_mean(known)
    return found
