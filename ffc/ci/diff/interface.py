"""What callers of a model notice: opsets, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ffc.ci.diff.changes import Change
from ffc.ci.diff.matching import Matching
from ffc.ci.diff.snapshot import Port

__all__ = ["interface_changes", "opset_changes"]


def opset_changes(was: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Change]:
    """Yield changed versions; a domain that only one side imports shows in the nodes, if any use it."""
    for domain in sorted({_domain(each) for each in was} & {_domain(each) for each in now}):
        versions = [{_domain(key): version for key, version in each.items()}[domain] for each in (was, now)]
        if versions[0] != versions[1]:
            yield Change("interface", f"opset {domain}: {versions[0]} → {versions[1]}", f"opset {domain}")


def _domain(name: str) -> str:
    return name or "ai.onnx"


def interface_changes(matching: Matching) -> Iterator[Change]:
    """Yield what changed of the inputs and outputs of two graphs whose inputs are matched."""
    before, after = matching.before, matching.after
    for was, now in zip(before.inputs, matching.inputs, strict=True):
        yield from _port("input", was, after.inputs[now] if now >= 0 else None)
    for index in sorted(set(range(len(after.inputs))) - set(matching.inputs)):
        yield Change("interface", f"input new: {after.inputs[index].type}", after.inputs[index].name)
    yield from _order("inputs", before.inputs, after.inputs)
    outputs = [[port for port, _ in graph.outputs] for graph in (before, after)]
    yield from _outputs(*outputs)
    yield from _order("outputs", *outputs)


def _outputs(before: Sequence[Port], after: Sequence[Port]) -> Iterator[Change]:
    """Yield what changed of outputs: those of one name are one, the others go by their place among themselves."""
    names = {port.name: port for port in after}
    gone = [port for port in before if port.name not in names]
    new = [port for port in after if port.name not in {each.name for each in before}]
    for port in before:
        if port.name in names:
            yield from _port("output", port, names[port.name])
    for was, now in zip(gone, new, strict=False):
        yield from _port("output", was, now)
    for port in gone[len(new) :]:
        yield Change("interface", f"output gone: {port.type}", port.name)
    for port in new[len(gone) :]:
        yield Change("interface", f"output new: {port.type}", port.name)


def _order(what: str, before: Sequence[Port], after: Sequence[Port]) -> Iterator[Change]:
    was, now = [port.name for port in before], [port.name for port in after]
    if was != now and sorted(was) == sorted(now):
        yield Change("interface", f"order of {what}: {', '.join(was)} → {', '.join(now)}")


def _port(kind: str, was: Port, now: Port | None) -> Iterator[Change]:
    if now is None:
        yield Change("interface", f"{kind} gone: {was.type}", was.name)
        return
    if was.name != now.name:
        yield Change("interface", f"{kind} renamed: {was.name} → {now.name}", was.name)
    if was.type != now.type:
        yield Change("interface", f"{kind} type: {was.type} → {now.type}", was.name)
    if was.default != now.default:
        yield Change("interface", f"{kind} default: {was.default or 'none'} → {now.default or 'none'}", was.name)
