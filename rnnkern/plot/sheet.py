"""Where pictures are drawn, and their colours."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, FigureBase

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
