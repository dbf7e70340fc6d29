"""The order in which a graph is read: depth first from its outputs, whatever the order and the names in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

__all__ = ["captured", "operands_of", "ordered", "subgraphs", "trimmed"]


def ordered(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that the outputs need, depth first, operands in order. Not recursive: encoders are deep."""
    order: list[ir.Node] = []
    entered: set[ir.Node] = set()
    for output in graph.outputs:
        stack = _enter(output, graph, entered)
        while stack:
            node, operands = stack[-1]
            value = next(operands, None)
            if value is None:
                order.append(node)
                stack.pop()
            else:
                stack += _enter(value, graph, entered)
    return order


def _enter(value: ir.Value, graph: ir.Graph, entered: set[ir.Node]) -> list[tuple[ir.Node, Iterator[ir.Value]]]:
    node = value.producer()
    if node is None or node.graph is not graph or node in entered:
        return []
    entered.add(node)
    return [(node, iter(operands_of(node)))]


def operands_of(node: ir.Node) -> list[ir.Value]:
    """Return the values a node reads: its inputs, then what its subgraphs take from around them."""
    inner = [value for graph in subgraphs(node) for value in captured(graph)]
    return [*(value for value in node.inputs if value is not None), *inner]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that stand inside a node, attributes ordered by name."""
    for _, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured(graph: ir.Graph) -> list[ir.Value]:
    """Return the values that a subgraph takes from around it, in the order in which it reads them, with repeats."""
    values = [value for node in ordered(graph) for value in operands_of(node)] + list(graph.outputs)
    producers = [(value, value.producer()) for value in values]
    return [value for value, producer in producers if producer is not None and producer.graph is not graph]


def trimmed(values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Drop omitted inputs at the end: leaving them out means the same."""
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept
