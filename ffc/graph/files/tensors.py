"""The tensors of a model in memory, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TypeAlias

import onnx_ir as ir

__all__ = ["Tensor", "initializers", "replace_tensors"]

Tensor: TypeAlias = ir.TensorProtocol


def replace_tensors(model: ir.Model, change: Callable[[Tensor], Tensor]) -> None:
    """Apply `change` to each tensor of initializers, attributes and defaults, subgraphs and functions included."""
    for value in initializers(model):
        if value.const_value is not None:
            value.const_value = change(value.const_value)
    for node in (node for graph in _graphs(model) for node in graph):
        _replace(node.attributes, change)
    for function in model.functions.values():
        _replace(function.attributes, change)


def _replace(attributes: MutableMapping[str, ir.Attr], change: Callable[[Tensor], Tensor]) -> None:
    for name, attribute in [(name, each) for name, each in attributes.items() if each.value is not None]:
        if attribute.type == ir.AttributeType.TENSOR:
            attributes[name] = ir.AttrTensor(name, change(attribute.as_tensor()))
        elif attribute.type == ir.AttributeType.TENSORS:
            attributes[name] = ir.AttrTensors(name, [change(tensor) for tensor in attribute.as_tensors()])


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the initializers of a model, subgraphs and functions included."""
    return (value for graph in _graphs(model) for value in graph.initializers.values())


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield all graphs of a model: its own, those of functions, and subgraphs of either."""
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        yield graph
        yield from graph.subgraphs()
