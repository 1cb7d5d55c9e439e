"""PyTorch's recurrent layers on the kernels of rnnkern: `model = rnnkern.torch.accelerate(model)`."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"rnnkern.torch needs PyTorch, see https://pytorch.org ({error})") from error

from .frozen import FrozenLayer, freeze
from .layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .reports import Report, report
from .swap import accelerate, restore

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "FrozenLayer",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "accelerate",
    "freeze",
    "report",
    "restore",
]
