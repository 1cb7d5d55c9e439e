"""ONNX: the standard's recurrent operators on rnnkern's kernels, and layers from the nodes of a model.

`new_ops` is for ``onnx.reference.ReferenceEvaluator(model, new_ops=rnnkern.onnx.new_ops)``, `load` makes a layer.
"""

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'rnnkern.onnx needs the package onnx: pip install "rnnkern[onnx]" ({error})') from error

from .load import load
from .ops import new_ops
from .reversed import Reversed

__all__ = ["Reversed", "load", "new_ops"]
