"""The tensors of a model in memory, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import onnx_ir as ir

__all__ = ["Tensor", "graphs", "replace_tensors"]

Tensor: TypeAlias = ir.TensorProtocol


def replace_tensors(model: ir.Model, change: Callable[[Tensor], Tensor]) -> None:
    """Apply `change` to each tensor of initializers and attributes, subgraphs and functions included."""
    for graph in graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = change(value.const_value)
        for node in graph:
            for attribute in [each for each in node.attributes.values() if not each.is_ref()]:
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, change(attribute.as_tensor()))
                elif attribute.type == ir.AttributeType.TENSORS:
                    changed = [change(tensor) for tensor in attribute.as_tensors()]
                    node.attributes[attribute.name] = ir.AttrTensors(attribute.name, changed)


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield all graphs of a model: its own, those of functions, and subgraphs of either."""
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        yield graph
        yield from graph.subgraphs()
