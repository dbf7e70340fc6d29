"""Sizes at which a model runs that does not run at those of every probe."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir

from ffc.compiler.proof.probing.demands import sizes_written
from ffc.compiler.proof.probing.layout import Layout
from ffc.graph.shapes.dim import Dim

__all__ = ["search"]

_SECONDS = 10.0
"""After this time no other size is tried."""

_MOST_SUGGESTED = 16
_LENGTHS = (*range(8, 65, 8), 96, 128, 160, 192, 224, 256, 384, 512, 1024, *range(2, 8))
_BATCHES = ((2, 3, 4), (1,))
"""Numbers of rows to try; with one, which comes last, axes that are confused may fit."""

_HEADS = (2, 3, 4, 6, 8, 12, 16)
_MOST_PER_HEAD = 4
"""So many lengths are tried with each number of heads."""

Sizes = Mapping[str, int]


def search(model: ir.Model, layout: Layout, runs: Callable[[Sizes], bool], first: Sizes | None = None) -> list[Sizes]:
    """Return sizes of the free dimensions at which `model` runs, none if none was found in the time there is.

    Args:
        model: The model.
        layout: The dimensions of its inputs.
        runs: Whether it runs at some sizes.
        first: Sizes at which it should.

    Returns:
        The sizes that were found, and as many others near them as it runs at.
    """
    ends = time.monotonic() + _SECONDS
    for sizes in itertools.chain([first] if first else [], _tried(model, layout)):
        if time.monotonic() > ends:
            return []
        if runs(sizes):
            return [sizes, *(near for near in _near(layout, sizes) if time.monotonic() < ends and runs(near))]
    return []


def _tried(model: ir.Model, layout: Layout) -> Iterator[Sizes]:
    """Yield what shapes in the graph suggest, then what is usual; each also with tokens in the place of rows."""
    suggested = sizes_written(model)[:_MOST_SUGGESTED]
    for lengths, batches in itertools.product((suggested, _LENGTHS), _BATCHES):
        pairs = list(itertools.product(lengths, batches))
        yield from (layout.sizes(batch, length) for length, batch in pairs)
        if layout.rows:
            yield from (layout.sizes(length, batch) for length, batch in pairs)
        if lengths is suggested and batches is _BATCHES[0]:
            yield from _per_head(layout, (*suggested[:_MOST_PER_HEAD], _LENGTHS[0]))


def _per_head(layout: Layout, lengths: Sequence[int]) -> Iterator[Sizes]:
    """Yield sizes at which a mask, [rows · heads, S, S] or [rows · heads, 1, S], has a number of rows of its own."""
    free = layout.rows - layout.fixed.keys()
    masks = [dims for dims in layout.shapes.values() if len(dims) == 3 and _may_be_mask(*dims[1:])]
    names = sorted({str(dims[0]) for dims in masks} & free) if len(free) > 1 else []
    for length, name, heads in itertools.product(lengths, names, _HEADS):
        yield {**layout.sizes(2, length), name: 2 * heads}


def _may_be_mask(queries: Dim, keys: Dim) -> bool:
    return queries in (1, keys) or not (isinstance(queries, int) or isinstance(keys, int))


def _near(layout: Layout, sizes: Sizes) -> Iterator[Sizes]:
    """Yield sizes that differ in the number of rows, or in all others."""
    rows = {name: sizes[name] for name in layout.rows if name not in layout.fixed}
    others = {name: sizes[name] for name in layout.others if name not in layout.fixed}
    if rows:
        least = min(rows.values())
        more = ({name: size // least * batch for name, size in rows.items()} for batch in (2, 3) if batch != least)
        yield from ({**sizes, **each} for each in more)
    if others:
        yield {**sizes, **{name: 2 * size for name, size in others.items()}}
        yield {**sizes, **{name: size + 1 for name, size in others.items()}}
