"""Layers in safetensors files: the weights, and in the metadata what they are the weights of."""

from __future__ import annotations

import errno
import inspect
import json
import os
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

from safetensors.numpy import save as to_bytes

from . import tensor_file
from .files import PathLike, check_path, regular_file, whole
from .version import __version__

if TYPE_CHECKING:
    from .layer import Layer

KEY = "rnnkern"
"""Of the metadata: a JSON object of FIELDS."""
FIELDS = ("format", "version", "class", "arguments")
FORMAT = 1
"""The number goes up with what an older package would misread or not make sense of: other fields, or another meaning.

A new option or class is no reason: an older package says that it doesn't know it, and the version that does. Files of
format 0 have neither "format" nor "version", and lack arguments that had their default.
"""


def save(layer: Layer, path: PathLike) -> None:
    """Write a layer to a file that `load` reads; one of a user's subclass as its class of ours."""
    known = kinds().values()
    kind = next(base for base in type(layer).__mro__ if base in known)
    arguments = {name: getattr(layer, name) for name in recorded(kind)} | {"dtype": layer.dtype.name}
    content = dict(zip(FIELDS, (FORMAT, __version__, kind.__name__, arguments)))
    with whole(path) as file:
        file.write(to_bytes(layer.state_dict(), {KEY: json.dumps(content, allow_nan=False)}))


def load(path: PathLike) -> Layer:
    """Read a layer that `Layer.save` wrote, in this version or an earlier one.

    Raises
    ------
    TypeError
        If it is not a path.
    OSError
        If the file can't be read.
    ValueError
        If it is not such a file, is broken, or was written by a version that is too new; the message tells which.
    """
    name = check_path(path)
    found = regular_file(name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    with open(name, "rb") as file:
        try:
            return read(file, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"path: {name!r} {shorten(error)}") from None


def read(file: BinaryIO, size: int) -> Layer:
    """Read a layer from a file of this size, the weights last."""
    header = tensor_file.read_header(file, size)
    if KEY not in header.metadata:
        raise ValueError(
            f"was not written by rnnkern: its metadata has no {KEY!r}. "
            "Read it with safetensors, and give the weights to load_state_dict of a layer"
        )
    kind, arguments, remark = understand(header.metadata[KEY])
    tensors = tensor_file.check_tensors(header, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer: Layer = kind(**arguments, _weights={name: tensor.placeholder() for name, tensor in tensors.items()})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"does not describe a layer: {shorten(error)}{remark}") from None
    if mixed := [name for name, tensor in tensors.items() if tensor.dtype != layer.dtype]:
        raise ValueError(f"does not describe a layer: {mixed[0]}: expected {layer.dtype}{remark}")
    tensor_file.read_into(file, header, tensors, layer.weights)
    return layer


def understand(described: str) -> tuple[type[Any], dict[str, Any], str]:
    """The class and the arguments that a file names, and a remark on its version, if that is another, for messages."""
    try:
        content = tensor_file.parse(described)
    except ValueError as error:
        raise ValueError(f"has broken metadata: {error}") from None
    number, version = content.get("format", 0), content.get("version", "")
    if type(number) is not int or number < 0 or not isinstance(version, str):
        raise ValueError("has broken metadata: expected a number as its format and a text as its version")
    writer = f"was written by rnnkern {shorten(version or '(of no version)', 40)}"
    reader = f"this is rnnkern {__version__}"
    if number > FORMAT:
        newer = f"{writer} in format {shorten(number, 40)}"
        raise ValueError(f"{newer}; {reader}, which reads formats up to {FORMAT}: upgrade rnnkern")
    remark = f" (it {writer}; {reader})" if version not in ("", __version__) else ""
    name, arguments = content.get("class"), content.get("arguments")
    kind = kinds().get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(arguments, dict):
        raise ValueError(f"does not describe a layer: expected one of {', '.join(kinds())} and its arguments{remark}")
    if unknown := [*(content.keys() - {*FIELDS}), *(arguments.keys() - {*recorded(kind)})]:
        raise ValueError(f"does not describe a layer: unexpected {shorten(', '.join(sorted(unknown)))}{remark}")
    return kind, arguments, remark


def kinds() -> dict[str, type[Any]]:
    """The classes of layers by name."""
    from . import layer, layers

    classes = [value for value in vars(layers).values() if isinstance(value, type) and issubclass(value, layer.Layer)]
    return {kind.__name__: kind for kind in classes if kind is not layer.Layer}


def recorded(kind: type[Any]) -> list[str]:
    """The arguments of a class that a file has, by name: all that make a difference once there are weights."""
    return [name for name in inspect.signature(kind).parameters if name != "seed" and not name.startswith("_")]


def shorten(text: object, most: int = 1000) -> str:
    """Of what a file may have made as long as it likes."""
    shown = str(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
