"""rnnkern: the fastest recurrent layers on a CPU.

RNN, LSTM, GRU and Jordan's network as fused kernels, forward and backward, under a NumPy interface with PyTorch's
names and shapes.
"""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# Run from a checkout, its Python files come first and the compiled part from where the package is installed.
__path__ = extend_path(__path__, __name__)

if find_spec(f"{__name__}._core") is None:
    raise ImportError(
        f"rnnkern: its compiled part is missing, {__path__[0]} has the Python files only. "
        "Compile and install it: in the checkout, pip install ."
    )

from .cross_entropy import OutputGradients, linear_cross_entropy
from .frozen import FrozenLayer, Stream
from .gradients import Gradients
from .layer import Layer, Tape
from .layers import GRU, LSTM, RNN, Jordan
from .serialization import load
from .settings import config, explain, get_num_threads, num_threads, set_num_threads, show_config
from .version import __version__

if TYPE_CHECKING:
    from . import onnx as onnx
    from . import plot as plot
    from . import torch as torch

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "FrozenLayer",
    "Gradients",
    "Jordan",
    "Layer",
    "OutputGradients",
    "Stream",
    "Tape",
    "__version__",
    "config",
    "explain",
    "get_num_threads",
    "linear_cross_entropy",
    "load",
    "num_threads",
    "set_num_threads",
    "show_config",
]


def __getattr__(name: str) -> Any:
    """What needs other packages is imported when it is first asked for."""
    if name in ("onnx", "plot", "torch"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
