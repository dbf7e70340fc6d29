"""Along which axis of an output its tokens lie, so that padding is not compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ffc.compiler.proof.probing.layout import counts_tokens, named
from ffc.graph.shapes.dim import Dim, symbols
from ffc.graph.shapes.inference import Shapes

__all__ = ["Place", "token_places"]


@dataclass(frozen=True)
class Place:
    """Where tokens lie in an output.

    Attributes:
        axis: 1 for [B, S, ...], 2 for attention [B, H, S, S]; 0 for an output with one entry per row, and for
            [S, B, ...]; None for one that does not depend on the batch.
        length: The dimension of these tokens: that of all, or of the last of them; None where there are none.
    """

    axis: int | None
    length: Dim | None = None

    @property
    def is_first(self) -> bool:
        """Whether tokens come before rows."""
        return self.axis == 0 and self.length is not None


def token_places(model: ir.Model, shapes: Shapes, rows: Dim, length: Dim) -> dict[str, Place]:
    """Return, by output, where its tokens lie, told by the names of dimensions.

    Args:
        model: The model.
        shapes: What is known of its shapes.
        rows: The dimension of rows.
        length: The dimension of tokens. Outputs may have those alone that a sum counts last, past and present.

    Returns:
        The places. Outputs for which names do not tell are left out.
    """
    known = {name for value in model.graph.inputs for dim in shapes.of(value) or () for name in symbols(_plain(dim))}
    found = {}
    for value in model.graph.outputs:
        dims = _dims(value, shapes.of(value) or (), known)
        if dims and not _told_by_size(dims, rows, length):
            found[str(value.name)] = _place(dims, rows, length)
    return found


def _plain(dim: Dim) -> Dim:
    """Return a dimension with a name that is a sum taken for that."""
    return dim if isinstance(dim, int) or len(symbols(dim)) > 1 or str(dim) not in symbols(dim) else named(str(dim))


def _dims(value: ir.Value, inferred: Sequence[Dim], known: set[str]) -> list[Dim]:
    """Return what is inferred of an output's dimensions, as the exporter named those that inputs have."""
    recorded = list(value.shape or ())
    dims = [_plain(dim) for dim in inferred]
    if len(recorded) != len(dims):
        return dims
    written = [None if isinstance(dim, int) or not dim.value else named(dim.value) for dim in recorded]
    return [
        dim if isinstance(dim, int) or name is None or not symbols(name) <= known else name
        for dim, name in zip(dims, written, strict=True)
    ]


def _place(dims: Sequence[Dim], rows: Dim, length: Dim) -> Place:
    if dims[0] != rows and counts_tokens(dims[0], length) and len(dims) > 1 and dims[1] == rows:
        return Place(0, dims[0])
    if isinstance(dims[0], int) and dims[0] != rows:
        return Place(None)
    if dims[0] != rows:
        return Place(0)
    if isinstance(length, int):  # an equal number may be a coincidence: labels, or a width
        return Place(1, length) if len(dims) > 2 and dims[1] == length else Place(0)
    axis = next((axis for axis in range(1, len(dims)) if counts_tokens(dims[axis], length)), 0)
    return Place(axis, dims[axis] if axis else None)


def _told_by_size(dims: Sequence[Dim], rows: Dim, length: Dim) -> bool:
    """Return whether nothing but its size tells if the second axis holds tokens."""
    if len(dims) < 3 or isinstance(dims[0], int) or isinstance(dims[1], int):
        return False
    return not any(dim == rows for dim in dims[:2]) or not any(counts_tokens(dim, length) for dim in dims)
