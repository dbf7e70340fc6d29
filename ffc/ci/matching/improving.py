"""A matching improved: choices that mean fewer changes take the place of those that were made too early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ffc.ci.matching.growth import Matcher, Matching, slots
from ffc.ci.matching.snapshot import Graph, Source

__all__ = ["improve"]

_MOST_READERS = 32
_LONGEST = 48
"""Twins that change partners at once."""
_RADIUS = 3
_MOST_TOGETHER = 200
"""Nodes that are matched anew together; where more are in doubt, the graphs are too far apart for it to matter."""


def improve(matcher: Matcher) -> bool:
    """Improve a matching in place; say whether anything was changed."""
    exchanged = _exchange(matcher.matching)
    swapped = _swap(matcher)
    return _match_anew(matcher) or swapped or exchanged


def _exchange(matching: Matching) -> bool:
    """Let unmatched nodes take the place of matched ones where that means fewer changes; say whether any did."""
    any_did = False
    for side, own in enumerate(matching.partners):
        others = matching.partners[1 - side]
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


def _swap(matcher: Matcher) -> bool:
    """Let two matched nodes, and what hangs on them, change partners where that means fewer changes."""
    matching, any_did = matcher.matching, False
    for was, now in enumerate(matching.forward):
        if now < 0 or not _changes(matching, was):
            continue
        for twin in _related(matching, 1, now):
            if twin != was and matching.forward[twin] >= 0 and matching.forward[was] == now:
                any_did |= _swap_chain(matcher, was, twin)
    return any_did


def _swap_chain(matcher: Matcher, was: int, twin: int) -> bool:
    """Swap the partners of twins and, as far as that helps, of the twins that read them and that they read."""
    matching, chain = matcher.matching, [(was, twin)]
    for first, second in chain:
        for pair in _next_twins(matcher, first, second):
            if not _shares(pair, chain) and len(chain) < _LONGEST:
                chain.append(pair)
    for length in range(1, len(chain) + 1):
        part = chain[:length]
        touched = [(0, node) for pair in part for node in pair]
        touched += [(1, matching.forward[node]) for _, node in touched]
        cost = _cost(matching, touched)
        _exchange_partners(matching, part)
        if _cost(matching, touched) < cost:
            return True
        _exchange_partners(matching, part)
    return False


def _next_twins(matcher: Matcher, first: int, second: int) -> list[tuple[int, int]]:
    """Return the matched nodes of one operator that two nodes read, or that read them, at the same place.

    Those come first for whose new partners most speaks.
    """
    matching, graph = matcher.matching, matcher.matching.before
    one, other = (
        {slot: operand.node for slot, operand in enumerate(graph.nodes[node].operands) if isinstance(operand, Source)}
        for node in (first, second)
    )
    found = [(one[slot], other[slot]) for slot in one.keys() & other.keys()]
    readers = [
        [(reader, slot) for reader, slot, _ in graph.consumers[node]][:_MOST_READERS] for node in (first, second)
    ]
    found += [(a, b) for a, slot in readers[0] for b, place in readers[1] if slot == place]
    twins = [
        (a, b)
        for a, b in found
        if min(a, b) >= 0 and a != b and graph.nodes[a].op == graph.nodes[b].op
        and matching.forward[a] >= 0 and matching.forward[b] >= 0
    ]  # fmt: skip

    def doubt(pair: tuple[int, int]) -> float:
        a, b = pair
        return -matcher.score(a, matching.forward[b]) - matcher.score(b, matching.forward[a])

    return sorted(twins, key=doubt)


def _shares(pair: tuple[int, int], chain: Sequence[tuple[int, int]]) -> bool:
    return any(node in each for node in pair for each in chain)


def _exchange_partners(matching: Matching, pairs: Iterable[tuple[int, int]]) -> None:
    forward, backward = matching.forward, matching.backward
    for first, second in pairs:
        forward[first], forward[second] = forward[second], forward[first]
        backward[forward[first]], backward[forward[second]] = first, second


def _match_anew(matcher: Matcher) -> bool:
    """Match the surroundings of changes anew, by their neighbours alone, where that means fewer changes."""
    matching, any_did = matcher.matching, False
    for before, after in _surroundings(matching):
        old = [(node, matching.forward[node]) for node in before if matching.forward[node] >= 0]
        _part(matching, old)
        new = _grown(matcher, sorted(before))
        touched = [*((0, node) for node in before), *((1, node) for node in after)]
        touched += [place for was, now in new for place in ((0, was), (1, now))]  # it may have grown beyond them
        cost = _cost(matching, touched)
        _part(matching, new)
        _join(matching, old)
        if cost < _cost(matching, touched):
            _part(matching, old)
            _join(matching, new)
            any_did = True
    return any_did


def _grown(matcher: Matcher, nodes: Sequence[int]) -> list[tuple[int, int]]:
    """Match unmatched nodes, and what hangs on them, by their neighbours alone; return the pairs."""
    matcher.joined.clear()
    matcher.near = True
    for node in nodes:
        for other in _related(matcher.matching, 0, node):
            matcher.propose(node, other)
    matcher.grow()
    matcher.near = False
    return list(matcher.joined)


def _part(matching: Matching, pairs: Iterable[tuple[int, int]]) -> None:
    for was, now in pairs:
        matching.forward[was], matching.backward[now] = -1, -1


def _join(matching: Matching, pairs: Iterable[tuple[int, int]]) -> None:
    for was, now in pairs:
        matching.forward[was], matching.backward[now] = now, was


def _surroundings(matching: Matching) -> list[tuple[set[int], set[int]]]:
    """Return the nodes around changes, before and after, those apart that are apart, large ones left out."""
    doubtful = {node for node in range(len(matching.forward)) if matching.forward[node] < 0 or _changes(matching, node)}
    for node in [node for node, partner in enumerate(matching.backward) if partner < 0]:
        doubtful.update(_neighbours_before(matching, node))
    found, seen = [], set[int]()
    for start in sorted(doubtful):
        if start in seen:
            continue
        around = _around(matching, start, doubtful)
        seen |= around
        if len(around) <= _MOST_TOGETHER:
            after = {matching.forward[node] for node in around if matching.forward[node] >= 0}
            front = after
            while front:
                beside = {each for node in front for each in _neighbours(matching.after, node)}
                front = {each for each in beside - after if matching.backward[each] < 0}
                after = after | front
            if len(after) <= _MOST_TOGETHER:
                found.append((around, after))
    return found


def _around(matching: Matching, start: int, doubtful: set[int]) -> set[int]:
    """Return a node with those within some steps of it, further where doubtful ones follow each other."""
    around, front = {start: 0}, [start]
    while front and len(around) <= _MOST_TOGETHER:
        node = front.pop()
        for other in _neighbours(matching.before, node):
            steps = 0 if other in doubtful else around[node] + 1
            if steps <= _RADIUS and around.get(other, _RADIUS + 1) > steps:
                around[other] = steps
                front.append(other)
    return set(around)


def _neighbours_before(matching: Matching, node: int) -> list[int]:
    return [matching.backward[each] for each in _neighbours(matching.after, node) if matching.backward[each] >= 0]


def _neighbours(graph: Graph, node: int) -> list[int]:
    return graph.nodes[node].sources + [reader for reader, _, _ in graph.consumers[node][:_MOST_READERS]]


def _related(matching: Matching, side: int, node: int) -> list[int]:
    """Return the nodes of the other side of the same operator that stand in the same relation to a matched node."""
    graph, other, partners = matching.graphs[side], matching.graphs[1 - side], matching.partners[side]
    found: set[int] = set()
    for source in graph.nodes[node].sources:
        if partners[source] >= 0:
            found.update(reader for reader, _, _ in other.consumers[partners[source]][:_MOST_READERS])
    for reader, _, _ in graph.consumers[node][:_MOST_READERS]:
        if partners[reader] >= 0:
            found.update(other.nodes[partners[reader]].sources)
    return sorted(each for each in found if other.nodes[each].op == graph.nodes[node].op)


def _cost(matching: Matching, touched: Iterable[tuple[int, int]]) -> int:
    """Count the changes at some nodes, given by side and place, and at those that read them."""
    sides: tuple[set[int], set[int]] = (set(), set())
    for side, node in touched:
        sides[side].update((node, *(reader for reader, _, _ in matching.graphs[side].consumers[node])))
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
