"""Along which axis of an output its tokens lie, so that padding is not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ffc.graph.shapes.dim import Dim
from ffc.graph.shapes.inference import infer

__all__ = ["token_axes"]


def token_axes(model: ir.Model, mask: ir.Value | None) -> dict[str, int | None]:
    """Return, by output, the axis of the tokens of `mask`, as `mask_input` finds it, told by the names of dimensions.

    Returns:
        1 for [B, S, ...], 2 for attention [B, H, S, S]; 0 for an output with one entry per row; None for one that does
        not depend on the batch. Outputs for which names do not tell are left out.
    """
    if mask is None or mask.shape is None:
        return {}
    shapes = infer(model)
    wanted = shapes.of(mask)
    if not wanted:
        return {}
    batch, length = wanted[0], wanted[-1]
    names = {_name(mask.shape[0]): batch, _name(mask.shape[-1]): length}
    found = {}
    for value in model.graph.outputs:
        dims = _dims(value, shapes.of(value) or (), names)
        if dims and not _told_by_size(dims, batch, length):
            found[str(value.name)] = _token_axis(dims, batch, length)
    return found


def _name(dim: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(dim, int) else dim.value


def _dims(value: ir.Value, inferred: Sequence[Dim], names: Mapping[str | None, Dim]) -> list[Dim]:
    """Return what is inferred of an output's dimensions, those of the mask's names taken as the exporter named them."""
    recorded = [_name(dim) for dim in value.shape or ()]
    if len(recorded) != len(inferred):
        return list(inferred)
    return [
        dim if isinstance(dim, int) or not name else names.get(name, dim)
        for dim, name in zip(inferred, recorded, strict=True)
    ]


def _token_axis(dims: Sequence[Dim], batch: Dim, length: Dim) -> int | None:
    if isinstance(dims[0], int) and dims[0] != batch:
        return None
    if dims[0] != batch:
        return 0
    if isinstance(length, int):  # an equal number may be a coincidence: labels, or a width
        return 1 if len(dims) > 2 and dims[1] == length else 0
    return next((axis for axis in range(1, len(dims)) if dims[axis] == length), 0)


def _told_by_size(dims: Sequence[Dim], batch: Dim, length: Dim) -> bool:
    """Return whether nothing but its size tells if the second axis holds tokens."""
    if len(dims) < 3 or isinstance(dims[0], int) or isinstance(dims[1], int):
        return False
    return dims[0] != batch or length not in dims[1:]
