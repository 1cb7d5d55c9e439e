"""An interpolated n-gram model of symbols, such as characters or words, the yardstick of language_model.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import log2
from typing import Any

Text = Any
"""A string, or a tuple of symbols."""


@dataclass
class Context:
    """How often a context was seen, and the share of that taken off for the next lower order."""

    total: int = 0
    discount: float = 0.0


class KneserNey:
    """Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, section 3), below the unigrams uniform.

    Parameters
    ----------
    text
        What to count: a string, or a tuple of any symbols.
    order
        Length of the longest n-gram.
    alphabet_size
        Number of symbols that share what the unigrams leave over.
    """

    def __init__(self, text: Text, order: int, alphabet_size: int) -> None:
        self.order = order
        self.alphabet_size = alphabet_size
        seen = [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, order + 1)]
        # Below the highest order an n-gram counts as often as different symbols were seen before it.
        self.counts = [Counter(gram[1:] for gram in longer) for longer in seen[1:]] + seen[-1:]
        self.discounts = [discounts(counts) for counts in self.counts]
        self.contexts = [contexts(*pair) for pair in zip(self.counts, self.discounts)]

    def probability(self, symbol: Text, before: Text) -> float:
        """The probability of a symbol, as a text of that alone, after the text `before`."""
        probability = 1 / self.alphabet_size
        for n in range(min(self.order, len(before) + 1)):
            context = before[len(before) - n :]
            if context not in self.contexts[n]:
                break
            known = self.contexts[n][context]
            count = self.counts[n][context + symbol]
            rest = known.discount * probability
            probability = (count - self.discounts[n][min(count, 3)] + rest) / known.total
        return probability

    def bits(self, text: Text) -> float:
        """Cross-entropy of all symbols of a text but the first."""
        bits = (
            -log2(self.probability(text[i : i + 1], text[max(0, i - self.order + 1) : i])) for i in range(1, len(text))
        )
        return sum(bits) / (len(text) - 1)


FALLBACK = (0.0, 0.5, 1.0, 1.5)
"""KenLM's discounts where there are too few different counts to tell."""


def discounts(counts: Counter[Text]) -> tuple[float, ...]:
    """What to take off n-grams that were counted 0, 1, 2, and 3 or more times."""
    times = Counter(counts.values())
    if not all(times[k] for k in (1, 2, 3)):
        return FALLBACK
    share = times[1] / (times[1] + 2 * times[2])
    found = (0.0, *(k - (k + 1) * share * times[k + 1] / times[k] for k in (1, 2, 3)))
    return found if all(0 < found[k] <= k for k in (1, 2, 3)) else FALLBACK


def contexts(counts: Counter[Text], discounts: tuple[float, ...]) -> dict[Text, Context]:
    found: defaultdict[Text, Context] = defaultdict(Context)
    for gram, count in counts.items():
        context = found[gram[:-1]]
        context.total += count
        context.discount += discounts[min(count, 3)]
    return dict(found)
