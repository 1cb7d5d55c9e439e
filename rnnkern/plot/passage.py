"""Text that is coloured by a value for each character."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .sheet import SIGNED, open_axes

ASPECT = 2.0
"""Height of a character's cell by its width."""
CELL = 0.105
"""Its width in inches."""
LOWEST = 0.55
"""The least height of a picture: the scale at the right has three numbers."""
PALE = 1.5
"""The darkest colours are left out: text stands on them."""


def text(
    characters: str, values: npt.ArrayLike, *, limit: Optional[float] = None, columns: int = 80, ax: Any = None
) -> Any:
    """Draw a text, each character on the colour of its value, as Karpathy, Johnson and Fei-Fei 2015 show a unit.

    The scale of the colours stands at the right.

    Parameters
    ----------
    characters : str
        N of them; a line break is shown, and breaks the line.
    values : array (N,)
        As a state of one unit after reading each character.
    limit : float, optional
        The magnitude that has the strongest colour; by default the largest there is.
    columns : int
        Longer lines go on in the next one.
    ax : matplotlib Axes, optional
        Where to draw; by default those of a new figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    TypeError, ValueError
        For no text, values of another number, or sizes that are not positive.
    """
    if not isinstance(characters, str) or not characters:
        raise TypeError("characters: expected a string with at least one character")
    numbers = np.asarray(values, float)
    if numbers.shape != (len(characters),):
        raise ValueError(f"values: expected one for each of the {len(characters)} characters, got {numbers.shape}")
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    most = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0)) or 1.0 if limit is None else limit
    if not most > 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")

    places = place(characters, columns)
    rows = places[-1][0] + 1
    grid = np.full((rows, columns), np.nan)
    for (row, column), value in zip(places, numbers):
        grid[row, column] = value
    widest = 1 + max(column for _, column in places)
    ax = open_axes(ax, CELL * widest + 0.7, max(LOWEST, CELL * ASPECT * rows + 0.2))
    colours = SIGNED.with_extremes(bad="white")
    image = ax.imshow(
        grid[:, :widest], cmap=colours, vmin=-PALE * most, vmax=PALE * most, aspect=ASPECT, interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, pad=0.01, fraction=0.05, aspect=12, ticks=[-most, 0, most], format="{x:.2g}")
    bar.ax.set_ylim(-most, most)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    style = {"ha": "center", "va": "center_baseline", "family": "monospace", "fontsize": 8}
    for (row, column), character in zip(places, characters):
        if character == "\n":
            ax.text(column, row, "↵", color="#999999", **style)
        elif not character.isspace():
            ax.text(column, row, character, parse_math=False, **style)
    ax.set_axis_off()
    return ax.figure


def place(characters: str, columns: int) -> list[tuple[int, int]]:
    """Row and column of each character."""
    places, row, column = [], 0, 0
    for character in characters:
        if column == columns:
            row, column = row + 1, 0
        places.append((row, column))
        column += 1
        if character == "\n":
            row, column = row + 1, 0
    return places
