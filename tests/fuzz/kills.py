"""Killed while it saves, at any moment: the file is the old one or the new one, and can be saved again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import rnnkern

SAVER = """
import sys, rnnkern
path = sys.argv[1]
nets = [rnnkern.LSTM(8, 200, seed=seed) for seed in (0, 1)]
print("ready", flush=True)
while True:
    for net in nets:
        net.save(path)
"""


def attempt(seed: int, number: int) -> None:
    random = np.random.default_rng((5, seed, number))
    wholes = [rnnkern.LSTM(8, 200, seed=which).weights["weight_ih_l0"] for which in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        rnnkern.LSTM(8, 200, seed=0).save(path)
        with subprocess.Popen([sys.executable, "-c", SAVER, path], stdout=subprocess.PIPE) as saver:
            assert saver.stdout is not None
            assert saver.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0, 0.05))
            os.kill(saver.pid, signal.SIGKILL)
        found = rnnkern.load(path).weights["weight_ih_l0"]
        assert any(np.array_equal(found, whole) for whole in wholes)
        rnnkern.LSTM(8, 200, seed=0).save(path)
        rnnkern.load(path)
