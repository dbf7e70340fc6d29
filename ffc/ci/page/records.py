"""What the page draws, as plain data for JSON: graphs, weights, changes and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from ffc.ci.diff.changes import Change
from ffc.ci.diff.compare import counted
from ffc.ci.diff.diff import Diff
from ffc.ci.diff.groups import Group, groups
from ffc.ci.matching.snapshot import Graph, Node, Operand, Snapshot, Source, Weight
from ffc.ci.page.histogram import spread
from ffc.ci.page.outline import Outline, outlines
from ffc.graph.cost import Cost

__all__ = ["of_diff", "of_snapshot"]

_LONGEST_TEXT = 400
_MOST_LISTED = 60
_MOST_PLACES = 2_000

_Record = dict[str, object]
_Pair = tuple[Snapshot, Snapshot]


def of_diff(found: Diff) -> _Record:
    """Return what a page on two models draws."""
    models = (found.before, found.after)
    states = [_states(found.changes, models, partners, side) for side, partners in enumerate(found.matching.partners)]
    drawn = outlines([model.graph for model in models], states)
    return {
        "models": [_model(*each) for each in zip(models, found.costs, drawn, states, strict=True)],
        "partners": list(found.matching.forward),
        "inputs": list(found.matching.inputs),
        "groups": [_group(group, models) for group in groups(found.changes)],
    }


def _states(changes: Sequence[Change], models: _Pair, partners: Sequence[int], side: int) -> list[str]:
    """Say of each node of one side what became of it, nothing where that is nothing."""
    gone = ("removed", "inserted")[side]
    touched = {index for change in changes for index in _drawn(change, models)[side]}
    return [gone if partner < 0 else "changed" if index in touched else "" for index, partner in enumerate(partners)]


def _drawn(change: Change, models: _Pair) -> tuple[Sequence[int], Sequence[int]]:
    """Return the nodes of the main graphs that a change concerns: of one inside a function the calls of that."""
    if not any(change.scope in model.functions for model in models):
        return change.before, change.after
    call = change.scope.replace(":", ".")
    before, after = ([at for at, node in enumerate(model.graph.nodes) if node.op == call] for model in models)
    return before, after


def of_snapshot(snapshot: Snapshot, cost: Cost) -> _Record:
    """Return what a page on one model draws."""
    states = [""] * len(snapshot.graph.nodes)
    (outline,) = outlines([snapshot.graph], [states])
    return {"models": [_model(snapshot, cost, outline, states)], "partners": [], "inputs": [], "groups": []}


def _model(snapshot: Snapshot, cost: Cost, outline: Outline, states: Sequence[str]) -> _Record:
    weights = _Weights()
    graph = snapshot.graph
    nodes = [
        [*_node(node, weights), block, state]
        for node, block, state in zip(graph.nodes, outline.nodes, states, strict=True)
    ]
    return {
        "name": snapshot.name,
        "cost": list(astuple(cost)),
        "opsets": {domain or "ai.onnx": version for domain, version in snapshot.opsets.items()},
        "inputs": [[port.name, port.type, _cut(port.default)] for port in graph.inputs],
        "outputs": [[port.name, port.type, weights.operand(operand)] for port, operand in graph.outputs],
        "nodes": nodes,
        "blocks": [[block.label, block.parent, int(block.stack)] for block in outline.blocks],
        "ports": [outline.inputs, outline.outputs],
        "functions": {name.replace(":", "."): _body(each.graph) for name, each in snapshot.functions.items()},
        "weights": [_weight(weight) for weight in weights.found],
    }


class _Weights:
    """Gives the weights of a graph numbers, each once."""

    def __init__(self) -> None:
        self.found: list[Weight] = []
        self.places: dict[int, int] = {}

    def operand(self, operand: Operand) -> object:
        """Return an operand: the number of a weight, node and output of a value, or None."""
        if isinstance(operand, Source):
            return [operand.node, operand.index]
        if operand is None:
            return None
        if id(operand) not in self.places:
            self.places[id(operand)] = len(self.found)
            self.found.append(operand)
        return self.places[id(operand)]


def _node(node: Node, weights: _Weights) -> list[object]:
    return [
        node.op,
        node.name,
        {name: _cut(text) for name, text in node.attributes.items()},
        [weights.operand(operand) for operand in node.operands],
        list(node.outputs),
        node.by,
        {name: _body(graph) for name, graph in node.graphs.items()},
    ]


def _body(graph: Graph) -> str:
    """Say what a function or a subgraph holds, which is not drawn."""
    return _cut(f"{len(graph.nodes)} nodes: {counted(graph.nodes)}")


def _weight(weight: Weight) -> list[object]:
    data = {} if weight.tensor is None else spread(weight.tensor)
    hashed = weight.tensor is None or weight.is_large
    return [weight.type, weight.name, weight.content[:8] if hashed else _cut(weight.content), weight.size, data]


def _group(group: Group, models: _Pair) -> _Record:
    return {
        "kind": group.kind,
        "what": group.what,
        "by": group.by,
        "where": group.where,
        "count": group.count,
        "places": [_place(change, *_drawn(change, models)) for change in group.changes[:_MOST_PLACES]],
    }


def _place(change: Change, before: Sequence[int], after: Sequence[int]) -> _Record:
    return {
        "where": change.where,
        "scope": change.scope,
        "before": list(before),
        "after": list(after),
        "detail": {name: _shown(value) for name, value in change.detail.items()},
    }


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return _cut(", ".join(f"{key}: {_shown(each)}" for key, each in value.items()))
    if isinstance(value, list | tuple):
        more = f" and {len(value) - _MOST_LISTED} more" if len(value) > _MOST_LISTED else ""
        return ", ".join(_shown(each) for each in value[:_MOST_LISTED]) + more
    return f"{value:.6g}" if isinstance(value, float) else _cut(str(value))


def _cut(text: str) -> str:
    """Shorten a text and say so."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
