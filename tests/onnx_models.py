"""Models of the standard around one recurrent node."""

from __future__ import annotations

import numpy as np
import onnx

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")
CALLED_WITH = ("X", "sequence_lens", "initial_h", "initial_c")
"""The inputs that are not weights."""


def value_info(name, dtype):
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)


def make_node(kind, inputs, outputs=None, **attributes):
    """The node with those of INPUTS that there are, and its outputs under their own names, "" for those not wanted."""
    names = [name if name in inputs else "" for name in INPUTS[: 8 if kind == "LSTM" else 6]]
    while not names[-1]:
        names.pop()
    outputs = outputs or OUTPUTS[: 3 if kind == "LSTM" else 2]
    return onnx.helper.make_node(kind, names, outputs, name=kind.lower(), **attributes)


def make_model(nodes, feeds, outputs, initializers, dtype=np.float32, opset=14, functions=(), **domains):
    """A model that is fed with `feeds` and has `initializers`, dictionaries of arrays by name."""
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [value_info(name, np.asarray(array).dtype) for name, array in feeds.items()],
        [value_info(name, dtype) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in {"": opset, **domains}.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def recurrent_model(kind, arrays, outputs=None, **attributes):
    """A model of one node with the weights among `arrays` as initializers, fed with the others."""
    node = make_node(kind, arrays, outputs, **attributes)
    feeds = {name: array for name, array in arrays.items() if name in CALLED_WITH}
    weights = {name: array for name, array in arrays.items() if name not in CALLED_WITH}
    return make_model([node], feeds, filter(None, node.output), weights, arrays["X"].dtype), feeds


def run_onnxruntime(model, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
