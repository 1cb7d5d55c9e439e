"""The recurrent layers: PyTorch's names, shapes and gate order, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Optional

import numpy as np
import numpy.typing as npt

from . import options
from .layer import Layer
from .spec import Array, Family, Spec


def _make_spec(
    family: Family, input_size: Any, hidden_size: Any, num_layers: Any, bias: Any, bidirectional: Any, **cell: Any
) -> Spec:
    return Spec(
        family,
        options.check_size("input_size", input_size),
        options.check_size("hidden_size", hidden_size),
        options.check_size("num_layers", num_layers, most=2**16),
        options.check_bool("bidirectional", bidirectional),
        options.check_bool("bias", bias),
        **cell,
    )


_COMMON_PARAMETERS = """
    Parameters
    ----------
    input_size, hidden_size : int
        I and H, at least 1.
{own}    num_layers : int
        Layers on top of each other, each reading the outputs of the one below.
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether x and y are (B, T, N) instead of (T, B, N).
    dropout : float
        Probability of zeroing an output on its way to the next layer, in `forward` only.
    bidirectional : bool
        Also run the sequences backwards, with weights of their own; outputs are concatenated.
    dtype : float32 or float64
    seed : int or sequence of ints, optional
        Of the initial weights, uniform in ±1/sqrt(H), and of dropout.
    backend : "native" or "reference"
        The kernels, or their NumPy twins.
    activations : tuple, optional
        ONNX's names in ONNX's order, {order}; one with parameters as a tuple,
        ``("HardSigmoid", 0.2, 0.5)``. A bidirectional layer also takes both directions' list.
    clip : float, optional
        Bound of the gates' and the candidate's pre-activations.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.
"""


class RNN(Layer[Array]):
    __doc__ = """Elman's network: h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh) (Elman 1990).
""" + _COMMON_PARAMETERS.format(own='    nonlinearity : "tanh", "relu" or "linear"\n', order="``(f,)``")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        kinds = {"tanh": "Tanh", "relu": "Relu", "linear": "Identity"}
        self._nonlinearity = options.check_choice("nonlinearity", nonlinearity, tuple(kinds))
        super().__init__(
            _make_spec("rnn", input_size, hidden_size, num_layers, bias, bidirectional),
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
            usual=(kinds[self._nonlinearity],),
        )

    @property
    def nonlinearity(self) -> str:
        return self._nonlinearity


class LSTM(Layer[tuple[Array, Array]]):
    __doc__ = """Long short-term memory: c' = f c + i g, h = o tanh(c') (Hochreiter and Schmidhuber 1997).
""" + _COMMON_PARAMETERS.format(
        own="""    proj_size : int
        P > 0: h is projected to P columns by weight_hr (Sak et al. 2014).
    peephole : bool
        c_{t-1} feeds i and f, c_t feeds o, through weight_peephole (3, H) (Gers and Schmidhuber 2000).
    coupled : False, "i" (or True) or "f"
        i = 1 - f, or f = 1 - i (Greff et al. 2017). The derived gate's weights are ignored and get zero gradient.
""",
        order="``(f, g, h)``",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        coupled: Any = False,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        spec = _make_spec(
            "lstm", input_size, hidden_size, num_layers, bias, bidirectional,
            proj_size=options.check_size("proj_size", proj_size, 0),
            peephole=options.check_bool("peephole", peephole),
            coupled=options.check_coupled(coupled),
        )  # fmt: skip
        if spec.proj_size >= spec.hidden_size and spec.proj_size > 0:
            raise ValueError(f"proj_size: expected less than hidden_size {spec.hidden_size}, got {spec.proj_size}")
        super().__init__(
            spec,
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
        )

    @property
    def peephole(self) -> bool:
        return self._spec.peephole

    @property
    def coupled(self) -> Literal[False, "i", "f"]:
        """The gate that is derived from the other one."""
        return self._spec.coupled or False


class GRU(Layer[Array]):
    __doc__ = """Gated recurrent unit: h' = (1 - z) n + z h (Cho et al. 2014).
""" + _COMMON_PARAMETERS.format(
        own="""    reset_after : bool
        True: n = tanh(W x + b_ih + r (R h + b_hh)), as PyTorch and cuDNN; False: n = tanh(W x + b_ih + R (r h) + b_hh),
        as the original paper.
""",
        order="``(f, g)``",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        family: Family = "gru_reset_after" if options.check_bool("reset_after", reset_after) else "gru_reset_before"
        super().__init__(
            _make_spec(family, input_size, hidden_size, num_layers, bias, bidirectional),
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
        )

    @property
    def reset_after(self) -> bool:
        return self._spec.family == "gru_reset_after"


class Jordan(Layer[Array]):
    __doc__ = """Jordan's network, whose output is fed back (Jordan 1986).

    h_t = tanh(W_ih x_t + b_ih + W_hh y_{t-1} + b_hh),  y_t = softmax(W_ho h_t + b_ho)

The state is the last output, (L*D, B, O). The weights are weight_ih (H, I), weight_hh (H, O), weight_ho (O, H), and
bias_ih, bias_hh and bias_ho.
""" + _COMMON_PARAMETERS.format(
        own="""    output_size : int
        O, at least 1: size of y.
    output : "softmax" or "linear"
        What the output layer ends with.
""",
        order="``(f,)``, of h",
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        output: str = "softmax",
        *,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: npt.DTypeLike = np.float32,
        seed: Any = None,
        backend: str = "native",
        activations: Any = None,
        clip: Optional[float] = None,
        _isa: Optional[str] = None,
        _weights: Optional[Mapping[str, npt.ArrayLike]] = None,
    ) -> None:
        spec = _make_spec(
            "jordan", input_size, hidden_size, num_layers, bias, bidirectional,
            proj_size=options.check_size("output_size", output_size),
            softmax=options.check_choice("output", output, ("softmax", "linear")) == "softmax",
        )  # fmt: skip
        super().__init__(
            spec,
            batch_first=batch_first,
            dropout=dropout,
            seed=seed,
            backend=backend,
            activations=activations,
            clip=clip,
            dtype=dtype,
            isa=_isa,
            weights=_weights,
        )

    @property
    def output_size(self) -> int:
        return self._spec.output_size

    @property
    def output(self) -> Literal["softmax", "linear"]:
        """What the output layer ends with."""
        return "softmax" if self._spec.softmax else "linear"
