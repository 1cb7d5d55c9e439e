"""Draws what the cells of docs/gallery.md do inside while pulses come in: python docs/pictures/cells.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import rnnkern

T, UNITS = 40, 8
PULSES = (3, 12, 13, 14, 28)
LAYERS = {
    "elman": rnnkern.RNN(1, UNITS, seed=0),
    "bidirectional": rnnkern.RNN(1, UNITS, bidirectional=True, seed=0),
    "deep": rnnkern.GRU(1, UNITS, num_layers=2, seed=0),
    "lstm": rnnkern.LSTM(1, UNITS, seed=0),
    "peephole": rnnkern.LSTM(1, UNITS, peephole=True, seed=0),
    "gru": rnnkern.GRU(1, UNITS, seed=0),
    "coupled": rnnkern.LSTM(1, UNITS, coupled="i", seed=0),
    "projection": rnnkern.LSTM(1, UNITS, proj_size=3, seed=0),
}


def main() -> None:
    x = np.zeros((T, 1), np.float32)
    x[PULSES, 0] = 1
    labels = "".join("|" if pulse else "." for pulse in x[:, 0])
    here = Path(__file__).parent
    for name, layer in LAYERS.items():
        for weight in layer.weights.values():
            weight *= 3  # as drawn, they are small: little would be seen
        rnnkern.plot.gates(layer.trace(x), labels).savefig(here / f"{name}.png", dpi=80)

    lengths = np.sort(np.random.default_rng(0).integers(10, 41, 24))[::-1]
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.arange(40) < lengths[:, None], cmap="Blues", aspect="auto", interpolation="nearest", vmax=1.4)
    axes.set(xlabel="step", ylabel="sequence, by length", title=f"{lengths.sum()} of {24 * 40} steps are computed")
    figure.savefig(here / "ragged.png", dpi=80)


if __name__ == "__main__":
    main()
