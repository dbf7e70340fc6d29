"""Branches that are decided: an If whose condition is constant is the branch that it takes."""

from __future__ import annotations

import onnx_ir as ir

from ffc import Editor, constant

__all__ = ["take_decided"]


def take_decided(model: ir.Model) -> int:
    """Put the branch that each If of a constant condition takes in its place; return how many there were."""
    decided = [node for node in model.graph if _is_decided(node)]
    if decided:
        names = Editor(model)
        for node in decided:
            _take(node, model.graph, names)
    return len(decided)


def _is_decided(node: ir.Node) -> bool:
    return node.op_type == "If" and not node.domain and constant(node.inputs[0]) is not None


def _take(node: ir.Node, graph: ir.Graph, names: Editor) -> None:
    condition = constant(node.inputs[0])
    assert condition is not None
    branch = node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()
    results = list(branch.outputs)
    branch.outputs.clear()
    weights = list(branch.initializers.values())
    branch.initializers.clear()
    for weight in weights:
        weight.name = names.unique(f"{node.outputs[0].name}/{weight.name}")
        graph.register_initializer(weight)
    nodes = list(branch)
    branch.remove(nodes)
    for value in (value for each in nodes for value in each.outputs):
        value.name = names.unique(f"{node.outputs[0].name}/{value.name}")
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        _replace(old, new)
    graph.remove(node, safe=True)


def _replace(old: ir.Value, new: ir.Value) -> None:
    is_result = old.is_graph_output()
    new.type = new.type or old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=is_result)
    if is_result:
        old.name, new.name, new.shape = None, old.name, old.shape
