"""The checks of a layer's options, in Python's own types."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, Literal, Optional

import numpy as np

from .spec import Activation, Family, of_each_cell

# name: defaults of alpha and beta, of those that it has (ONNX's operator RNN, attribute activations)
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "Identity": (),  # not ONNX's
    "LeakyRelu": (0.01,),
    "Relu": (),
    "ScaledTanh": (1.0, 1.0),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": (1.0,),
}
_BY_LOWER_NAME = {name.lower(): name for name in ACTIVATIONS}

USUAL = of_each_cell(
    {
        "rnn": ("Tanh",),
        "lstm": ("Sigmoid", "Tanh", "Tanh"),
        "gru_reset_after": ("Sigmoid", "Tanh"),
        "gru_reset_before": ("Sigmoid", "Tanh"),
        "jordan": ("Tanh",),
    }
)


def describe(value: object) -> str:
    """What came, for an error message."""
    return f"{type(value).__name__} {_shown(value)}"


def _shown(value: object) -> str:
    """A short `repr` of anything."""
    try:
        text = repr(value)
    except Exception:
        return "that can't be printed"  # an integer of thousands of digits, lists within lists within lists
    return text if len(text) <= 80 else text[:77] + "..."


def check_size(name: str, value: object, least: int = 1, most: int = 2**31 - 1) -> int:
    """An integer in `least`..`most`; a TypeError or ValueError otherwise."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an integer >= {least}, got {describe(value)}")
    try:
        size = int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer >= {least}, got {describe(value)}") from None
    if size < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {_shown(size)}")
    if size > most:
        raise ValueError(f"{name}: expected an integer <= {most}, got {_shown(size)}")
    return size


def check_seed(value: Any) -> np.random.SeedSequence:
    """None, an integer, or a sequence of integers (not of sequences)."""
    if value is None:
        return np.random.SeedSequence()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    several = isinstance(value, (list, tuple, range))
    numbers = list(islice(value, len(value))) if several else [value]
    for number in numbers:
        if isinstance(number, (bool, np.bool_)) or not hasattr(number, "__index__"):
            raise TypeError(f"seed: expected None, an integer >= 0 or a sequence of such, got {describe(value)}")
    integers = [operator.index(number) for number in numbers]
    if min(integers, default=0) < 0:
        raise ValueError(f"seed: expected None, an integer >= 0 or a sequence of such, got {describe(value)}")
    return np.random.SeedSequence(integers if several else integers[0])


def check_bool(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return bool(value)


def check_number(name: str, value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number in the range of float64, got {describe(value)}") from None


def plain(value: Any) -> Any:
    """Checked activations, or None, in Python's own types, as files hold them: tuples, names and numbers."""
    if value is None or isinstance(value, str):
        return value and str.__str__(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def check_dropout(value: object) -> float:
    dropout = check_number("dropout", value)
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
    return dropout


def check_clip(value: object, dtype: np.dtype[Any] = np.dtype(np.float64)) -> Optional[float]:
    """A bound > 0; None where no number of the dtype is beyond it."""
    if value is None:
        return None
    clip = check_number("clip", value)
    if not clip > 0.0:
        raise ValueError(f"clip: expected a number > 0 or None, got {clip}")
    return clip if clip <= float(np.finfo(dtype).max) else None


def check_coupled(value: object) -> Optional[Literal["i", "f"]]:
    expected = 'coupled: expected False, True, "i" or "f"'
    if value is None or isinstance(value, (bool, np.bool_)):
        return "i" if value else None
    if not isinstance(value, str):
        raise TypeError(f"{expected}, got {describe(value)}")
    if value == "i":
        return "i"
    if value == "f":
        return "f"
    raise ValueError(f"{expected}, got {value!r}")


def check_dtype(value: Any) -> np.dtype[Any]:
    expected = "dtype: expected float32 or float64"
    if value is None:  # NumPy's name of float64
        raise TypeError(f"{expected}, got None")
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except (TypeError, ValueError, RecursionError):
        raise TypeError(f"{expected}, got {describe(value)}") from None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"{expected}, got {dtype}")
    return dtype


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    if isinstance(value, str) and value in choices:
        return str.__str__(value)
    error = ValueError if isinstance(value, str) else TypeError
    got = repr(value) if isinstance(value, str) else describe(value)
    raise error(f"{name}: expected one of {', '.join(map(repr, choices))}, got {got}")


def check_activation(value: object) -> Activation:
    """One function: its name in any case, or a tuple of the name, alpha and beta."""
    name, *parameters = value if isinstance(value, (tuple, list)) and value else (value,)
    if not isinstance(name, str):
        raise TypeError(f"activations: expected names or tuples (name, alpha, beta), got {describe(value)}")
    known = _BY_LOWER_NAME.get(name.lower())
    if known is None:
        raise ValueError(f"activations: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    allowed = len(ACTIVATIONS[known])
    if len(parameters) > allowed:
        raise ValueError(f"activations: expected at most {allowed} parameters of {known}, got {len(parameters)}")
    numbers = [check_number(f"activations: {known}", parameter) for parameter in parameters]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"activations: expected finite parameters of {known}, got {numbers}")
    alpha, beta, *_ = (*numbers, *ACTIVATIONS[known][len(numbers) :], 0.0, 0.0)
    return known, alpha, beta


def check_activations(value: Any, family: Family, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """One tuple of functions per direction; None means the usual ones."""
    count = len(USUAL[family])
    if value is None:
        value = USUAL[family]
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise TypeError(f"activations: expected a tuple of {count} functions, got {describe(value)}")
    functions = tuple(check_activation(function) for function in value)
    if len(functions) == count:
        return (functions,) * directions
    if directions == 2 and len(functions) == 2 * count:
        return functions[:count], functions[count:]
    either = f"{count} or {2 * count}" if directions == 2 else f"{count}"
    raise ValueError(f"activations: expected {either} functions, got {len(functions)}")


def check_parameters(activations: tuple[tuple[Activation, ...], ...], dtype: np.dtype[Any]) -> None:
    """A ValueError if alpha or beta of a function is beyond the numbers of the dtype."""
    largest = float(np.finfo(dtype).max)
    for name, *parameters in chain.from_iterable(activations):
        if max(map(abs, parameters)) > largest:
            raise ValueError(f"activations: expected parameters of {name} up to {largest}, got {parameters}")
