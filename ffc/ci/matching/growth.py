"""Which node of one graph is which of another, whatever their names and their order.

The evidence, strongest first: everything upstream is equal; both read the same large weight, which nobody else does;
neighbours are matched already, and the more of them the better; everything downstream is equal; names, last. A match
found makes its neighbours candidates, and the best candidate goes first, so that matches grow along edges from what is
certain; one with a rival as good waits until the others are settled.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ffc.ci.matching.snapshot import Graph, Node, Operand, Source, Weight

__all__ = ["Matcher", "Matching", "paired_inputs", "slots"]

COMMUTATIVE = frozenset(("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Mul", "Or", "Xor"))
_MOST_CONSUMERS = 32
"""Readers of one value that are looked at; a mask may have thousands."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Which node and input is which.

    Attributes:
        before, after: The graphs.
        inputs: For each input of the graph before, the one after, or -1.
        forward: For each node before, the one after, or -1.
        backward: For each node after, the one before, or -1.
    """

    before: Graph
    after: Graph
    inputs: Sequence[int]
    forward: list[int]
    backward: list[int]

    @property
    def graphs(self) -> tuple[Graph, Graph]:
        """The graphs by side: 0 is before, 1 after."""
        return self.before, self.after

    @property
    def partners(self) -> tuple[list[int], list[int]]:
        """For each node of a side its partner on the other one, or -1."""
        return self.forward, self.backward

    def same(self, was: Operand, now: Operand) -> bool:
        """Whether two operands are the same value, weights by content where both are known."""
        if isinstance(was, Source) and isinstance(now, Source):
            if was.node < 0 or now.node < 0:
                return was.node == now.node and self.inputs[was.index] == now.index
            return was.index == now.index and self.forward[was.node] == now.node
        if isinstance(was, Weight) and isinstance(now, Weight):
            return was.type == now.type and (was.content == now.content or not was.content or not now.content)
        return was is None and now is None


def slots(was: Node, now: Node, matching: Matching) -> list[tuple[int, Operand, Operand]]:
    """Return the operands of two matched nodes side by side; those of a commutative operator as they fit best."""
    first, second = list(was.operands), list(now.operands)
    length = max(len(first), len(second))
    first += [None] * (length - len(first))
    second += [None] * (length - len(second))
    straight = list(zip(range(length), first, second, strict=True))
    if was.op not in COMMUTATIVE or length != 2:
        return straight
    crossed = [(0, first[0], second[1]), (1, first[1], second[0])]
    agree = [sum(_fits(a, b, matching) for _, a, b in way) for way in (straight, crossed)]
    return crossed if agree[1] > agree[0] else straight


def _fits(was: Operand, now: Operand, matching: Matching) -> int:
    if matching.same(was, now):
        return 2
    return int(isinstance(was, Weight) and isinstance(now, Weight))


def paired_inputs(before: Graph, after: Graph) -> list[int]:
    """Return for each input before the one after, or -1: by name, and then by place where the type is the same."""
    places = {port.name: index for index, port in enumerate(after.inputs)}
    paired = [places.get(port.name, -1) if port.name else -1 for port in before.inputs]
    taken = set(paired)
    for index, port in enumerate(before.inputs):
        free = index < len(after.inputs) and index not in taken
        if paired[index] < 0 and free and port.type == after.inputs[index].type:
            paired[index] = index
    return paired


_Inputs = Mapping[int, int] | None
"""For the inputs of the graph after those that they are matched with; None where inputs go by their own place."""


@dataclass
class _Numbers:
    """Gives equal things equal numbers, so that what is upstream of a node is one number, without collisions."""

    known: dict[Hashable, int] = field(default_factory=dict)

    def of(self, thing: Hashable) -> int:
        return self.known.setdefault(thing, len(self.known))


class Matcher:
    """Fills a matching.

    Attributes:
        near: Whether neighbours alone speak for a candidate, and not all that is upstream or downstream.
        joined: The pairs that were matched, in order.
    """

    def __init__(self, matching: Matching) -> None:
        self.matching = matching
        self.near = False
        self.joined: list[tuple[int, int]] = []
        self.graphs = matching.graphs
        numbers = _Numbers()
        inputs = (None, {now: was for was, now in enumerate(matching.inputs) if now >= 0})
        self.content = [[_content(node, numbers) for node in graph.nodes] for graph in self.graphs]
        self.upstream = [
            _upstream(graph, self.content[side], inputs[side], numbers) for side, graph in enumerate(self.graphs)
        ]
        self.downstream = [_downstream(graph, self.content[side], numbers) for side, graph in enumerate(self.graphs)]
        self.candidates: list[tuple[float, int, int, int]] = []
        self.pushed = 0
        self.rivals: tuple[dict[int, set[int]], dict[int, set[int]]] = (defaultdict(set), defaultdict(set))

    def run(self) -> None:
        """Match all that evidence speaks for."""
        self.match(self.upstream)
        self.match([list(_by_weight(graph)) for graph in self.graphs])
        self.grow()
        self.match(self.downstream)
        self.grow()
        self.match(self.upstream, in_order=True)
        self.match(self.downstream, in_order=True)
        self.grow()
        self.match([[(node.op, node.name) if node.name else None for node in g.nodes] for g in self.graphs])
        self.grow()

    def match(self, keys: Sequence[Sequence[Hashable]], *, in_order: bool = False) -> None:
        """Match the unmatched nodes of equal keys that occur once on each side, or all in canonical order."""
        places = [self._free(side, keys[side]) for side in (0, 1)]
        for key, was in places[0].items():
            now = places[1].get(key, [])
            if in_order or len(was) == len(now) == 1:
                for first, second in zip(was, now, strict=False):
                    if not self._contradicted(first, second):
                        self._join(first, second)

    def _free(self, side: int, keys: Sequence[Hashable]) -> dict[Hashable, list[int]]:
        """Return the unmatched nodes of a side by key; None is no key."""
        found = defaultdict(list)
        for index, key in enumerate(keys):
            if self.matching.partners[side][index] < 0 and key is not None:
                found[key].append(index)
        return found

    def _join(self, was: int, now: int) -> None:
        self.matching.forward[was], self.matching.backward[now] = now, was
        self.joined.append((was, now))
        before, after = self.graphs
        for _, a, b in slots(before.nodes[was], after.nodes[now], self.matching):
            if isinstance(a, Source) and isinstance(b, Source) and min(a.node, b.node) >= 0:
                self.propose(a.node, b.node)
        for first, second in self.readers(was, now):
            self.propose(first, second)

    def readers(self, was: int, now: int) -> Iterable[tuple[int, int]]:
        """Yield pairs of unmatched readers that read the same output at the same place."""
        groups: list[dict[tuple[int, int, str], list[int]]] = []
        for side, index in enumerate((was, now)):
            found = defaultdict(list)
            for reader, slot, output in self.graphs[side].consumers[index]:
                if self.matching.partners[side][reader] < 0:
                    op = self.graphs[side].nodes[reader].op
                    found[(-1 if op in COMMUTATIVE else slot, output, op)].append(reader)
            groups.append(found)
        for key, first in groups[0].items():
            second = groups[1].get(key, [])
            if len(first) * len(second) <= _MOST_CONSUMERS:
                yield from ((a, b) for a in first for b in second)
            else:
                yield from zip(first, second, strict=False)

    def propose(self, was: int, now: int) -> None:
        """Make two nodes a candidate, if they are free, of one operator, and anything speaks for them."""
        free = self.matching.forward[was] < 0 and self.matching.backward[now] < 0
        if free and self.graphs[0].nodes[was].op == self.graphs[1].nodes[now].op:
            self.rivals[0][was].add(now)
            self.rivals[1][now].add(was)
            self._push(was, now)

    def _push(self, was: int, now: int) -> None:
        score = self.score(was, now)
        if score > 0:
            self.pushed += 1
            heapq.heappush(self.candidates, (-score, self.pushed, was, now))

    def grow(self) -> None:
        """Take the best candidate, which makes its neighbours candidates, until there is none.

        One that has an equal rival waits until all others are taken: what is learned from those may tell them apart.
        """
        waiting: list[tuple[float, int, int, int]] = []
        while self.candidates or waiting:
            patient = bool(self.candidates)
            queue = self.candidates if patient else waiting
            minus, pushed, was, now = heapq.heappop(queue)
            if self.matching.forward[was] >= 0 or self.matching.backward[now] >= 0:
                continue
            score = self.score(was, now)
            if score < -minus:
                self._push(was, now)
            elif patient and self.has_rival(was, now, score):
                heapq.heappush(waiting, (-score, pushed, was, now))
            else:
                self._join(was, now)

    def has_rival(self, was: int, now: int, score: float) -> bool:
        """Whether either of two nodes has another free candidate for which as much speaks."""
        return any(
            other != now and self.matching.backward[other] < 0 and self.score(was, other) >= score
            for other in self.rivals[0][was]
        ) or any(
            other != was and self.matching.forward[other] < 0 and self.score(other, now) >= score
            for other in self.rivals[1][now]
        )

    def score(self, was: int, now: int) -> float:
        """Say how much speaks for two nodes being one."""
        first, second = self.graphs[0].nodes[was], self.graphs[1].nodes[now]
        total = 0.0
        if not self.near:
            total += 8.0 * (self.upstream[0][was] == self.upstream[1][now])
            total += 8.0 * (self.downstream[0][was] == self.downstream[1][now])
        total += 2.0 * (first.attributes == second.attributes)
        total += 0.5 * (bool(first.name) and first.name == second.name)
        for _, a, b in slots(first, second, self.matching):
            total += self._operand_score(a, b)
        return total + self._reader_score(was, now)

    def _contradicted(self, was: int, now: int) -> bool:
        """Whether neighbours of two nodes are matched already, and all of them to others."""
        first, second = self.graphs[0].nodes[was], self.graphs[1].nodes[now]
        pairs = [(a, b) for _, a, b in slots(first, second, self.matching) if isinstance(a, Source)]
        scores = [self._operand_score(a, b) for a, b in pairs if isinstance(b, Source)]
        read = self._reader_score(was, now)
        return max([*scores, read]) <= 0 and min([*scores, read]) < 0

    def _operand_score(self, was: Operand, now: Operand) -> float:
        if isinstance(was, Source) and isinstance(now, Source):
            if self.matching.same(was, now):
                return 4.0
            known = was.node < 0 or now.node < 0
            known = known or self.matching.forward[was.node] >= 0 or self.matching.backward[now.node] >= 0
            return -1.0 if known else 0.0
        if isinstance(was, Weight) and isinstance(now, Weight):
            if self.matching.same(was, now):
                return 4.0 if was.is_large else 1.0
            return 1.0 if was.type == now.type else -1.0
        return 0.0 if was is now else -2.0

    def _reader_score(self, was: int, now: int) -> float:
        total = 0.0
        after = self.graphs[1].consumers[now]
        reading = Counter((reader, output) for reader, _, output in after[:_MOST_CONSUMERS])
        for reader, _, output in self.graphs[0].consumers[was][:_MOST_CONSUMERS]:
            partner = self.matching.forward[reader]
            if partner >= 0:
                total += 4.0 if reading[(partner, output)] else -1.0
        before = {reader for reader, _, _ in self.graphs[0].consumers[was]}
        for reader, _, _ in after[:_MOST_CONSUMERS]:
            partner = self.matching.backward[reader]
            total -= 1.0 * (partner >= 0 and partner not in before)
        names = [[graph.outputs[place][0].name for place in graph.given[index]]
                 for graph, index in zip(self.graphs, (was, now), strict=True)]  # fmt: skip
        return total + (4.0 if names[0] and names[0] == names[1] else -1.0 if names[0] or names[1] else 0.0)


def _content(node: Node, numbers: _Numbers) -> int:
    """Return a number for what a node is, apart from what it reads."""
    graphs = tuple((key, _graph_content(graph, numbers)) for key, graph in node.graphs.items())
    return numbers.of((node.op, *node.attributes.items(), *graphs))


def _graph_content(graph: Graph, numbers: _Numbers) -> int:
    content = [_content(node, numbers) for node in graph.nodes]
    up = _upstream(graph, content, None, numbers)
    outputs = tuple(_operand_number(operand, up, None, numbers) for _, operand in graph.outputs)
    return numbers.of(("graph", len(graph.inputs), outputs, tuple(sorted(up))))


def _upstream(graph: Graph, content: Sequence[int], inputs: _Inputs, numbers: _Numbers) -> list[int]:
    """Return for each node a number for itself and all that is upstream of it."""
    found: list[int] = []
    for index, node in enumerate(graph.nodes):
        operands = [_operand_number(operand, found, inputs, numbers) for operand in node.operands]
        if node.op in COMMUTATIVE:
            operands.sort()
        found.append(numbers.of(("up", content[index], *operands)))
    return found


def _operand_number(operand: Operand, found: Sequence[int], inputs: _Inputs, numbers: _Numbers) -> int:
    if operand is None:
        return numbers.of("none")
    if isinstance(operand, Weight):
        return numbers.of(operand.key)
    if operand.node >= 0:
        return numbers.of(("of", found[operand.node], operand.index))
    if inputs is None:
        return numbers.of(("input", operand.index))
    return numbers.of(("input", inputs[operand.index]) if operand.index in inputs else ("new input", operand.index))


def _downstream(graph: Graph, content: Sequence[int], numbers: _Numbers) -> list[int]:
    """Return for each node a number for itself and all that is downstream of it, weights and other operands apart."""
    found = [0] * len(graph.nodes)
    for index in reversed(range(len(graph.nodes))):
        readers = sorted(
            (found[reader], -1 if graph.nodes[reader].op in COMMUTATIVE else slot, output)
            for reader, slot, output in graph.consumers[index]
        )
        outputs = [graph.outputs[place][0].name for place in graph.given[index]]
        found[index] = numbers.of(("down", content[index], *readers, *outputs))
    return found


def _by_weight(graph: Graph) -> Iterable[Hashable]:
    """Yield for each node the first large weight that it alone reads, with the operator and the place, or None."""
    readers = Counter(operand.key for node in graph.nodes for operand in node.operands if isinstance(operand, Weight))
    for node in graph.nodes:
        yield next(
            (
                (node.op, slot, operand.key)
                for slot, operand in enumerate(node.operands)
                if isinstance(operand, Weight) and operand.is_large and operand.content
                and readers[operand.key] == 1
            ),
            None,
        )  # fmt: skip
