"""A recurrent node of the standard as a layer: attributes, order of the gates, layout of the weights.

The equations are those of the operators RNN, LSTM and GRU in https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Optional

import numpy as np
import numpy.typing as npt

from .. import options, spec
from ..layer import Layer
from ..layers import GRU, LSTM, RNN
from ..spec import Array
from .reversed import Reversed

Kind = Literal["RNN", "LSTM", "GRU"]

GATES = {"RNN": "h", "LSTM": "iofg", "GRU": "zrn"}
"""The gates in the order of the standard's weights; it calls the candidates c and h."""
FAMILIES: dict[Kind, spec.Family] = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru_reset_before"}


def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What the kernels compute tensors of this type in: float32 for the half types."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def make_layer(
    kind: Kind, attributes: Mapping[str, Any], W: Array, R: Array, B: Optional[Array] = None, P: Optional[Array] = None
) -> Layer | Reversed:
    """One layer that computes what the node does.

    Parameters
    ----------
    kind : "RNN", "LSTM" or "GRU"
    attributes : mapping
        The node's; what is missing or None has the standard's default.
    W : array (D, G*H, I)
    R : array (D, G*H, H)
    B : array (D, 2*G*H), optional
    P : array (D, 3*H), optional
        The node's weights, gates in the standard's order.

    Returns
    -------
    Layer or Reversed
        `batch_first` with layout 1.

    Raises
    ------
    ValueError
        For shapes and attributes that the standard doesn't know.
    """
    given: dict[str, Any] = {name: value for name, value in attributes.items() if value is not None}
    direction = options.check_choice(
        "direction", given.get("direction", "forward"), ("forward", "reverse", "bidirectional")
    )
    directions = 2 if direction == "bidirectional" else 1
    dtype = kernel_dtype(W.dtype)
    arrays = {name: np.asarray(array, dtype) for name, array in zip("WRBP", (W, R, B, P)) if array is not None}
    hidden_size = given.get("hidden_size") or arrays["R"].shape[-1]
    check_shapes(arrays, directions, len(GATES[kind]), hidden_size)
    common: dict[str, Any] = {
        "bias": B is not None,
        "batch_first": bool(given.get("layout", 0)),
        "bidirectional": directions == 2,
        "dtype": dtype,
        "activations": activations(kind, given, directions),
        "clip": given.get("clip"),
        "_weights": {
            name: array for d in range(directions) for name, array in direction_weights(kind, arrays, d).items()
        },
    }
    sizes = arrays["W"].shape[-1], hidden_size
    layer: Layer
    if kind == "RNN":
        layer = RNN(*sizes, **common)
    elif kind == "LSTM":
        layer = LSTM(*sizes, peephole=P is not None, coupled="f" if given.get("input_forget") else False, **common)
    else:
        layer = GRU(*sizes, reset_after=bool(given.get("linear_before_reset")), **common)
    return Reversed(layer) if direction == "reverse" else layer


def check_shapes(arrays: Mapping[str, Array], directions: int, gates: int, hidden_size: int) -> None:
    rows, inputs = gates * hidden_size, arrays["W"].shape[-1:]
    shapes = {
        "W": (directions, rows, *inputs),
        "R": (directions, rows, hidden_size),
        "B": (directions, 2 * rows),
        "P": (directions, 3 * hidden_size),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ValueError(f"{name}: expected shape {shapes[name]}, got {array.shape}")


def direction_weights(kind: Kind, arrays: Mapping[str, Array], direction: int) -> dict[str, Array]:
    """One direction's weights under our names, gates in our order."""
    order = [GATES[kind].index(gate) for gate in spec.GATES[FAMILIES[kind]]]

    def ours(array: Array) -> Array:
        return array.reshape(len(order), -1, *array.shape[1:])[order].reshape(array.shape)

    weights = {"weight_ih": ours(arrays["W"][direction]), "weight_hh": ours(arrays["R"][direction])}
    if "B" in arrays:
        weights["bias_ih"], weights["bias_hh"] = map(ours, np.split(arrays["B"][direction], 2))
    if "P" in arrays:  # i, o, f in the standard, i, f, o here
        weights["weight_peephole"] = arrays["P"][direction].reshape(3, -1)[[0, 2, 1]]
    suffix = "_l0_reverse" if direction else "_l0"
    return {name + suffix: array for name, array in weights.items()}


def activations(kind: Kind, given: Mapping[str, Any], directions: int) -> Optional[tuple[tuple[Any, ...], ...]]:
    """The functions of all directions with their parameters; None for the usual ones."""
    names = given.get("activations")
    if not names:
        return None
    if kind == "RNN":
        names = names[:directions]  # its default is a list of two also for one direction
    return tuple(with_parameters(names, given.get("activation_alpha", ()), given.get("activation_beta", ())))


def with_parameters(names: Sequence[str], alphas: npt.ArrayLike, betas: npt.ArrayLike) -> Iterator[tuple[Any, ...]]:
    """Name, alpha and beta: a function that has parameters takes the next of the lists, or the default."""
    alpha, beta = (iter(np.asarray(values, np.float64).tolist()) for values in (alphas, betas))
    for name in names:
        known, *defaults = options.check_activation(name)
        count = len(options.ACTIVATIONS[known])
        yield (known, *(next(values, default) for values, default in list(zip((alpha, beta), defaults))[:count]))
