"""Layers in safetensors files: the weights, and the options in the metadata."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from .spec import Array

if TYPE_CHECKING:
    from .layer import Layer

KEY = "rnnkern"
PathLike = Union[str, "os.PathLike[str]"]


def write_whole(path: PathLike, data: bytes) -> None:
    """Write a file whole or not at all."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def save(layer: Layer, path: PathLike) -> None:
    """Write a layer to a file that `load` reads."""
    arguments = {"input_size": layer.input_size, "hidden_size": layer.hidden_size, **layer._arguments()}
    if "dtype" in arguments:
        arguments["dtype"] = str(arguments["dtype"])
    described = json.dumps({"class": type(layer).__name__, "arguments": arguments})
    write_whole(path, to_bytes(layer.state_dict(), {KEY: described}))


def load(path: PathLike) -> Layer:
    """Read a layer that `Layer.save` wrote.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is not such a file.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"path: no file {os.fspath(path)!r}")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            described: Any = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path: {os.fspath(path)!r} is not a safetensors file: {error}") from None
    if described is None:
        raise ValueError(f"path: {os.fspath(path)!r} was not written by rnnkern: its metadata has no {KEY!r}")
    try:
        return rebuild(described, arrays)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"path: {os.fspath(path)!r} does not describe a layer: {error}") from None


def rebuild(described: str, arrays: dict[str, Array]) -> Layer:
    """Make the layer that `save` described; the options and the arrays are checked as any user's are."""
    from . import layers

    kinds = {kind.__name__: kind for kind in (layers.RNN, layers.LSTM, layers.GRU, layers.Jordan)}
    content = json.loads(described)
    kind, arguments = kinds[content["class"]], dict(content["arguments"])
    if private := [name for name in arguments if name.startswith("_")]:
        raise ValueError(f"unexpected options {private}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**arguments, _weights=arrays)
