"""Whether calls of model-local functions are sound, and how far they expand, counted before anything expands them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from ffc import limits
from ffc.errors import InputError
from ffc.graph.soundness.walk import subgraphs

__all__ = ["check_calls"]

_Identifier = tuple[str, str, str]


@dataclass(frozen=True)
class _Size:
    """How many nodes some nodes expand to, and how many calls and subgraphs stand inside each other."""

    nodes: int
    height: int


def check_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Check how many nodes and functions a model has; a few hundred bytes can ask for 10^8 nodes.

    Raises:
        InputError: If functions call themselves, a call lacks an input, or a count is beyond its limit.
    """
    most = limits.active()
    where = f"cannot load {path}"
    if len(proto.functions) > most.functions:
        found = f"{len(proto.functions)} functions, over the limit 'functions' of {most.functions}"
        raise InputError(f"{where}: it has {found}; inline them, or raise the limit")
    count = _Count({(each.domain, each.name, each.overload): each for each in proto.functions}, most.depth, where)
    bodies = [proto.graph.node, *(each.node for each in proto.functions)]  # those that nothing calls too
    total = max(count.expanded(nodes, 0).nodes for nodes in bodies)
    if total > most.nodes:
        found = f"{total} nodes, calls of functions expanded, over the limit 'nodes' of {most.nodes}"
        raise InputError(f"{where}: it has {found}; simplify it, or raise the limit")


@dataclass(frozen=True)
class _Count:
    """Counts nodes; each function body is walked once."""

    functions: dict[_Identifier, onnx.FunctionProto]
    depth: int
    where: str
    known: dict[_Identifier, _Size] = field(default_factory=dict)

    def expanded(self, nodes: Sequence[onnx.NodeProto], depth: int) -> _Size:
        """Return what `nodes`, which stand inside `depth` calls and subgraphs, expand to."""
        if depth > self.depth:
            raise self._too_deep()
        total, height = len(nodes), 0
        for size in (inner for node in nodes for inner in self._inside(node, depth + 1)):
            total, height = total + size.nodes, max(height, size.height + 1)
        if depth + height > self.depth:
            raise self._too_deep()
        return _Size(total, height)

    def _inside(self, node: onnx.NodeProto, depth: int) -> Iterator[_Size]:
        key = (node.domain, node.op_type, node.overload)
        if key in self.functions:
            self._check_inputs(node, self.functions[key])
            if key not in self.known:
                self.known[key] = self.expanded(self.functions[key].node, depth)
            yield self.known[key]
        for attribute in node.attribute:
            yield from (self.expanded(graph.node, depth) for graph in subgraphs(attribute))

    def _check_inputs(self, node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
        """Refuse a call without all inputs: onnxruntime 1.32 dies of a segmentation fault on it."""
        given = sum(1 for name in node.input if name)
        if given < len(function.input):
            what = f"{node.domain}.{node.op_type} is called with {given} of its {len(function.input)} inputs"
            raise InputError(f"{self.where}: {what} at {node.name or 'a node without name'}; inline it, or give all")

    def _too_deep(self) -> InputError:
        return InputError(
            f"{self.where}: functions call themselves or nest deeper than {self.depth}, the limit 'depth'; inline them"
        )
