"""The nodes of two graphs paired: grown from the evidence, then improved where another choice means fewer changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ffc.ci.matching.growth import Matcher, Matching, paired_inputs
from ffc.ci.matching.improving import improve
from ffc.ci.matching.regions import regions
from ffc.ci.matching.snapshot import Graph, Node, Source, Weight

__all__ = ["pair"]

_ROUNDS = 4


def pair(before: Graph, after: Graph, inputs: Sequence[int] | None = None) -> Matching:
    """Match the nodes of two graphs.

    `inputs` has for each input of `before` the one of `after`, or -1; by default by name, and then by place and type.
    """
    paired = paired_inputs(before, after) if inputs is None else inputs
    matching = Matching(before, after, paired, [-1] * len(before.nodes), [-1] * len(after.nodes))
    matcher = Matcher(matching)
    matcher.run()
    for _ in range(_ROUNDS):
        _pair_within_regions(matcher)
        if not improve(matcher):
            break
    _part_merged(matching)
    return matching


def _part_merged(matching: Matching) -> None:
    """Part a product from the one that it was merged into with its neighbours: all of them together are its partner."""
    for was, now in list(enumerate(matching.forward)):
        if now < 0:
            continue
        sizes = [_weight_size(matching.before.nodes[was]), _weight_size(matching.after.nodes[now])]
        if not all(sizes) or sizes[0] == sizes[1]:
            continue
        side = int(sizes[1] < sizes[0])
        others = _unmatched_siblings(matching, side, (was, now)[side])
        if others and min(sizes) + sum(others) == max(sizes):
            matching.forward[was], matching.backward[now] = -1, -1


def _weight_size(node: Node) -> int:
    return max((each.size for each in node.operands if isinstance(each, Weight)), default=0)


def _unmatched_siblings(matching: Matching, side: int, node: int) -> list[int]:
    """Return the sizes of the weights of unmatched nodes of the same operator that read the same value."""
    graph, partners = matching.graphs[side], matching.partners[side]
    source = next((each for each in graph.nodes[node].operands if isinstance(each, Source)), None)
    if source is None:
        return []
    if source.node >= 0:
        readers = {reader for reader, _, _ in graph.consumers[source.node]}
    else:
        readers = {index for index, other in enumerate(graph.nodes) if source in other.operands}
    return [
        _weight_size(graph.nodes[reader])
        for reader in sorted(readers)
        if partners[reader] < 0 and graph.nodes[reader].op == graph.nodes[node].op
    ]


def _pair_within_regions(matcher: Matcher) -> None:
    """Propose the nodes that are the only ones of their operator on both sides of a place that was changed."""
    matching = matcher.matching
    for region in regions(matching):
        sides: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list)]
        for side, nodes in enumerate((region.before, region.after)):
            for node in nodes:
                sides[side][matching.graphs[side].nodes[node].op].append(node)
        for op, was in sides[0].items():
            now = sides[1].get(op, [])
            if len(was) == len(now) == 1:
                matcher.propose(was[0], now[0])
    matcher.grow()
