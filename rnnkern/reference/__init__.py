"""The truth that the native kernels are tested against: every cell in plain NumPy, one step at a time.

Start at `network.py`, which knows layers, directions and lengths but no cells; each cell has a file of its own.
"""

from __future__ import annotations

from .activations import ACTIVATIONS
from .cross_entropy import linear_cross_entropy
from .network import CELLS, Tape, backward, forward

__all__ = ["ACTIVATIONS", "CELLS", "Tape", "backward", "forward", "linear_cross_entropy"]
