"""Nodes that have no partner, gathered into the places where the graph was changed.

Each belongs to what it flows to first: the matched nodes, weights with a history and outputs that lie next downstream.
Nodes before and after that flow to the same belong to one place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ffc.ci.matching.growth import Matching
from ffc.ci.matching.lineage import links
from ffc.ci.matching.snapshot import Graph

__all__ = ["Region", "regions"]


@dataclass(frozen=True)
class Region:
    """A place where nodes came, went, or were replaced: those before and those after, in canonical order."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def regions(matching: Matching) -> list[Region]:
    """Return the places at which nodes have no partner, in canonical order."""
    groups = _Sets()
    for was, now in links(matching):
        groups.join((0, was), (1, now))
    anchors: list[dict[int, Hashable]] = [{}, {}]
    for side, partners in enumerate(matching.partners):
        for index, partner in enumerate(partners):
            if partner >= 0:
                anchors[side][index] = ("matched", index if side == 0 else partner)
            elif (side, index) in groups:
                anchors[side][index] = ("weight", groups.root((side, index)))
    before = _parts(matching.before, matching.forward, anchors[0])
    after = _parts(matching.after, matching.backward, anchors[1])
    found: list[Region] = []
    for key, nodes in before.items():
        if key in after:
            found.append(Region(tuple(nodes), tuple(after[key])))
        else:
            found += [Region(tuple(part), ()) for part in _connected(matching.before, nodes)]
    for key, nodes in after.items():
        if key not in before:
            found += [Region((), tuple(part)) for part in _connected(matching.after, nodes)]
    return sorted(found, key=lambda region: _place(region, matching))


def _parts(graph: Graph, partners: Sequence[int], anchors: Mapping[int, Hashable]) -> dict[Hashable, list[int]]:
    """Return the unmatched nodes of a graph by what they flow to first."""
    labels: dict[int, frozenset[Hashable]] = {}
    found: dict[Hashable, list[int]] = defaultdict(list)
    interned: dict[frozenset[Hashable], frozenset[Hashable]] = {}
    for index in reversed(range(len(graph.nodes))):
        if partners[index] >= 0:
            continue
        if index in anchors:
            label = frozenset([anchors[index]])
        else:
            reached: set[Hashable] = {("output", graph.outputs[place][0].name) for place in graph.given[index]}
            for reader, _, _ in graph.consumers[index]:
                reached |= {anchors[reader]} if reader in anchors else labels[reader]
            label = frozenset(reached)
        labels[index] = interned.setdefault(label, label)
        found[labels[index]].append(index)
    return {label: nodes[::-1] for label, nodes in found.items()}


def _connected(graph: Graph, nodes: Sequence[int]) -> list[list[int]]:
    """Part nodes into those that hang together."""
    sets = _Sets()
    for node in nodes:
        sets.join(node, node)
    for node in nodes:
        for source in graph.nodes[node].sources:
            if source in sets:
                sets.join(node, source)
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for node in nodes:
        parts[sets.root(node)].append(node)
    return list(parts.values())


def _place(region: Region, matching: Matching) -> tuple[int, int]:
    """Say where in the graph before a region lies; what is new lies where what it reads does."""
    if region.before:
        return region.before[0], 0
    waiting = [region.after[0]]
    while waiting:
        sources = matching.after.nodes[waiting.pop()].sources
        known = [matching.backward[node] for node in sources if matching.backward[node] >= 0]
        if known:
            return max(known), 1
        waiting += sources[:1]
    return -1, region.after[0]


class _Sets:
    """Sets that are joined pair by pair."""

    def __init__(self) -> None:
        self._parents: dict[Hashable, Hashable] = {}

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._parents

    def root(self, thing: Hashable) -> Hashable:
        while self._parents[thing] != thing:
            self._parents[thing] = self._parents[self._parents[thing]]
            thing = self._parents[thing]
        return thing

    def join(self, one: Hashable, other: Hashable) -> None:
        for each in (one, other):
            self._parents.setdefault(each, each)
        self._parents[self.root(other)] = self.root(one)
