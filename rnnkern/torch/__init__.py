"""PyTorch's recurrent layers on the kernels of rnnkern: `model = rnnkern.torch.accelerate(model)`."""

from .frozen import FrozenLayer, freeze
from .layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .swap import Report, accelerate, report, restore

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
