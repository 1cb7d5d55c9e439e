"""Gates and states over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from ..spec import Array
from .sheet import SIGNED, open_figure

TITLES = {
    "i": "input gate i",
    "f": "forget gate f",
    "g": "candidate g",
    "o": "output gate o",
    "c": "cell state c",
    "r": "reset gate r",
    "z": "update gate z",
    "n": "candidate n",
    "h": "hidden state h",
    "y": "output y",
}
SIGMOIDS = frozenset("ifozr")
MOST_LABELS = 160
"""More than so many steps have numbers instead."""
MOST_NUMBERS = 32
"""So many chosen units have their numbers beside them."""
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def gates(
    trace: Mapping[str, Array],
    labels: Optional[Sequence[str]] = None,
    *,
    sequence: int = 0,
    batch_first: bool = False,
    units: Optional[Sequence[int]] = None,
    figure: Any = None,
) -> Any:
    """Draw what `Layer.trace` returns: a heat map for every gate and state, steps to the right, units downwards.

    Gates between 0 and 1 go from dark to bright; what has a sign is blue below zero, white at zero and orange above,
    to the largest magnitude in that panel. Each layer and direction has a column.

    Parameters
    ----------
    trace : dict of arrays (T, B, H), (B, T, H) with `batch_first`, or (T, H)
        From `Layer.trace`.
    labels : sequence of T strings, or one string of T characters, optional
        The inputs, written under the steps as long as there is room.
    sequence : int
        Which one of the batch.
    batch_first : bool
        As of the layer.
    units : sequence of int, optional
        Which ones to draw, in this order; by default all.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

    Returns
    -------
    matplotlib Figure, or `figure`

    Raises
    ------
    TypeError, ValueError
        For what `trace` would not return, labels of another number, units or a sequence that there are not.
    """
    maps = {name: one_sequence(name, array, sequence, batch_first) for name, array in trace.items()}
    if not maps:
        raise ValueError("trace: expected what Layer.trace returns, got an empty mapping")
    T = next(iter(maps.values())).shape[0]
    if any(array.shape[0] != T for array in maps.values()) or T == 0:
        raise ValueError(f"trace: expected arrays of one number of steps, got {[len(a) for a in maps.values()]}")
    if labels is not None and len(labels) != T:
        raise ValueError(f"labels: expected one for each of the {T} steps, got {len(labels)}")
    if units is not None:
        maps = {name: array[:, check_units(name, units, array.shape[1])] for name, array in maps.items()}

    kinds = list(dict.fromkeys(name.partition("_")[0] for name in maps))
    suffixes = list(dict.fromkeys(name.removeprefix(name.partition("_")[0]) for name in maps))
    rows = max(array.shape[1] for array in maps.values())
    each = max(0.9, min(3.5, 0.11 * rows) if numbered(units) else min(2.0, 0.07 * rows))
    width = min(24.0, max(6.0, 1.6 + 0.13 * T)) if len(suffixes) == 1 else min(10.0, max(4.0, 1 + 0.07 * T))
    figure = open_figure(figure, width * len(suffixes), 0.5 + (each + 0.3) * len(kinds))
    panels = figure.subplots(len(kinds), len(suffixes), sharex=True, squeeze=False)
    for row, kind in zip(panels, kinds):
        for panel, suffix in zip(row, suffixes):
            if kind + suffix in maps:
                heat_map(panel, kind, maps[kind + suffix], units, each)
                panel.set_title(TITLES.get(kind, kind) + suffix.replace("_", " "), loc="left", fontsize=10)
            else:
                panel.set_axis_off()
    for panel in panels[-1]:
        label_steps(panel, labels, T)
    return figure


def one_sequence(name: str, array: Any, sequence: int, batch_first: bool) -> Array:
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise TypeError(f"trace[{name!r}]: expected an array (T, B, H) or (T, H), got {np.shape(array)}")
    if array.ndim == 2:
        return array
    batch = array.shape[0 if batch_first else 1]
    if not 0 <= sequence < batch:
        raise ValueError(f"sequence: expected one of the {batch}, got {sequence}")
    return array[sequence] if batch_first else array[:, sequence]


def check_units(name: str, units: Sequence[int], size: int) -> npt.NDArray[np.intp]:
    chosen = np.asarray(units)
    if (
        chosen.ndim != 1
        or chosen.size == 0
        or chosen.dtype.kind not in "iu"
        or chosen.min() < 0
        or chosen.max() >= size
    ):
        raise ValueError(f"units: expected numbers in 0..{size - 1}, as {name} has them, got {units!r}")
    return chosen.astype(np.intp)


def heat_map(panel: Any, kind: str, values: Array, units: Optional[Sequence[int]], height: float) -> None:
    finite = values[np.isfinite(values)]
    limit = float(np.abs(finite).max(initial=0)) or 1.0
    if kind in SIGMOIDS and finite.min(initial=0) >= 0 and finite.max(initial=0) <= 1:
        style: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    else:
        style = {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    image = panel.imshow(values.T, aspect="auto", interpolation="nearest", **style)
    bar = panel.figure.colorbar(image, ax=panel, pad=0.01, aspect=height / 0.13)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    panel.set_ylabel("unit", fontsize=9)
    panel.tick_params(axis="y", labelsize=8)
    panel.tick_params(axis="x", length=0)
    if units is not None and numbered(units):
        panel.set_yticks(range(len(units)), [str(unit) for unit in units], fontsize=7)
    for spine in panel.spines.values():
        spine.set_visible(False)


def numbered(units: Optional[Sequence[int]]) -> bool:
    """Whether there is room for the number of each unit."""
    return units is not None and len(units) <= MOST_NUMBERS


def label_steps(panel: Any, labels: Optional[Sequence[str]], T: int) -> None:
    if labels is None or T > MOST_LABELS:
        panel.set_xlabel("step", fontsize=9)
        panel.tick_params(axis="x", labelsize=8, length=2)
        return
    shown = [label.translate(VISIBLE) for label in labels]
    long = max(map(len, shown)) > 2
    style: dict[str, Any] = {"rotation": 90} if long else {"family": "monospace"}
    panel.set_xticks(range(T), shown, fontsize=9, **style)
