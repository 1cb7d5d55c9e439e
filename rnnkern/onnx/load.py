"""A recurrent node of a model as a layer, with the weights that the model computes from its constants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import onnx
from google.protobuf.message import DecodeError
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from ..frozen import FrozenLayer
from ..layer import Layer
from ..spec import Array
from .nodes import GATES, Kind, make_layer
from .reversed import Reversed

WEIGHTS = {1: "W", 2: "R", 3: "B", 7: "P"}
"""Inputs of a recurrent node that belong to a layer, by position; the others are what it is called with."""

Scopes = tuple[onnx.GraphProto, ...]
"""The graphs around a node, the outermost first."""


def load(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto, node: str | None = None, frozen: bool = True
) -> Layer | FrozenLayer | Reversed:
    """Make a layer from a recurrent node of a model.

    Weights may be initializers, constants, or computed from those, in the node's graph or in one around it. Initial
    states and sequence_lens are not the layer's: pass them to its calls.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    node : str, optional
        The name of an RNN, LSTM or GRU node, or of one of its outputs, in the model's graph or a subgraph (of If, Loop,
        Scan) or function of it; None: the only one.
    frozen : bool
        Return the layer frozen, for inference; else live, for training.

    Returns
    -------
    FrozenLayer, or Layer
        With all options of the node: direction, activations, clip (as in onnxruntime, of pre-activations only, not of
        c), peepholes, coupled gates; layout 1 is `batch_first`.
    Reversed
        Around one of them, where the node's direction is "reverse".

    Raises
    ------
    TypeError
        For another kind of argument.
    OSError
        If the file can't be read.
    ValueError
        If the model can't be parsed, there is no such node or more than one (naming the candidates), a weight
        depends on an input of the model (naming it), or onnx's reference evaluator lacks an operator on its way.
    """
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node: expected the name of a node or None, got {type(node).__name__}")
    proto = read(model)
    chosen, scopes = choose([(n, s) for n, s in walk(proto.graph) if is_recurrent(n)], node)
    layer = make_layer(
        cast(Kind, chosen.op_type),
        {attribute.name: value_of(attribute) for attribute in chosen.attribute},
        **constants({WEIGHTS[i]: name for i, name in enumerate(chosen.input) if name and i in WEIGHTS}, scopes, proto),
    )
    return layer.freeze() if frozen else layer


def read(model: Any) -> onnx.ModelProto:
    """The model, with its functions put in where they are called."""
    try:
        if isinstance(model, (str, os.PathLike)):
            model = onnx.load(model)
        elif isinstance(model, bytes):
            model = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ValueError(f"model: expected an ONNX model, got something else ({error})") from error
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model: expected a path, bytes or onnx.ModelProto, got {type(model).__name__}")
    return inline_local_functions(model) if model.functions else model


def walk(graph: onnx.GraphProto, around: Scopes = ()) -> Iterator[tuple[onnx.NodeProto, Scopes]]:
    """Every node of the graph and of its subgraphs, and the graphs around it."""
    scopes = (*around, graph)
    for node in graph.node:
        yield node, scopes
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from walk(subgraph, scopes)


def is_recurrent(node: onnx.NodeProto) -> bool:
    return node.op_type in GATES and node.domain in ("", "ai.onnx")


def label(node: onnx.NodeProto) -> str:
    """How a user names the node."""
    return f"{node.op_type} {node.name or next(filter(None, node.output), '')!r}"


def choose(found: list[tuple[onnx.NodeProto, Scopes]], name: str | None) -> tuple[onnx.NodeProto, Scopes]:
    """The only one of the nodes, or the only one of this name."""
    fits = [(node, scopes) for node, scopes in found if name is None or name in filter(None, (node.name, *node.output))]
    if len(fits) == 1:
        return fits[0]
    wanted = "a single RNN, LSTM or GRU" if name is None else f"a single RNN, LSTM or GRU of the name {name!r}"
    there = "; ".join(label(node) for node, _ in fits or found) or "none"
    raise ValueError(f"node: expected {wanted} in the model, there is {there}")


def value_of(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return [v.decode() if isinstance(v, bytes) else v for v in value] if attribute.strings else value


def constants(wanted: dict[str, str], scopes: Scopes, model: onnx.ModelProto) -> dict[str, Array]:
    """Evaluate what the innermost graph sees under some names.

    Parameters
    ----------
    wanted : dict
        What it is for, and the name.

    Raises
    ------
    ValueError
        If one depends on anything but constants.
    """
    initializers = {tensor.name: tensor for graph in scopes for tensor in graph.initializer}
    makers = {name: node for graph in scopes for node in graph.node for name in node.output}
    needed: set[str] = set()
    for purpose, name in wanted.items():
        pending = {name}
        while pending:
            name = pending.pop()
            needed.add(name)
            if name in initializers:
                continue
            if name not in makers:
                raise ValueError(f"{purpose}: expected weights that are constant, they depend on the input {name!r}")
            pending |= inputs(makers[name]) - needed
    graph = onnx.helper.make_graph(
        [node for graph in scopes for node in graph.node if needed.intersection(node.output)],  # sorted as they were
        "constants",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in wanted.values()],
        [tensor for name, tensor in initializers.items() if name in needed],
    )
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    try:
        return dict(zip(wanted, ReferenceEvaluator(graph, opsets=opsets).run(list(wanted.values()), {})))
    except RuntimeError as error:  # also what isn't implemented
        raise ValueError(f"model: onnx can't evaluate the operators that the weights come from: {error}") from error


def inputs(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, also within its subgraphs."""
    read = set(node.input)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            made = {value.name for value in (*subgraph.input, *subgraph.initializer)}
            for inner in subgraph.node:
                read |= inputs(inner) - made
                made.update(inner.output)
    return read - {""}
