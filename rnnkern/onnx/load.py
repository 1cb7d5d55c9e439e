"""A recurrent node of a model as a layer, with the weights that the model computes from its constants."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from .. import options
from ..files import check_path, regular_file
from ..frozen import FrozenLayer
from ..layer import Layer
from ..spec import Array
from .nodes import GATES, Kind, make_layer
from .reversed import Reversed

WEIGHTS = {1: "W", 2: "R", 3: "B", 7: "P"}
"""Inputs of a recurrent node that belong to a layer, by position; the others are what it is called with."""

MOST_INPUTS = 8
DEEPEST = 32
"""Subgraphs within each other; a file has no more, because protobuf has 100 messages within each other at most."""

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
        If the model or its external data can't be parsed, there is no such node or more than one (naming the
        candidates), a weight depends on an input of the model (naming it), onnx's reference evaluator can't compute it,
        or a weight or an attribute is not the standard's.
    """
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node: expected the name of a node or None, got {type(node).__name__}")
    frozen = options.check_bool("frozen", frozen)
    proto = read(model)
    chosen, scopes = choose([(n, s) for n, s in walk(proto.graph) if is_recurrent(n)], node)
    wanted = {WEIGHTS[i]: name for i, name in enumerate(chosen.input) if name and i in WEIGHTS}
    if len(chosen.input) > MOST_INPUTS:
        raise ValueError(f"{chosen.op_type}: expected at most {MOST_INPUTS} inputs, got {len(chosen.input)}")
    attributes = {attribute.name: value_of(attribute) for attribute in chosen.attribute}
    try:
        layer = make_layer(cast(Kind, chosen.op_type), attributes, **constants(wanted, scopes, proto))
    except TypeError as error:  # of what is in the model, not of our argument
        raise ValueError(str(error)) from None
    return layer.freeze() if frozen else layer


def read(model: Any) -> onnx.ModelProto:
    """The model with its external data, and with its functions put in where they are called."""
    if isinstance(model, (str, os.PathLike)):
        proto = read_file(check_path(model))
    elif isinstance(model, bytes):
        with saying("expected an ONNX model, got something else"):
            proto = onnx.load_model_from_string(model)
    elif isinstance(model, onnx.ModelProto):
        proto = model
    else:
        raise TypeError(f"model: expected a path, bytes or onnx.ModelProto, got {type(model).__name__}")
    if not proto.functions:
        return proto
    with saying("its functions can't be put in where they are called"):
        return cast(onnx.ModelProto, inline_local_functions(proto))


def read_file(path: str) -> onnx.ModelProto:
    if regular_file(path) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    with saying(f"expected an ONNX model, {path!r} is something else"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one of the formats is experimental
        proto = onnx.load(path, load_external_data=False)
    with saying(f"the external data of {path!r} can't be read"):
        try:
            load_external_data_for_model(proto, os.path.dirname(path))
        except OSError as error:
            raise ValueError(error) from error
    return proto


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Whatever onnx raises for what is in a model, as a ValueError; errors of the system and of memory pass."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"model: {what} ({type(error).__name__}: {str(error)[:500]})") from error


def walk(graph: onnx.GraphProto, around: Scopes = ()) -> Iterator[tuple[onnx.NodeProto, Scopes]]:
    """Every node of the graph and of its subgraphs, and the graphs around it."""
    if len(around) > DEEPEST:
        raise ValueError(f"model: expected subgraphs within each other {DEEPEST} deep at most, there are more")
    scopes = (*around, graph)
    for node in graph.node:
        yield node, scopes
        for subgraph in subgraphs(node):
            yield from walk(subgraph, scopes)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


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
    with saying(f"the attribute {attribute.name!r} can't be read"):
        value = onnx.helper.get_attribute_value(attribute)
        if value is None:
            raise ValueError("it has no type")
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
    sparse = {tensor.values.name for graph in scopes for tensor in graph.sparse_initializer}
    makers = {name: node for graph in scopes for node in graph.node for name in node.output}
    needed: set[str] = set()
    for purpose, name in wanted.items():
        pending = {name}
        while pending:
            name = pending.pop()
            needed.add(name)
            if name in initializers:
                if uses_external_data(initializers[name]):
                    raise ValueError(
                        f"{purpose}: expected weights in the model, {name!r} is in another file: give its path"
                    )
                continue
            if name in sparse:
                raise ValueError(f"{purpose}: expected dense weights, {name!r} is sparse")
            if name not in makers:
                raise ValueError(f"{purpose}: expected weights that are constant, they depend on the input {name!r}")
            pending |= inputs(makers[name]) - needed
    with saying("onnx can't evaluate the operators that the weights come from"):
        graph = onnx.helper.make_graph(
            [
                node for graph in scopes for node in graph.node if needed.intersection(node.output)
            ],  # sorted as they were
            "constants",
            [],
            [onnx.helper.make_empty_tensor_value_info(name) for name in wanted.values()],
            [tensor for name, tensor in initializers.items() if name in needed],
        )
        opsets = {opset.domain: opset.version for opset in model.opset_import}
        return dict(zip(wanted, ReferenceEvaluator(graph, opsets=opsets).run(list(wanted.values()), {})))


def inputs(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, also within its subgraphs."""
    read = set(node.input)
    for subgraph in subgraphs(node):
        made = {value.name for value in (*subgraph.input, *subgraph.initializer)}
        for inner in subgraph.node:
            read |= inputs(inner) - made
            made.update(inner.output)
    return read - {""}
