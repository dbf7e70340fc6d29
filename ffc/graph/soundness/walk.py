"""The graphs and tensors inside each other that a model is made of, as protobuf has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import onnx

__all__ = ["Body", "bodies", "subgraphs", "tensors"]

Body: TypeAlias = onnx.GraphProto | onnx.FunctionProto
"""What has nodes."""


def bodies(proto: onnx.ModelProto) -> Iterator[Body]:
    """Yield the main graph, then every function, each followed by the graphs inside its nodes."""
    for body in (proto.graph, *proto.functions):
        yield body
        yield from _inside(body.node)


def _inside(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for graph in (graph for node in nodes for attribute in node.attribute for graph in subgraphs(attribute)):
        yield graph
        yield from _inside(graph.node)


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """Return the graphs that an attribute holds."""
    return [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)


def tensors(attribute: onnx.AttributeProto) -> list[onnx.TensorProto]:
    """Return the tensors that an attribute holds itself."""
    return [attribute.t, *attribute.tensors] if attribute.HasField("t") else list(attribute.tensors)
