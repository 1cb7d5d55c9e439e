"""Reading safetensors files: the header first, so that nothing is read or allocated that doesn't fit it.

A file is eight bytes with the length of the header, the header in JSON, and the tensors without gaps
(https://huggingface.co/docs/safetensors). It is not mapped into memory: when somebody cuts it off meanwhile, that is an
error and not a signal. All errors are ValueErrors that say, as the end of a sentence, what is wrong with the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from .spec import Array

LONGEST_HEADER = 100_000_000
"""As safetensors has it."""
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
HOW = "load it there, and give the weights to load_state_dict of a layer"
OTHERS = {
    b"PK\x03\x04": f"it looks like an archive of PyTorch or NumPy: {HOW}",
    b"\x80": f"it looks like a pickle, as PyTorch's: {HOW}",
    b"\x89HDF": f"it looks like HDF5, as Keras': {HOW}",
    b"\x08": "it looks like an ONNX model: rnnkern.onnx.load reads those",
}
"""What it is instead, by the first bytes."""


@dataclass(frozen=True)
class Tensor:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    """Its first byte, counted from the end of the header."""
    end: int

    def placeholder(self) -> Array:
        """An array of this shape without memory."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


@dataclass(frozen=True)
class Header:
    metadata: Mapping[str, str]
    entries: Mapping[str, Any]
    """Of the tensors, by name, not checked yet."""
    length: int
    """Of what comes before the tensors, in bytes."""


def read_header(file: BinaryIO, size: int) -> Header:
    """Read the header of a file of this size."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(size - 8, LONGEST_HEADER):
        other = next((text for start, text in OTHERS.items() if first.startswith(start)), "it has no header")
        raise ValueError(f"is not a safetensors file: {other}")
    try:
        content = parse(file.read(length).decode())
    except ValueError as error:
        raise ValueError(f"is not a safetensors file: its header is broken, {error}") from None
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("is not a safetensors file: its metadata are not texts by name")
    return Header(metadata, content, 8 + length)


def check_tensors(header: Header, size: int) -> dict[str, Tensor]:
    """Where the tensors are, of which a file of this size has no more and no less."""
    tensors = {name: check_tensor(name, entry) for name, entry in header.entries.items()}
    end = header.length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if header.length + tensor.begin != end:
            raise ValueError(f"is broken: {name} doesn't begin where the tensor before it ends")
        end = header.length + tensor.end
    if end != size:
        raise ValueError(f"is {'cut off' if size < end else 'broken'}: it has {size:,} bytes, and its tensors {end:,}")
    return tensors


def check_tensor(name: str, entry: Any) -> Tensor:
    known = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    if not (known and is_sizes(entry["shape"]) and is_sizes(entry["data_offsets"]) and len(entry["data_offsets"]) == 2):
        raise ValueError(f"is broken: it doesn't tell dtype, shape and place of {name}")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"does not hold a layer: {name} is {entry['dtype']}, expected one of {', '.join(DTYPES)}")
    tensor = Tensor(dtype, tuple(entry["shape"]), *entry["data_offsets"])
    if np.prod(tensor.shape, dtype=object) * dtype.itemsize != tensor.end - tensor.begin:
        raise ValueError(f"is broken: {name} has not as many bytes as {dtype} of shape {tensor.shape}")
    return tensor


def is_sizes(value: Any) -> bool:
    """Whether it is a list of a few numbers that are sizes."""
    return isinstance(value, list) and len(value) < 4 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def read_into(file: BinaryIO, header: Header, tensors: Mapping[str, Tensor], arrays: Mapping[str, Array]) -> None:
    """Fill contiguous arrays with the tensors of the same names, shapes and dtypes."""
    for name, array in arrays.items():
        file.seek(header.length + tensors[name].begin)
        if file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
            raise ValueError(f"was cut off while it was read: {name} is not whole")


def parse(text: str) -> dict[str, Any]:
    """A JSON object as Python's own; a ValueError for anything else, also for what is not quite JSON."""
    try:
        content = json.loads(text, object_pairs_hook=without_doubles, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected an object of JSON, got {type(content).__name__}")
    return content


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands there twice")
    return content


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
