"""How far back the gradient reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from ..layer import Layer
from ..spec import Array, State
from .sheet import open_axes


def gradient_flow(
    layers: Layer | Mapping[str, Layer],
    x: Array | Mapping[str, Array],
    state: Optional[State | Mapping[str, State]] = None,
    *,
    lengths: Any = None,
    dy: Optional[Array | Mapping[str, Array]] = None,
    ax: Any = None,
) -> Any:
    """Draw the norm of ∂L/∂h_t by step for one layer, or for several in one picture.

    The line is the median over the sequences, the band around it holds the middle half of them. The numbers are the
    norms of what `Layer.trace_gradients` returns, taken in float64.

    Parameters
    ----------
    layers : Layer, or dict of them by name
    x, state, lengths, dy
        As for `Layer.trace_gradients`; x, state and dy may be dicts by the same names.
    ax : matplotlib Axes, optional
        Where to draw; by default those of a new figure.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for `Layer.trace_gradients`.
    """
    named = dict(layers) if isinstance(layers, Mapping) else {type(layers).__name__: layers}
    if not named:
        raise ValueError("layers: expected at least one, got none")
    for name, layer in named.items():
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: expected a layer of rnnkern, got {type(layer).__name__} for {name}")
    norms: dict[str, Array] = {}
    for name, layer in named.items():
        own_x, own_state, own_dy = (own(*given, name) for given in (("x", x), ("state", state), ("dy", dy)))
        found = layer.trace_gradients(own_x, own_state, lengths=lengths, dy=own_dy)
        for key, gradients in found.items():
            by_sequence = gradients if gradients.ndim == 3 else gradients[:, None]
            if gradients.ndim == 3 and layer.batch_first:
                by_sequence = by_sequence.swapaxes(0, 1)
            norms[name + key[1:].replace("_", " ")] = np.linalg.norm(by_sequence.astype(np.float64), axis=-1)

    ax = open_axes(ax, 7, 4)
    for name, values in norms.items():
        draw_norms(ax, name, values)
    ax.set_yscale("log", nonpositive="mask")
    ax.set_xlabel("step t")
    ax.set_ylabel("‖∂L/∂h$_t$‖")
    ax.grid(color="#e8e8e8", lw=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)
    return ax.figure


def own(what: str, values: Any, name: str) -> Any:
    """What is given for the layer of this name, or for all."""
    if not isinstance(values, Mapping):
        return values
    if name not in values:
        raise ValueError(f"{what}: expected an entry for {name}, got {', '.join(map(str, values))}")
    return values[name]


def draw_norms(ax: Any, name: str, norms: Array) -> None:
    """One line with its band, of norms (T, B); what lies in the padding, or where nothing arrives, is left out."""
    shown = np.where(norms > 0, norms, np.nan)
    low, middle, high = quartiles = np.full((3, len(norms)), np.nan)
    for t in np.flatnonzero((norms > 0).any(axis=1)):
        quartiles[:, t] = np.nanpercentile(shown[t], [25, 50, 75])
    (line,) = ax.plot(middle, lw=1.8, label=name)
    if norms.shape[1] > 1:
        ax.fill_between(np.arange(len(norms)), low, high, color=line.get_color(), alpha=0.18, lw=0)
