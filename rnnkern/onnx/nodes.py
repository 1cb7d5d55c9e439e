"""A recurrent node of the standard as a layer: attributes, order of the gates, layout of the weights.

The equations are those of the operators RNN, LSTM and GRU in https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Optional

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from .. import options, spec
from ..layer import Layer
from ..layers import GRU, LSTM, RNN
from ..spec import Array
from .reversed import Reversed

Kind = Literal["RNN", "LSTM", "GRU"]

GATES = {"RNN": "h", "LSTM": "iofg", "GRU": "zrn"}
"""The gates in the order of the standard's weights; it calls the candidates c and h."""
FAMILIES: dict[Kind, spec.Family] = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru_reset_before"}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
DIMENSIONS = {"X": 3, "W": 3, "R": 3, "B": 2, "initial_h": 3, "initial_c": 3, "P": 2}
"""Of the inputs that have the node's type."""
ONLY_LSTM = ("initial_c", "P")
FLOATS = {
    tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, name)) for name in ("FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE")
}
ATTRIBUTES = (
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout",
    "output_sequence",  # of the first version, which doesn't tell more than the node's outputs
)  # fmt: skip
OWN_ATTRIBUTES: dict[Kind, tuple[str, ...]] = {"RNN": (), "LSTM": ("input_forget",), "GRU": ("linear_before_reset",)}


def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What the kernels compute tensors of this type in: float32 for the half types."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def check_tensors(kind: Kind, tensors: Mapping[str, Any]) -> dict[str, Array]:
    """Those of a node's inputs that are there, by the standard's names: all of one type and of the right rank.

    Raises
    ------
    TypeError
        For another kind or type.
    ValueError
        For another rank, and for W and R that are missing.
    """
    for name in ("W", "R"):
        if tensors.get(name) is None:
            raise ValueError(f"{name}: expected a tensor, the node has no such input")
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        if name in ONLY_LSTM and kind != "LSTM":
            raise ValueError(f"{name}: {kind} has no such input")
        if not isinstance(tensor, (np.ndarray, np.generic)):
            raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
        if isinstance(tensor, np.ma.MaskedArray):
            raise TypeError(f"{name}: expected a tensor, got a masked array; its filled(0) has no mask")
        if tensor.dtype not in FLOATS and tensor.dtype.newbyteorder("=") not in FLOATS:
            raise TypeError(f"{name}: expected one of {', '.join(sorted(map(str, FLOATS)))}, got {tensor.dtype}")
        if tensor.ndim != DIMENSIONS[name]:
            raise ValueError(f"{name}: expected {DIMENSIONS[name]} dimensions, got shape {tensor.shape}")
    dtype = given["W"].dtype
    for name, tensor in given.items():
        if tensor.dtype != dtype and tensor.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise TypeError(f"{name}: expected {dtype} as W, got {tensor.dtype}")
    return given


def check_integer(name: str, value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {options.describe(value)}")
    return value


def check_layout(value: Any) -> bool:
    """Whether batches come first."""
    layout = check_integer("layout", value)
    if layout not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1, got {layout}")
    return layout == 1


def check_clip(value: Any) -> Optional[float]:
    """The bound as an option of ours, which has to be above 0: of 0 nothing is left but values around 1e-38."""
    if value is None:
        return None
    clip = options.check_number("clip", value)
    if not clip >= 0:
        raise ValueError(f"clip: expected a number >= 0, got {clip}")
    return max(clip, float(np.finfo(np.float32).tiny))


def make_layer(
    kind: Kind, attributes: Mapping[str, Any], W: Any = None, R: Any = None, B: Any = None, P: Any = None
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
    TypeError
        For other kinds and types of tensors and attributes.
    ValueError
        For shapes and attributes that the standard doesn't know, and for W and R that are missing.
    """
    given: dict[str, Any] = {name: value for name, value in attributes.items() if value is not None}
    if unknown := given.keys() - {*ATTRIBUTES, *OWN_ATTRIBUTES[kind]}:
        raise ValueError(f"{min(unknown)}: {kind} has no such attribute")
    direction = options.check_choice("direction", given.get("direction", "forward"), tuple(DIRECTIONS))
    directions = DIRECTIONS[direction]
    tensors = check_tensors(kind, {"W": W, "R": R, "B": B, "P": P})
    hidden_size = options.check_size("hidden_size", given.get("hidden_size", R.shape[-1]))
    check_shapes(tensors, directions, len(GATES[kind]), hidden_size)
    dtype = kernel_dtype(W.dtype)
    arrays = {name: np.asarray(tensor, dtype) for name, tensor in tensors.items()}
    common: dict[str, Any] = {
        "bias": B is not None,
        "batch_first": check_layout(given.get("layout", 0)),
        "bidirectional": directions == 2,
        "dtype": dtype,
        "activations": activations(kind, given, directions),
        "clip": check_clip(given.get("clip")),
        "_weights": {
            name: array for d in range(directions) for name, array in direction_weights(kind, arrays, d).items()
        },
    }
    sizes = arrays["W"].shape[-1], hidden_size
    layer: Layer
    switch = {name: check_integer(name, given.get(name, 0)) != 0 for name in OWN_ATTRIBUTES[kind]}
    if kind == "RNN":
        layer = RNN(*sizes, **common)
    elif kind == "LSTM":
        layer = LSTM(*sizes, peephole=P is not None, coupled="f" if switch["input_forget"] else False, **common)
    else:
        layer = GRU(*sizes, reset_after=switch["linear_before_reset"], **common)
    return Reversed(layer) if direction == "reverse" else layer


def check_shapes(arrays: Mapping[str, Array], directions: int, gates: int, hidden_size: int) -> None:
    rows, inputs = gates * hidden_size, arrays["W"].shape[-1]
    if inputs == 0:
        raise ValueError(f"W: expected at least one column, got shape {arrays['W'].shape}")
    shapes = {
        "W": (directions, rows, inputs),
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
    names = given.get("activations") or ()
    usual = len(options.USUAL[FAMILIES[kind]]) * directions
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"activations: expected a list of names, got {options.describe(names)}")
    alphas, betas = (
        check_parameters(name, given.get(name, ()), max(len(names), usual, 2))
        for name in ("activation_alpha", "activation_beta")
    )
    if not names:
        return None
    if kind == "RNN" and len(names) == 2:
        names = names[:directions]  # its default is a list of two also for one direction
    if len(names) != usual:
        raise ValueError(f"activations: expected {usual} functions, got {len(names)}")
    return tuple(with_parameters(names, alphas, betas))


def check_parameters(attribute: str, values: Any, most: int) -> list[float]:
    """The values of activation_alpha or activation_beta; more than are asked for are ignored, as in onnxruntime."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{attribute}: expected a list of numbers, got {options.describe(values)}")
    numbers = [options.check_number(attribute, value) for value in values]
    if len(numbers) > most:
        raise ValueError(f"{attribute}: expected at most one number per function, {most}, got {len(numbers)}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{attribute}: expected finite numbers, got {numbers}")
    return numbers


def with_parameters(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> Iterator[tuple[Any, ...]]:
    """Name, alpha and beta: a function that has parameters takes the next of the lists, or the default."""
    alpha, beta = iter(alphas), iter(betas)
    for name in names:
        known, *defaults = options.check_activation(name)
        count = len(options.ACTIVATIONS[known])
        yield (known, *(next(values, default) for values, default in list(zip((alpha, beta), defaults))[:count]))
