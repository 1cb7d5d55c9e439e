"""The interpreter around a call: it ends meanwhile, a signal arrives, or it is not the main one.

What could hang or end a process runs in one of its own with a time limit.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap

import pytest


def in_process(code, timeout=60, **formats):
    """What a new Python prints that runs the code; fails when it fails or takes too long."""
    program = textwrap.dedent(code).format(**formats)
    done = subprocess.run([sys.executable, "-c", program], timeout=timeout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


TORCH = "import torch, rnnkern.torch\nmodule, tensor = rnnkern.torch.LSTM(64, 128), torch.from_numpy(x)"
# What takes a while: made by `prepare`, run by `call`.
CALLS = {
    "call": ("", "layer(x)"),
    "training": ("", "y, _, tape = layer.forward(x); layer.backward(tape, y)"),
    "recompute": ("", "y, _, tape = layer.forward(x, recompute=True); layer.backward(tape, y)"),
    "trace": ("", "layer.trace(x)"),
    "ragged": ("lengths = np.linspace(T // 2, T, 16).astype(int)", "layer(x, lengths=lengths)"),
    "stream": ("stream = layer.freeze().stream(16)", "stream.run(x)"),
    "freeze": ("large = rnnkern.LSTM(1024, 1024)", "large.freeze()"),
    "linear_cross_entropy": (
        "h, weight, targets = np.ones((16 * T, 128), np.float32), np.ones((1000, 128), np.float32), [0] * 16 * T",
        "rnnkern.linear_cross_entropy(h, weight, None, np.array(targets), gradient=True)",
    ),
    "torch": (TORCH, "with torch.no_grad(): module(tensor)"),
    "torch_training": (TORCH, "module(tensor)[0].sum().backward()"),
}

SETUP = """
import os, signal, sys, threading, time
import numpy as np
import rnnkern

T = {steps}
layer = rnnkern.LSTM(64, 128, seed=0)
x = np.random.default_rng(0).standard_normal((T, 16, 64), dtype=np.float32)
{prepare}
def call():
    {call}
"""


def setup(name, steps):
    if name.startswith("torch") and importlib.util.find_spec("torch") is None:
        pytest.skip("could not import 'torch'")
    prepare, call = CALLS[name]
    return SETUP.format(steps=steps, prepare=prepare, call=call)


# PyTorch's own frames may end the process, too: one thread, that is in a long call of ours when Python ends.
@pytest.mark.parametrize("name", sorted(set(CALLS) - {"torch_training"}))
def test_python_ends_while_daemon_threads_compute(name):
    """They want the GIL back when there is none to be had any more."""
    code = """
    def again():
        while True:
            call()

    call()
    for child in range(4):
        if os.fork() == 0:
            for _ in range({count}):
                threading.Thread(target=again, daemon=True).start()
            time.sleep(0.02)
            sys.exit()
        assert os.wait()[1] == 0
    """
    steps, count = (3000, 1) if name == "torch" else (500, 2)
    in_process(setup(name, steps) + textwrap.dedent(code).format(count=count))


SUBINTERPRETER = """
import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import {module}
except ImportError as error:
    print(error)
''')
"""


@pytest.mark.skipif(importlib.util.find_spec("_xxsubinterpreters") is None, reason="no such module in this Python")
@pytest.mark.parametrize("before", ["", "import rnnkern"])
def test_importing_in_a_subinterpreter_is_an_error(before):
    message = in_process(before + SUBINTERPRETER + "import rnnkern", module="rnnkern._core")
    assert "subinterpreter" in message
