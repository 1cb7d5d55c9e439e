"""A layer's weights by name, and the checks of what is copied into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .spec import Array


class Weights(MutableMapping[str, Array]):
    """A layer's weights by name: fixed keys, live arrays. Assigning copies into the array.

    Attributes
    ----------
    own : dict
        The arrays as the layer reads them. A user has views, which may be given another shape or dtype in place.
    """

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.own = arrays
        self._views = {name: array.view() for name, array in arrays.items()}

    def copy_in(self, values: Mapping[str, Array]) -> None:
        """Cast and copy arrays of the right shapes, all or none."""
        for name in values:
            if not self._views[name].flags.writeable:
                raise ValueError(f"{name}: expected a writable array to copy into, got a read-only one")
        copies = {name: array.astype(self.own[name].dtype) for name, array in values.items()}
        for name, array in copies.items():
            self.own[name][...] = array

    def __getitem__(self, name: str) -> Array:
        try:
            return self._views[name]
        except KeyError:
            raise KeyError(f"{name}: expected one of {', '.join(self.own)}") from None

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        if value is not self[name]:  # as after `weights[name] += ...`
            self.copy_in({name: check_weight(name, value, self.own[name].shape)})

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: the weights of a layer can't be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {array.shape}" for name, array in self.own.items()) + "}"


CACHE_LINE = 64


def fixed_array(values: Array, dtype: np.dtype[Any]) -> Array:
    """A copy at the start of a cache line whose memory stays where it is: not owned, so it can't be resized."""
    size = values.size * dtype.itemsize
    memory = np.frombuffer(bytearray(size + CACHE_LINE), np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    array: Array = memory[start : start + size].view(dtype).reshape(values.shape)
    array[...] = values
    return array


def check_weights(given: Mapping[str, npt.ArrayLike], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays of exactly these names and shapes; else a ValueError that tells everything that is wrong."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a mapping of names to arrays, got {type(given).__name__}")
    problems = [f"missing {name}" for name in shapes if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in shapes]
    arrays: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name in given:
            try:
                arrays[name] = check_weight(name, given[name], shape)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ValueError("state_dict: " + "; ".join(problems))
    return arrays


def check_weight(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """`value` as an array of real numbers of this shape."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected real numbers of shape {shape}, got a masked array; its filled(0) has no mask"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name}: expected shape {shape}: {error}") from None
    except (TypeError, RuntimeError) as error:  # what no array can be made of, as a tensor that requires grad
        got = type(value).__name__
        raise TypeError(f"{name}: expected real numbers of shape {shape}, got {got}: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers of shape {shape}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array
