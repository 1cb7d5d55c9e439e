"""What calls took, and whether other programs had a hand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any

WAITED = 0.05
"""A turn is calm if its threads waited for a processor for at most this part of its time."""
BUSY = 0.2
"""Other programs are at work if they use more than this part of one processor."""
SPREAD = 2.0
"""The third quartile may be so many times the first one."""


@dataclass(frozen=True)
class Turn:
    samples: Sequence[float]
    """Seconds of each call, at least one."""
    waited: float = 0.0
    """Of the turn's time: how long its threads were ready to run and had no processor, all of them together."""


@dataclass(frozen=True)
class Timing:
    """Of one contender on one case; times in seconds."""

    median: float
    quartile_1: float
    quartile_3: float
    best: float
    calls: int
    disturbed: str = ""
    """Why these times don't count; empty if they do."""

    @classmethod
    def of(cls, turns: Sequence[Turn], others: float = 0.0) -> Timing:
        """Sum up the calm turns, or all of them if these are fewer than half.

        Then it is disturbed, unless other programs used next to nothing: some libraries have more threads than there
        are processors. `others` is what they used, in processors.
        """
        calm, disturbed = [turn for turn in turns if turn.waited <= WAITED], ""
        if 2 * len(calm) < len(turns):
            if others > BUSY:
                disturbed = f"waited for a processor in {len(turns) - len(calm)} of {len(turns)} turns"
            calm = list(turns)
        samples = [seconds for turn in calm for seconds in turn.samples]
        low, middle, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
        if not disturbed and high > SPREAD * low:
            disturbed = f"the third quartile is {high / low:.1f} times the first"
        return cls(middle, low, high, min(samples), len(samples), disturbed)

    def as_dict(self) -> dict[str, Any]:
        """Microseconds, the number of calls, and what disturbed them."""
        found = asdict(self)
        calls, disturbed = found.pop("calls"), found.pop("disturbed")
        times = {name: round(seconds * 1e6, 3) for name, seconds in found.items()}
        return {**times, "calls": calls, **({"disturbed": disturbed} if disturbed else {})}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Timing:
        times = {name: entry[name] / 1e6 for name in ("median", "quartile_1", "quartile_3", "best")}
        return cls(**times, calls=entry["calls"], disturbed=entry.get("disturbed", ""))
