"""Where pictures are drawn, and their colours."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

CAPTION = 10
"""Its size in points; a letter is about half as wide."""
COLOURS = ["#2274c4", "#9cc6ec", "#ffffff", "#f5b796", "#d9480f"]
SIGNED = LinearSegmentedColormap.from_list("signed", COLOURS).with_extremes(bad="#bbbbbb")
"""Blue below zero, white there, orange above; grey where there is no number."""


def open_figure(figure: Any, width: float, height: float) -> Any:
    """The user's figure, laid out if it is not yet, or a new one of this size in inches."""
    if figure is None:
        return Figure(figsize=(width, height), layout="constrained")
    if not isinstance(figure, FigureBase):
        raise TypeError(f"figure: expected a matplotlib Figure or SubFigure, got {type(figure).__name__}")
    if isinstance(figure, Figure) and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return figure


def open_axes(ax: Any, width: float, height: float) -> Any:
    """The user's axes, or those of a new figure of this size in inches."""
    if ax is None:
        return open_figure(None, width, height).subplots()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib Axes, got {type(ax).__name__}")
    return ax


def caption(figure: Any, *lines: str) -> None:
    """Grey lines above everything else, broken where the figure ends."""
    width = int(figure.bbox.width / figure.dpi * 72 / (0.55 * CAPTION))
    figure.suptitle(
        "\n".join(fill(line, width) for line in lines), x=0.01, ha="left", fontsize=CAPTION, color="#555555"
    )
