"""rnnkern: the fastest recurrent layers on a CPU.

RNN, LSTM and GRU as fused kernels, forward and backward, under a NumPy interface with PyTorch's names and shapes.
"""

from pkgutil import extend_path

# Run from a checkout, its Python files come first and the compiled part from where the package is installed.
__path__ = extend_path(__path__, __name__)

from .frozen import FrozenLayer, Stream
from .layer import Gradients, Layer, Tape
from .layers import GRU, LSTM, RNN
from .serialization import load
from .settings import config, explain, get_num_threads, num_threads, set_num_threads, show_config
from .version import __version__

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "FrozenLayer",
    "Gradients",
    "Layer",
    "Stream",
    "Tape",
    "__version__",
    "config",
    "explain",
    "get_num_threads",
    "load",
    "num_threads",
    "set_num_threads",
    "show_config",
]
