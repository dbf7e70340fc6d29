"""The nodes of two graphs paired: grown from the evidence, then improved where another choice means fewer changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ffc.ci.diff.matching import Matcher, Matching, paired_inputs, slots
from ffc.ci.diff.regions import regions
from ffc.ci.diff.snapshot import Graph, Source

__all__ = ["pair"]

_ROUNDS = 4
_MOST_READERS = 32


def pair(before: Graph, after: Graph, inputs: Sequence[int] | None = None) -> Matching:
    """Match the nodes of two graphs.

    Args:
        before: One graph.
        after: The other.
        inputs: For each input of `before` the one of `after`, or -1; by default by name, and then by place and type.
    """
    paired = paired_inputs(before, after) if inputs is None else inputs
    matching = Matching(before, after, paired, [-1] * len(before.nodes), [-1] * len(after.nodes))
    matcher = Matcher(matching)
    matcher.run()
    for _ in range(_ROUNDS):
        _pair_within_regions(matcher)
        if not _exchange(matching):
            break
    return matching


def _pair_within_regions(matcher: Matcher) -> None:
    """Propose the nodes that are the only ones of their operator on both sides of a place that was changed."""
    matching = matcher.matching
    for region in regions(matching):
        sides: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list)]
        for side, (graph, nodes) in enumerate(((matching.before, region.before), (matching.after, region.after))):
            for node in nodes:
                sides[side][graph.nodes[node].op].append(node)
        for op, was in sides[0].items():
            now = sides[1].get(op, [])
            if len(was) == len(now) == 1:
                matcher.propose(was[0], now[0])
    matcher.grow()


def _exchange(matching: Matching) -> bool:
    """Let unmatched nodes take the place of matched ones where that means fewer changes; say whether any did."""
    any_did = False
    for side, own in enumerate((matching.forward, matching.backward)):
        others = (matching.backward, matching.forward)[side]
        for node in [index for index, partner in enumerate(own) if partner < 0]:
            for other in _related(matching, side, node):
                rival = others[other]
                if own[node] >= 0 or rival < 0:
                    continue
                touched = [(side, node), (side, rival), (1 - side, other)]
                cost = _cost(matching, touched)
                own[node], own[rival], others[other] = other, -1, node
                if _cost(matching, touched) < cost:
                    any_did = True
                else:
                    own[node], own[rival], others[other] = -1, other, rival
    return any_did


def _related(matching: Matching, side: int, node: int) -> list[int]:
    """Return the nodes of the other side of the same operator that stand in the same relation to a matched node."""
    graph, other = (matching.before, matching.after)[:: 1 - 2 * side]
    partners = (matching.forward, matching.backward)[side]
    found: set[int] = set()
    for operand in graph.nodes[node].operands:
        if isinstance(operand, Source) and operand.node >= 0 and partners[operand.node] >= 0:
            found.update(reader for reader, _, _ in other.consumers[partners[operand.node]][:_MOST_READERS])
    for reader, _, _ in graph.consumers[node][:_MOST_READERS]:
        if partners[reader] >= 0:
            operands = other.nodes[partners[reader]].operands
            found.update(each.node for each in operands if isinstance(each, Source) and each.node >= 0)
    return sorted(each for each in found if other.nodes[each].op == graph.nodes[node].op)


def _cost(matching: Matching, touched: Iterable[tuple[int, int]]) -> int:
    """Count the changes at some nodes, given by side and place, and at those that read them."""
    sides: tuple[set[int], set[int]] = (set(), set())
    for side, node in touched:
        graph = (matching.before, matching.after)[side]
        sides[side].update((node, *(reader for reader, _, _ in graph.consumers[node])))
    sides[0].update(matching.backward[node] for node in sides[1] if matching.backward[node] >= 0)
    unmatched = sum(matching.backward[node] < 0 for node in sides[1])
    return unmatched + sum(_changes(matching, node) for node in sides[0])


def _changes(matching: Matching, was: int) -> int:
    """Count the changes at a node of the graph before."""
    now = matching.forward[was]
    if now < 0:
        return 1
    first, second = matching.before.nodes[was], matching.after.nodes[now]
    count = sum(
        first.attributes.get(name) != second.attributes.get(name) for name in {*first.attributes, *second.attributes}
    )
    return count + sum(
        not matching.same(a, b) and not _is_free(matching.forward, a) and not _is_free(matching.backward, b)
        for _, a, b in slots(first, second, matching)
    )


def _is_free(partners: Sequence[int], operand: object) -> bool:
    return isinstance(operand, Source) and operand.node >= 0 and partners[operand.node] < 0
