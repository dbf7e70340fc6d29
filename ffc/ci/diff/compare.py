"""What changed between two graphs whose nodes are matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ffc.ci.diff.changes import Change
from ffc.ci.diff.interface import interface_changes, opset_changes
from ffc.ci.diff.weights import described, distance
from ffc.ci.matching.growth import Matching, slots
from ffc.ci.matching.pairing import pair
from ffc.ci.matching.regions import Region, regions
from ffc.ci.matching.snapshot import Function, Graph, Node, Operand, Snapshot, Source, Weight, defaults

__all__ = ["compare", "counted"]


def compare(before: Snapshot, after: Snapshot, *, names: bool = False) -> tuple[Matching, list[Change]]:
    """Match two models and return the matching of their main graphs, and what changed; of names only if asked."""
    matching = pair(before.graph, after.graph)
    changes = [*opset_changes(before.opsets, after.opsets), *interface_changes(matching)]
    changes = [change for change in changes if names or change.kind != "name"]
    changes += _Comparison(matching, before.opsets, after.opsets, names).changes()
    for scope, was, now in _functions(before, after):
        if was is None or now is None:
            word, function = ("gone", was) if now is None else ("new", now)
            assert function is not None
            what = f"function of {len(function.graph.nodes)} nodes {word}"
            changes.append(Change("structure", what, scope, scope=scope))
            continue
        changes += [replace(change, scope=scope) for change in _function(was, now, names)]
    return matching, changes


def _functions(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, Function | None, Function | None]]:
    called = [{node.op for node in snapshot.graph.nodes} for snapshot in (before, after)]
    for name in sorted({*before.functions, *after.functions}):
        was, now = before.functions.get(name), after.functions.get(name)
        # One that came or went with its calls is told of there.
        if (was and now) or all(name.replace(":", ".") in ops for ops in called):
            yield name, was, now


def _function(was: Function, now: Function, names: bool) -> Iterator[Change]:
    yield from opset_changes(was.opsets, now.opsets)
    if was.attributes != now.attributes:
        yield Change(
            "interface", "attributes of the function", detail={"before": was.attributes, "after": now.attributes}
        )
    if len(was.graph.inputs) != len(now.graph.inputs):
        yield Change("interface", f"{len(was.graph.inputs)} → {len(now.graph.inputs)} inputs")
    if len(was.graph.outputs) != len(now.graph.outputs):
        yield Change("interface", f"{len(was.graph.outputs)} → {len(now.graph.outputs)} outputs")
    matching = pair(was.graph, now.graph, _by_place(was.graph, now.graph))
    yield from _Comparison(matching, was.opsets, now.opsets, names).changes()


class _Comparison:
    """Two graphs side by side."""

    def __init__(self, matching: Matching, was: Mapping[str, int], now: Mapping[str, int], names: bool) -> None:
        self.matching = matching
        self.opsets = (was, now)
        self.names = names
        self.weights: dict[tuple[int, int], tuple[Weight, Weight, list[tuple[int, int]]]] = {}

    def changes(self) -> list[Change]:
        """Return all changes of the graph and of its subgraphs."""
        found = [self.region(region) for region in regions(self.matching)]
        for was, now in enumerate(self.matching.forward):
            if now >= 0:
                found += self.matched(was, now)
        found += [change for each in self.weights.values() for change in self.weight(*each)]
        found += self.outputs()
        if self.names:
            found += self.renamed()
        return found

    def region(self, region: Region) -> Change:
        before = [self.matching.before.nodes[index] for index in region.before]
        after = [self.matching.after.nodes[index] for index in region.after]
        was, now = counted(before), counted(after)
        what = f"{was} → {now}" if was and now else f"{was} removed" if was else f"{now} inserted"
        where = next((node.name for node in [*before, *after] if node.name), "")
        by = "; ".join(dict.fromkeys(node.by for node in after if node.by))
        detail = {"removed": [node.name for node in before], "inserted": [node.name for node in after]}
        return Change("structure", what, where, region.before, region.after, by, detail=detail)

    def matched(self, was: int, now: int) -> Iterator[Change]:
        """Yield what changed between two matched nodes."""
        first, second = self.matching.before.nodes[was], self.matching.after.nodes[now]
        where = first.name or second.name
        for name in sorted({*first.attributes, *second.attributes}):
            values = [node.attributes.get(name) for node in (first, second)]
            if values[0] != values[1]:
                shown = [self.attribute(first.op, name, value, side) for side, value in enumerate(values)]
                if shown[0] != shown[1]:
                    what = f"{first.op} {name}: {shown[0]} → {shown[1]}"
                    detail = {"attribute": name, "before": shown[0], "after": shown[1]}
                    yield Change("attribute", what, where, (was,), (now,), second.by, detail=detail)
        for slot, a, b in slots(first, second, self.matching):
            if isinstance(a, Weight) and isinstance(b, Weight):
                self.weights.setdefault((id(a), id(b)), (a, b, []))[2].append((was, now))
            elif not self.matching.same(a, b) and not self.told(a, b):
                what = f"{first.op} operand {slot}: {self.said(a, 0)} → {self.said(b, 1)}"
                said = {"slot": str(slot), "before": self.said(a, 0, True), "after": self.said(b, 1, True)}
                yield Change("structure", what, where, (was,), (now,), second.by, detail=said)
        yield from self.subgraphs(was, now)

    def told(self, was: Operand, now: Operand) -> bool:
        """Whether a region tells that an operand is another: one of them came, or one of them went."""
        gone = isinstance(was, Source) and was.node >= 0 and self.matching.forward[was.node] < 0
        return gone or (isinstance(now, Source) and now.node >= 0 and self.matching.backward[now.node] < 0)

    def attribute(self, op: str, name: str, value: str | None, side: int) -> str:
        return defaults(op, self.opsets[side]).get(name, "none") if value is None else value

    def said(self, operand: Operand, side: int, named: bool = False) -> str:
        """Return an operand in words, with its name or without."""
        graph = self.matching.graphs[side]
        if operand is None:
            return "nothing"
        if isinstance(operand, Weight):
            return operand.name if named and operand.name else described(operand)
        if operand.node < 0:
            return f"input {graph.inputs[operand.index].name}"
        node = graph.nodes[operand.node]
        return node.outputs[operand.index] if named and operand.index < len(node.outputs) else node.op

    def weight(self, was: Weight, now: Weight, sites: list[tuple[int, int]]) -> Iterator[Change]:
        if self.matching.same(was, now):
            return
        first = self.matching.before.nodes[sites[0][0]]
        where = was.name or first.name
        place = tuple(site[0] for site in sites), tuple(site[1] for site in sites)
        if was.type != now.type:
            what = f"{first.op} weight {was.type} → {now.type}"
            yield Change("weight-type", what, where, *place, detail={"before": was.type, "after": now.type})
            return
        detail = {"before": described(was), "after": described(now), **distance(was, now)}
        change = f": {was.content} → {now.content}" if max(len(was.content), len(now.content)) < 40 else ""
        yield Change("weight-value", f"{first.op} weight {was.type}{change}", where, *place, detail=detail)

    def outputs(self) -> Iterator[Change]:
        places = {port.name: operand for port, operand in self.matching.after.outputs}
        for index, (port, operand) in enumerate(self.matching.before.outputs):
            if port.name in places:
                other = places[port.name]
            elif index < len(self.matching.after.outputs):
                other = self.matching.after.outputs[index][1]
            else:
                continue
            if not self.matching.same(operand, other) and not self.told(operand, other):
                what = f"output {port.name}: {self.said(operand, 0)} → {self.said(other, 1)}"
                detail = {"before": self.said(operand, 0, True), "after": self.said(other, 1, True)}
                yield Change("structure", what, port.name, detail=detail)

    def subgraphs(self, was: int, now: int) -> Iterator[Change]:
        """Yield what changed in the subgraphs of two matched nodes, whose last inputs are operands of those."""
        first, second = self.matching.before.nodes[was], self.matching.after.nodes[now]
        for name in sorted({*first.graphs, *second.graphs}):
            one, other = first.graphs.get(name), second.graphs.get(name)
            scope = f"{first.name or first.op} {name}"
            if one is None or other is None:
                yield Change("structure", f"{first.op} subgraph {name} {'new' if one is None else 'gone'}", scope)
                continue
            inner = pair(one, other, _by_place(one, other))
            for change in _Comparison(inner, *self.opsets, self.names).changes():
                yield replace(change, scope=scope, before=(was,), after=(now,))

    def renamed(self) -> Iterator[Change]:
        for was, now in enumerate(self.matching.forward):
            if now < 0:
                continue
            first, second = self.matching.before.nodes[was], self.matching.after.nodes[now]
            names = [(node.name, *node.outputs) for node in (first, second)]
            if names[0] != names[1]:
                detail = {"before": list(names[0]), "after": list(names[1])}
                yield Change("name", f"{first.op} renamed", first.name, (was,), (now,), detail=detail)


def _by_place(one: Graph, other: Graph) -> list[int]:
    """Pair the inputs of two graphs by place."""
    return [index if index < len(other.inputs) else -1 for index in range(len(one.inputs))]


def counted(nodes: Iterable[Node]) -> str:
    """Say which operators there are, in the order in which they first come, with their number where it is not one."""
    counts = Counter(node.op for node in nodes)
    return ", ".join(f"{count} {op}" if count > 1 else op for op, count in counts.items())
