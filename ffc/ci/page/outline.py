"""The tree of blocks that a drawing folds by: layers, their parts, equal layers in a row, and runs of long blocks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ffc.ci.matching.blocks import blocks
from ffc.ci.matching.snapshot import Graph

__all__ = ["Block", "Outline", "outlines"]

_LONGEST = 150
"""Nodes that a block may show at once."""
_RUN = 50
_PARTS = 20
_PORTS = 8
"""Inputs or outputs of a model that are drawn one by one."""
_STACK = 3
"""Equal layers in a row that are drawn as one."""
_LAYER = re.compile(r"layer (\d+)")

Path = tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A block: its label, its parent by place or -1, and whether it stands for equal layers in a row."""

    label: str
    parent: int
    stack: bool = False


@dataclass(frozen=True)
class Outline:
    """The blocks of a graph.

    Attributes:
        blocks: Parents come before their children.
        nodes: The block of each node, or -1 for those in none.
        inputs: The block of the inputs, or -1.
        outputs: That of the outputs.
    """

    blocks: tuple[Block, ...]
    nodes: tuple[int, ...]
    inputs: int
    outputs: int


def outlines(graphs: Sequence[Graph], states: Sequence[Sequence[str]]) -> list[Outline]:
    """Return the blocks of one or two graphs that are drawn side by side, named alike.

    Layers are equal where also what became of their nodes, their states, is.
    """
    paths = [_paths(graph) for graph in graphs]
    stacks = _stacks(graphs, paths, states)
    found = []
    for graph, names in zip(graphs, paths, strict=True):
        stacked = [(stacks[path[0]], *path) if path and path[0] in stacks else path for path in names]
        found.append(_outline(graph, _cut(graph, stacked), set(stacks.values())))
    return found


def _paths(graph: Graph) -> list[Path]:
    """Return the block of each node as a path; one block that is the whole graph needs no frame."""
    return [() if name == "graph" else tuple(name.split("/")) for name in blocks(graph)]


def _stacks(
    graphs: Sequence[Graph], paths: Sequence[Sequence[Path]], states: Sequence[Sequence[str]]
) -> Mapping[str, str]:
    """Return for each layer that has equal neighbours, in all graphs at once, the name of them together."""
    contents: dict[int, Counter[tuple[object, ...]]] = defaultdict(Counter)
    for side, graph in enumerate(graphs):
        for node, path, state in zip(graph.nodes, paths[side], states[side], strict=True):
            layer = _LAYER.fullmatch(path[0]) if path else None
            if layer:
                contents[int(layer[1])][side, path[1:], node.op, state] += 1
    found = {}
    for run in _runs(contents):
        if len(run) >= _STACK:
            found.update({f"layer {number}": f"layers {run[0]}–{run[-1]}" for number in run})
    return found


def _runs(contents: Mapping[int, object]) -> Iterator[list[int]]:
    """Yield the numbers of layers, those of equal neighbours together."""
    run: list[int] = []
    for number in sorted(contents):
        if run and (number != run[-1] + 1 or contents[number] != contents[run[-1]]):
            yield run
            run = []
        run.append(number)
    yield run


def _cut(graph: Graph, paths: Sequence[Path]) -> list[Path]:
    """Cut blocks of too many nodes into runs in canonical order, and long runs again."""
    members: dict[Path, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        members[path].append(index)
    found = list(paths)
    pending = list(members.values())
    while pending:
        nodes = pending.pop()
        if len(nodes) <= _LONGEST:
            continue
        parts = min(_PARTS, -(-len(nodes) // _RUN))
        size = -(-len(nodes) // parts)
        for start in range(0, len(nodes), size):
            part = nodes[start : start + size]
            label = _run_label(graph, part)
            for index in part:
                found[index] = (*found[index], label)
            pending.append(part)
    return found


def _run_label(graph: Graph, nodes: Sequence[int]) -> str:
    """Name a run by its places, and by the scope that the names of its nodes share."""
    names = [graph.nodes[index].name for index in nodes if graph.nodes[index].name]
    first, last = min(names, default=""), max(names, default="")
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    scope = re.sub(r"[^/.]*$", "", first[:length]).strip("/.")
    return f"nodes {nodes[0]}–{nodes[-1]}{': ' if scope else ''}{scope}"


def _outline(graph: Graph, paths: Sequence[Path], stacks: set[str]) -> Outline:
    table: list[Block] = []
    places: dict[Path, int] = {(): -1}

    def place(path: Path) -> int:
        if path not in places:
            parent = place(path[:-1])
            places[path] = len(table)
            table.append(Block(path[-1], parent, len(path) == 1 and path[0] in stacks))
        return places[path]

    nodes = tuple(place(path) for path in paths)
    inputs = place(("inputs of the model",)) if len(graph.inputs) > _PORTS else -1
    outputs = place(("outputs of the model",)) if len(graph.outputs) > _PORTS else -1
    return Outline(tuple(table), nodes, inputs, outputs)
