"""Disguises: the same model under other names, in another order, with constants told in another way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.ci.facts import contents, is_constant


def disguise(model: ir.Model, rng: np.random.Generator) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy that means the same under other names and in another order.

    Nodes, inner values and initializers get random names, nodes another topological order, initializers any; a
    quarter of the initializers become Constant nodes and a quarter of those initializers; metadata go. Inputs and
    outputs keep their names, functions stay as they are. Nodes must not have subgraphs.

    Returns: The copy, and the old name of each node by its new one, for those that were nodes before and still are.
    """
    copy = model.clone()
    graph = copy.graph
    names = {node: node.name or "" for node in graph}
    for value in list(graph.initializers.values()):
        if rng.integers(4) == 0 and not value.is_graph_input() and not value.is_graph_output():
            _to_constant(graph, value)
    for node in [node for node in names if is_constant(node) and not node.outputs[0].is_graph_output()]:
        if rng.integers(4) == 0:
            _to_initializer(graph, node)
    order = _random_order(graph, rng)
    graph.remove(order)
    graph.extend(order)
    _rename(graph, rng)
    return copy, {node.name or "": names[node] for node in graph if node in names}


def _to_constant(graph: ir.Graph, value: ir.Value) -> None:
    array = contents(value)
    assert array is not None
    node = ir.node("Constant", [], {"value": ir.Tensor(array)}, name="constant")
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = value.name, value.type, value.shape
    del graph.initializers[value.name or ""]
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _to_initializer(graph: ir.Graph, node: ir.Node) -> None:
    out, array = node.outputs[0], contents(node.outputs[0])
    assert array is not None
    tensor = ir.Tensor(array, name=out.name)
    value = ir.Value(name=out.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    out.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)


def _random_order(graph: ir.Graph, rng: np.random.Generator) -> list[ir.Node]:
    waiting = {node: sum(value is not None and value.producer() is not None for value in node.inputs) for node in graph}
    ready = [node for node, count in waiting.items() if count == 0]
    order = []
    while ready:
        node = ready.pop(int(rng.integers(len(ready))))
        order.append(node)
        for use in (use for value in node.outputs for use in value.uses()):
            waiting[use.node] -= 1
            if waiting[use.node] == 0:
                ready.append(use.node)
    return order


def _rename(graph: ir.Graph, rng: np.random.Generator) -> None:
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    for node, number in zip(graph, rng.permutation(len(graph)), strict=True):
        node.name, node.doc_string = f"node_{number}", None
        node.metadata_props.clear()
    inner = [*weights, *(value for node in graph for value in node.outputs if value.name)]
    for value, number in zip(inner, rng.permutation(len(inner)), strict=True):
        value.metadata_props.clear()
        if value.const_value is not None:  # naming a value names its tensor, which the original shares
            value.const_value = ir.Tensor(value.const_value.numpy(), value.const_value.dtype)
        if not value.is_graph_input() and not value.is_graph_output():
            value.name = f"value_{number}"
    for index in rng.permutation(len(weights)):
        graph.register_initializer(weights[int(index)])
