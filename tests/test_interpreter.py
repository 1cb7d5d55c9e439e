"""The interpreter around a call: it ends meanwhile, a signal arrives, or it is not the main one.

What could hang or end a process runs in one of its own with a time limit.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def in_process(code, timeout=60, isa=None, **formats):
    """What a new Python prints that runs the code; fails when it fails or takes too long."""
    program = textwrap.dedent(code).format(**formats)
    env = os.environ | ({"RNNKERN_ISA": isa} if isa else {})
    done = subprocess.run([sys.executable, "-c", program], env=env, timeout=timeout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# What takes a while: made by `prepare`, run by `call`.
CALLS = {
    "call": ("", "layer(x)"),
    "training": ("", "y, _, tape = layer.forward(x); layer.backward(tape, y)"),
    "trace": ("", "layer.trace(x)"),
    "stream": ("stream = layer.freeze().stream(16)", "stream.run(x)"),
    "freeze": ("large = rnnkern.LSTM(1024, 1024)", "large.freeze()"),
    "linear_cross_entropy": (
        "h, weight, targets = np.ones((9000, 128), np.float32), np.ones((1000, 128), np.float32), np.zeros(9000, int)",
        "rnnkern.linear_cross_entropy(h, weight, None, targets, gradient=True)",
    ),
    "torch": (
        "import torch, rnnkern.torch\nmodule, tensor = rnnkern.torch.LSTM(64, 128), torch.from_numpy(x)",
        "with torch.no_grad(): module(tensor)",
    ),
}

SETUP = """
import os, sys, threading, time
import numpy as np
import rnnkern

T = {steps}
layer = rnnkern.LSTM(64, 128, seed=0)
x = np.random.default_rng(0).standard_normal((T, 16, 64), dtype=np.float32)
{prepare}
def call():
    {call}
"""


def needs_torch(name):
    if name.startswith("torch") and importlib.util.find_spec("torch") is None:
        pytest.skip("could not import 'torch'")


def setup(name, steps):
    needs_torch(name)
    prepare, call = CALLS[name]
    return SETUP.format(steps=steps, prepare=prepare, call=call)


# PyTorch's own frames may end the process, too: one thread, that is in a long call of ours when Python ends.
@pytest.mark.parametrize("name", sorted(CALLS))
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
            time.sleep({wait})
            sys.exit()
        assert os.wait()[1] == 0
    """
    steps, count, wait = (20_000, 1, 0.05) if name == "torch" else (500, 2, 0.02)
    in_process(setup(name, steps) + textwrap.dedent(code).format(count=count, wait=wait))


def test_the_gil_is_released_in_one_way():
    """pybind11's ends the process where Python ends the thread."""
    sources = Path(__file__).parents[1].glob("csrc/*.cpp")
    assert not [path.name for path in sources if "gil_scoped_release" in path.read_text()]


SUBINTERPRETER = """
import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import {module}
except ImportError as error:
    print(error, flush=True)
''')
"""


@pytest.mark.skipif(importlib.util.find_spec("_xxsubinterpreters") is None, reason="no such module in this Python")
@pytest.mark.parametrize("before", ["", "import rnnkern"])
def test_importing_in_a_subinterpreter_is_an_error(before):
    # Without Python's own end, which need not come to one while there is a subinterpreter.
    after = "import os, rnnkern; print('and then it can', flush=True); os._exit(0)"
    message = in_process(before + SUBINTERPRETER + after, module="rnnkern._core")
    assert "subinterpreter" in message
    assert "and then it can" in message


# What takes ten seconds, or backward passes of at least three, with the baseline's kernels.
LONG = {
    "call": ("", "layer(x)"),
    "trace": ("", "layer.trace(x)"),
    "backward": ("y, _, tape = layer.forward(x[:6000])", "layer.backward(tape, y)"),
    "recompute": (
        "y, _, tape = layer.forward(x[:6000], lengths=[6000, 5000, 5500, 1], recompute=True)",
        "layer.backward(tape, y)",
    ),
    "stream": ("stream = layer.freeze().stream(4); stream.run(x[:5]); before = stream.state", "stream.run(x)"),
    "dropout": (
        "layer = rnnkern.GRU(8, 256, 2, dropout=0.5); before = layer._random.bit_generator.state",
        "layer.forward(x[:10_000])",
    ),
    "linear_cross_entropy": (
        "h, weight = np.ones((20_000, 256), np.float32), np.ones((20_000, 256), np.float32)",
        "rnnkern.linear_cross_entropy(h, weight, None, np.zeros(20_000, int), gradient=True)",
    ),
    "torch": ("import torch, rnnkern.torch; module = rnnkern.torch.LSTM(8, 256)", "module(torch.from_numpy(x))"),
    "torch_backward": (
        "import torch, rnnkern.torch; module = rnnkern.torch.LSTM(8, 256)\ny = module(torch.from_numpy(x[:6000]))[0]",
        "y.sum().backward()",
    ),
}
LEFT = {  # how all is afterwards
    "stream": "assert all(map(np.array_equal, before, stream.state)); stream.run(x[:5])",
    "dropout": "assert layer._random.bit_generator.state == before",
    "torch_backward": "assert all(p.grad is None for p in module.parameters())",
}
INTERRUPTED = """
import signal, time
import numpy as np
import rnnkern

class Enough(Exception):
    pass

def handler(*_):
    raise Enough

signal.signal(signal.SIGALRM, handler)
rnnkern.set_num_threads({threads})
layer = rnnkern.LSTM(8, 256, seed=0)
x = np.zeros((40_000, 4, 8), np.float32)
expected = layer(x[:50])[0]
{prepare}
signal.setitimer(signal.ITIMER_REAL, 0.2)
start = time.perf_counter()
try:
    {call}
except Enough:
    took = time.perf_counter() - start
assert took < 4, took
{left}
assert np.array_equal(rnnkern.LSTM(8, 256, seed=0)(x[:50])[0], expected)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
@pytest.mark.parametrize(("name", "threads"), [*((name, 2) for name in sorted(LONG)), ("call", 1), ("backward", 1)])
def test_a_signal_interrupts_a_long_call(name, threads):
    needs_torch(name)
    prepare, call = LONG[name]
    in_process(INTERRUPTED, threads=threads, prepare=prepare, call=call, left=LEFT.get(name, ""), isa="baseline")
