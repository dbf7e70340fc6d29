"""The graphs and tensors inside each other that a model is made of, as protobuf has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import onnx

__all__ = ["Body", "attributes", "bodies", "subgraphs", "tensors"]

Body: TypeAlias = onnx.GraphProto | onnx.FunctionProto
"""What has nodes."""


def bodies(proto: onnx.ModelProto) -> Iterator[Body]:
    """Yield the main graph, then every function, each followed by the graphs inside it."""
    for body in (proto.graph, *proto.functions):
        yield from _with_inner(body)


def _with_inner(body: Body) -> Iterator[Body]:
    yield body
    for graph in (graph for attribute in attributes(body) for graph in subgraphs(attribute)):
        yield from _with_inner(graph)


def attributes(body: Body) -> Iterator[onnx.AttributeProto]:
    """Yield the attributes of the nodes of a body, and the defaults of those of a function."""
    for node in body.node:
        yield from node.attribute
    if isinstance(body, onnx.FunctionProto):
        yield from body.attribute_proto


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """Return the graphs that an attribute holds."""
    return [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)


def tensors(attribute: onnx.AttributeProto) -> list[onnx.TensorProto]:
    """Return the tensors that an attribute holds itself."""
    return [attribute.t, *attribute.tensors] if attribute.HasField("t") else list(attribute.tensors)
