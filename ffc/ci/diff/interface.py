"""What callers of a model notice: opsets, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ffc.ci.diff.changes import Change
from ffc.ci.matching.growth import Matching
from ffc.ci.matching.snapshot import Port

__all__ = ["interface_changes", "opset_changes"]

_TYPE = re.compile(r"(\w+)\[(.+)\]")


def opset_changes(was: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Change]:
    """Yield changed versions; a domain that only one side imports shows in the nodes, if any use it."""
    for name, domain in sorted((domain or "ai.onnx", domain) for domain in was.keys() & now.keys()):
        if was[domain] != now[domain]:
            yield Change("interface", f"opset {name}: {was[domain]} → {now[domain]}", f"opset {name}")


def interface_changes(matching: Matching) -> Iterator[Change]:
    """Yield what changed of the inputs and outputs of two graphs whose inputs are matched.

    Where symbols of dimensions are called otherwise throughout, that is a change of kind ``name``.
    """
    before, after, symbols = matching.before, matching.after, _Symbols()
    for was, now in zip(before.inputs, matching.inputs, strict=True):
        yield from _port("input", was, after.inputs[now] if now >= 0 else None, symbols)
    for index in sorted(set(range(len(after.inputs))) - set(matching.inputs)):
        yield Change("interface", f"input new: {after.inputs[index].type}", after.inputs[index].name)
    yield from _order("inputs", before.inputs, after.inputs)
    outputs = [[port for port, _ in graph.outputs] for graph in (before, after)]
    yield from _outputs(outputs[0], outputs[1], symbols)
    yield from _order("outputs", outputs[0], outputs[1])
    for old, new in symbols.renamed():
        yield Change("name", f"dimension {old} → {new}", old)


def _outputs(before: Sequence[Port], after: Sequence[Port], symbols: _Symbols) -> Iterator[Change]:
    """Yield what changed of outputs: those of one name are one, the others go by their place among themselves."""
    names = {port.name: port for port in after}
    gone = [port for port in before if port.name not in names]
    new = [port for port in after if port.name not in {each.name for each in before}]
    for port in before:
        if port.name in names:
            yield from _port("output", port, names[port.name], symbols)
    for was, now in zip(gone, new, strict=False):
        yield from _port("output", was, now, symbols)
    for port in gone[len(new) :]:
        yield from _port("output", port, None, symbols)
    for port in new[len(gone) :]:
        yield Change("interface", f"output new: {port.type}", port.name)


def _order(what: str, before: Sequence[Port], after: Sequence[Port]) -> Iterator[Change]:
    was, now = [port.name for port in before], [port.name for port in after]
    if was != now and sorted(was) == sorted(now):
        yield Change("interface", f"order of {what}: {', '.join(was)} → {', '.join(now)}")


def _port(kind: str, was: Port, now: Port | None, symbols: _Symbols) -> Iterator[Change]:
    if now is None:
        yield Change("interface", f"{kind} gone: {was.type}", was.name)
        return
    if was.name != now.name:
        yield Change("interface", f"{kind} renamed: {was.name} → {now.name}", was.name)
    if not symbols.agree(was.type, now.type):
        yield Change("interface", f"{kind} type: {was.type} → {now.type}", was.name)
    if was.default != now.default:
        yield Change("interface", f"{kind} default: {was.default or 'none'} → {now.default or 'none'}", was.name)


class _Symbols:
    """Which symbolic dimension is called what on the other side."""

    def __init__(self) -> None:
        self._forward: dict[str, str] = {}
        self._backward: dict[str, str] = {}

    def agree(self, was: str, now: str) -> bool:
        """Whether two types are one, as far as symbols can be called otherwise."""
        first, second = (_TYPE.fullmatch(text) for text in (was, now))
        if first is None or second is None or first.group(1) != second.group(1):
            return was == now
        dims = [match.group(2).split(",") for match in (first, second)]
        if len(dims[0]) != len(dims[1]):
            return False
        known = dict(self._forward), dict(self._backward)
        for old, new in zip(*dims, strict=True):
            if not self._fits(old, new):
                self._forward, self._backward = known
                return False
            self._forward[old], self._backward[new] = new, old
        return True

    def _fits(self, old: str, new: str) -> bool:
        if old.isdecimal() or new.isdecimal() or {old, new} & {"?", "*"}:
            return old == new
        return self._forward.get(old, new) == new and self._backward.get(new, old) == old

    def renamed(self) -> list[tuple[str, str]]:
        """Return the symbols that are called otherwise."""
        return [(old, new) for old, new in self._forward.items() if old != new]
