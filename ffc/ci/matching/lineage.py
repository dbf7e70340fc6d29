"""Which weight became which where a fusion merged, transposed, sliced or quantised them.

Weights tell where a block is whatever was made of its nodes: the nodes that read a weight before and those that read
what became of it belong together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from ffc.ci.matching.growth import Matching
from ffc.ci.matching.snapshot import Graph, Weight

__all__ = ["links"]


@dataclass(frozen=True, eq=False)
class _Site:
    """A weight where an unmatched node reads it."""

    node: int
    weight: Weight
    shape: tuple[int, ...]


def links(matching: Matching) -> list[tuple[int, int]]:
    """Return pairs of unmatched nodes, before and after, that read a weight and what became of it.

    Weights of equal contents are linked first, then those of the same shape or its transpose, then those that lie side
    by side in a larger one, then the others of as many axes; each time in canonical order.
    """
    before = _sites(matching.before, matching.forward)
    after = _sites(matching.after, matching.backward)
    found: list[tuple[_Site, _Site]] = []
    for key in (_by_content, _by_sorted_shape):
        found += _in_order(before, after, key)
        before, after = _rest(before, after, found)
    found += _merged(before, after)
    before, after = _rest(before, after, found)
    found += _in_order(before, after, _by_rank)
    return [(was.node, now.node) for was, now in found]


def _sites(graph: Graph, partners: Sequence[int]) -> list[_Site]:
    return [
        _Site(index, operand, _shape(operand.type))
        for index, node in enumerate(graph.nodes)
        if partners[index] < 0
        for operand in node.operands
        if isinstance(operand, Weight) and operand.is_large
    ]


def _shape(kind: str) -> tuple[int, ...]:
    dims = kind.partition("[")[2].rstrip("]")
    return tuple(int(dim) for dim in dims.split(",") if dim.isdecimal())


def _by_content(site: _Site) -> Hashable:
    return site.weight.key if site.weight.content else None


def _by_sorted_shape(site: _Site) -> Hashable:
    return tuple(sorted(site.shape))


def _by_rank(site: _Site) -> Hashable:
    return len(site.shape) if len(site.shape) > 1 else None


def _in_order(
    before: Sequence[_Site], after: Sequence[_Site], key: Callable[[_Site], Hashable]
) -> list[tuple[_Site, _Site]]:
    """Link sites of the same key in order, where there are as many before as after."""
    groups: list[dict[Hashable, list[_Site]]] = [defaultdict(list), defaultdict(list)]
    for side, sites in enumerate((before, after)):
        for site in sites:
            if key(site) is not None:
                groups[side][key(site)].append(site)
    return [
        pair
        for name, first in groups[0].items()
        if len(first) == len(groups[1].get(name, []))
        for pair in zip(first, groups[1][name], strict=True)
    ]


def _merged(before: Sequence[_Site], after: Sequence[_Site]) -> list[tuple[_Site, _Site]]:
    """Link weights that together have the size of one on the other side, a run of neighbours at a time."""
    found = [(was, now) for now, run in _runs(after, before) for was in run]
    return found + [(was, now) for was, run in _runs(*_rest(before, after, found)) for now in run]


def _runs(wholes: Sequence[_Site], parts: Sequence[_Site]) -> list[tuple[_Site, list[_Site]]]:
    found, start = [], 0
    for whole in wholes:
        runs = ((place, _run(whole, parts, place)) for place in range(start, len(parts)))
        place, run = next(((place, run) for place, run in runs if run), (start, []))
        if run:
            found.append((whole, run))
            start = place + len(run)
    return found


def _run(whole: _Site, parts: Sequence[_Site], start: int) -> list[_Site]:
    """Return the parts from `start` on that fill `whole` exactly, two at least, or none."""
    run: list[_Site] = []
    size = 0
    for part in parts[start:]:
        if len(part.shape) != len(whole.shape) or (part.shape and max(part.shape) > max(whole.shape)):
            break
        if run and part.shape != run[0].shape:
            break
        run.append(part)
        size += part.weight.size
        if size >= whole.weight.size:
            break
    return run if size == whole.weight.size and len(run) > 1 else []


def _rest(
    before: Sequence[_Site], after: Sequence[_Site], found: Sequence[tuple[_Site, _Site]]
) -> tuple[list[_Site], list[_Site]]:
    taken = {id(site) for pair in found for site in pair}
    return [site for site in before if id(site) not in taken], [site for site in after if id(site) not in taken]
