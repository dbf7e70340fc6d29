"""Shape rules of the standard operators that move, select or combine elements; most also follow small contents."""

from __future__ import annotations

import onnx_ir as ir

from ffc.graph.shapes.dim import Dim, at_least, bounds, ceildiv, maximum, minimum, product
from ffc.graph.shapes.rule import (
    MAX_INTS,
    Out,
    PartialShape,
    Site,
    UnknownError,
    broadcast,
    normal_axis,
    op,
    plain,
    same,
    tensor_ints,
)

__all__: list[str] = []

# Ends of a slice from here on mean "to the end": exporters write the largest int32 or int64.
_ENDLESS = 2**31 - 1


@op("Constant")
def _constant(site: Site) -> Out:
    tensor = site.attr("value")
    if tensor is not None:
        return Out(tuple(tensor.shape.numpy()), tensor.dtype, tensor_ints(tensor))
    for name, dtype in (("int", ir.DataType.INT64), ("float", ir.DataType.FLOAT), ("string", ir.DataType.STRING)):
        one, several = site.attr(f"value_{name}"), site.attr(f"value_{name}s")
        if one is None and several is None:
            continue
        values = (one,) if several is None else tuple(several)
        known = name == "int" and len(values) <= MAX_INTS
        return Out(() if several is None else (len(values),), dtype, values if known else None)
    raise UnknownError


@op("ConstantOfShape")
def _constant_of_shape(site: Site) -> Out:
    tensor = site.attr("value")
    dtype = ir.DataType.FLOAT if tensor is None else tensor.dtype
    length = site.shape(0)[0]
    if site.fact(0).ints is None:
        return Out(_open(length), dtype)
    shape = _sizes(site.ints(0))
    one = None if tensor is None else tensor_ints(tensor)
    return Out(shape, dtype, _repeated(one, shape) if one is not None else None)


def _open(rank: Dim) -> PartialShape:
    """Return a shape of the given rank of which nothing else is known."""
    if not isinstance(rank, int) or not 0 <= rank <= MAX_INTS:
        raise UnknownError
    return (None,) * rank


def _sizes(ints: tuple[Dim, ...]) -> PartialShape:
    return tuple(value if at_least(value, 0) else None for value in ints)


def _repeated(ints: tuple[Dim, ...], shape: PartialShape) -> tuple[Dim, ...] | None:
    """Return the contents that a one-element tensor has once stretched to `shape`."""
    if len(ints) != 1 or len(shape) > 1:
        return None
    count = shape[0] if shape else 1
    return ints * count if isinstance(count, int) and count <= MAX_INTS else None


@op("Shape")
def _shape(site: Site) -> Out:
    dims = site.shape(0)[slice(site.attr("start", 0), site.attr("end"))]
    return Out((len(dims),), ir.DataType.INT64, dims)


@op("Size")
def _size(site: Site) -> Out:
    return Out((), ir.DataType.INT64, (product(site.shape(0)),))


@op("Range")
def _range(site: Site) -> Out:
    columns = site.columns()
    if columns is None:
        return Out((None,), site.dtype())
    (start,), (limit,), (delta,) = columns
    if not isinstance(delta, int) or delta == 0:
        raise UnknownError
    way = limit - start if delta > 0 else start - limit
    return Out((maximum(0, ceildiv(way, abs(delta))),), site.dtype())


@op("Reshape")
def _reshape(site: Site) -> Out:
    target = site.given("shape", 1)
    if target is None:
        return Out(_open(site.shape(1)[0]), site.dtype())
    source = site.fact(0).shape
    dims: list[Dim | None] = []
    for axis, size in enumerate(target):
        if size == 0 and not site.attr("allowzero", 0):
            dims.append(source[axis] if source is not None else None)
        else:
            dims.append(size if at_least(size, 0) else None)
    # With one open size the element counts settle it, be it a -1 or an expression of unknown sign.
    if source is not None and dims.count(None) == 1:
        rest = product(dim for dim in dims if dim is not None)
        dims[dims.index(None)] = product(source) // rest if rest != 0 else None
    return Out(tuple(dims), site.dtype(), site.fact(0).ints)


@op("Flatten")
def _flatten(site: Site) -> Out:
    shape = site.shape(0)
    axis = site.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return Out((product(shape[:axis]), product(shape[axis:])), site.dtype())


@op("Transpose")
def _transpose(site: Site) -> Out:
    shape = site.shape(0)
    perm = site.attr("perm") or range(len(shape))[::-1]
    return Out(tuple(shape[axis] for axis in perm), site.dtype(), site.fact(0).ints)


@op("Squeeze")
def _squeeze(site: Site) -> Out:
    shape = site.shape(0)
    axes = site.axes(1)
    if axes is None:
        # A symbolic size may turn out to be 1 or not: the rank is known only if none can be.
        if not all(isinstance(dim, int) or at_least(dim, 2) for dim in shape):
            raise UnknownError
        gone = {axis for axis, dim in enumerate(shape) if dim == 1}
    else:
        gone = {normal_axis(axis, len(shape)) for axis in axes}
    kept = tuple(dim for axis, dim in enumerate(shape) if axis not in gone)
    return Out(kept, site.dtype(), site.fact(0).ints)


@op("Unsqueeze")
def _unsqueeze(site: Site) -> Out:
    shape, axes = site.shape(0), site.axes(1)
    if axes is None:
        raise UnknownError
    rank = len(shape) + len(axes)
    new = {normal_axis(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise UnknownError
    old = iter(shape)
    return Out(tuple(1 if axis in new else next(old) for axis in range(rank)), site.dtype(), site.fact(0).ints)


@op("Concat")
def _concat(site: Site) -> Out:
    shapes = [site.shape(i) for i in range(len(site.inputs))]
    axis = site.axis(1, len(shapes[0]))
    dims: list[Dim | None] = list(shapes[0])
    for shape in shapes[1:]:
        dims = [same(a, b) for a, b in zip(dims, shape, strict=True)]
    dims[axis] = sum(shape[axis] for shape in shapes)
    columns = site.columns()
    whole = None if columns is None else tuple(value for column in columns for value in column)
    return Out(tuple(dims), site.dtype(), whole)


@op("Split")
def _split(site: Site) -> list[Out]:
    shape, count = site.shape(0), len(site.node.outputs)
    axis = site.axis(0, len(shape))
    sizes: PartialShape
    if site.has(1) or site.attr("split") is not None:
        sizes = site.given("split", 1) or (None,) * count
    else:
        # num_outputs: all parts are rounded up, the last one takes what is left.
        part = ceildiv(shape[axis], count)
        last = shape[axis] - part * (count - 1)
        sizes = (part,) * (count - 1) + (last if at_least(last, 0) else None,)
    return [Out((*shape[:axis], size, *shape[axis + 1 :]), site.dtype()) for size in sizes]


@op("Slice")
def _slice(site: Site) -> Out:
    shape = site.shape(0)
    axes, starts, ends = site.axes(3), site.given("starts", 1), site.given("ends", 2)
    if axes is None:
        axes = tuple(range(len(starts if starts is not None else shape)))
    steps = site.constants(4) if site.has(4) else (1,) * len(axes)
    dims: list[Dim | None] = list(shape)
    for index, axis in enumerate(axes):
        cut = (starts[index], ends[index], steps[index]) if starts is not None and ends is not None else None
        where = normal_axis(axis, len(shape))
        dims[where] = None if cut is None else _sliced(shape[where], *cut)
    ints, first, last = site.fact(0).ints, plain(starts), plain(ends)
    if ints is None or first is None or last is None or axes not in ((0,), (-1,)):
        return Out(tuple(dims), site.dtype())
    return Out(tuple(dims), site.dtype(), ints[first[0] : last[0] : steps[0]])


def _sliced(dim: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """Return how many of `dim` elements ``start:end:step`` selects."""
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(dim)))
    if step < 1:
        return None
    first, last = _position(dim, start), _position(dim, end)
    if first is None or last is None:
        return None
    length = last - first if at_least(last, first) else maximum(0, last - first)
    return ceildiv(length, step)


def _position(dim: Dim, index: Dim) -> Dim | None:
    """Return `index` counted from the front and clamped to 0..`dim`; None if its sign cannot be told."""
    low, high = bounds(index)
    if low is not None and low >= 0:
        return dim if low >= _ENDLESS else minimum(index, dim)
    if high is not None and high < 0:
        return 0 if high <= -_ENDLESS else maximum(0, dim + index)
    return None


@op("Gather")
def _gather(site: Site) -> Out:
    data, indices = site.shape(0), site.shape(1)
    axis = site.axis(0, len(data))
    shape = data[:axis] + indices + data[axis + 1 :]
    contents, picked = site.fact(0).ints, plain(site.fact(1).ints)
    if contents is None or picked is None or len(data) != 1:
        return Out(shape, site.dtype())
    return Out(shape, site.dtype(), tuple(contents[index] for index in picked))


@op("GatherElements")
def _gather_elements(site: Site) -> Out:
    return Out(site.shape(1), site.dtype())


@op("GatherND")
def _gather_nd(site: Site) -> Out:
    data, indices = site.shape(0), site.shape(1)
    depth = indices[-1]
    if not isinstance(depth, int):
        raise UnknownError
    return Out(indices[:-1] + data[site.attr("batch_dims", 0) + depth :], site.dtype())


@op("Expand")
def _expand(site: Site) -> Out:
    source = site.shape(0)
    if site.fact(1).ints is None:
        return Out(broadcast(source, _open(site.shape(1)[0])), site.dtype())
    shape = broadcast(source, _sizes(site.ints(1)))
    ints = site.fact(0).ints
    if ints is not None and shape != source:
        ints = _repeated(ints, shape)
    return Out(shape, site.dtype(), ints)


@op("Tile")
def _tile(site: Site) -> Out:
    shape = site.shape(0)
    if site.fact(1).ints is None:
        return Out(_open(len(shape)), site.dtype())
    return Out(tuple(dim * times for dim, times in zip(shape, site.ints(1), strict=True)), site.dtype())


@op("Pad")
def _pad(site: Site) -> Out:
    shape = site.shape(0)
    pads = site.given("pads", 1)
    if pads is None:
        return Out(_open(len(shape)), site.dtype())
    axes = site.axes(3)
    axes = tuple(range(len(shape))) if axes is None else axes
    dims: list[Dim | None] = list(shape)
    for index, axis in enumerate(axes):
        where = normal_axis(axis, len(shape))
        dims[where] = shape[where] + pads[index] + pads[index + len(axes)]
    return Out(tuple(dims), site.dtype())
