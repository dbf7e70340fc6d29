"""Smaller sizes and simpler numbers: free dimensions fixed, weights sliced all alike, their contents plain."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["FILLINGS", "fixed", "is_simple", "resized", "simplified", "sizes"]

FILLINGS = ("zeros", "ones", "steps")
"""What weights are filled with, the simplest first."""

_BATCH, _LENGTH = 3, 11
_NO_SIZES = {"axes", "axis", "dtype", "perm", "to"}
_SHAPE_INTS = 64
"""Integers of at most this many entries in a row may be a shape."""


def fixed(model: ir.Model) -> ir.Model | None:
    """Return the model with its free dimensions fixed at small numbers that are no other size of it; None without any.

    One that comes first in an input is a batch, the others are lengths.
    """
    copy = model.clone()
    taken = set(sizes(model))
    batch, length = (_next_free(number, taken) for number in (_BATCH, _LENGTH))
    known: dict[str, int] = {}
    for value in copy.graph.inputs:
        dims: list[int | ir.SymbolicDim] = list(value.shape or ())
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int) or dim < 0:
                name = (None if isinstance(dim, int) else dim.value) or f"{value.name}.{axis}"
                dims[axis] = known.setdefault(name, length if axis else batch)
        if value.shape is not None:
            value.shape = ir.Shape(dims)
    if not known:
        return None
    for value in _computed(copy):  # what was noted of them is said of free dimensions
        value.shape = None if not value.is_graph_output() else _with_names(value.shape, known)
    return copy


def sizes(model: ir.Model) -> list[int]:
    """Return the sizes above 1 that inputs and weights have, the largest first."""
    found = {dim for value in model.graph.inputs for dim in value.shape or () if isinstance(dim, int)}
    for value in model.graph.initializers.values():
        if value.const_value is not None and not _is_shape(value.const_value):
            found.update(int(dim) for dim in value.const_value.shape.numpy())
    return sorted((size for size in found if size > 1), reverse=True)


def resized(model: ir.Model, wanted: Mapping[int, int], *, tail: bool = False) -> ir.Model:
    """Return the model with each dimension of a size in `wanted` of the size that this says.

    Args:
        model: The model.
        wanted: New sizes by old ones.
        tail: Whether weights keep their last entries along such a dimension, rather than their first.
    """
    copy = model.clone()
    for value in [*copy.graph.inputs, *_computed(copy)]:
        if value.shape is not None:
            value.shape = ir.Shape([wanted.get(dim, dim) if isinstance(dim, int) else dim for dim in value.shape])
    for value in copy.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING:
            _fill(value, _sliced(value.const_value, wanted, tail))
    for node in copy.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if name not in _NO_SIZES and not attribute.is_ref():
                node.attributes[name] = _renumbered(attribute, wanted)
    return copy


def simplified(model: ir.Model, names: Collection[str], filling: str) -> ir.Model:
    """Return the model with float weights of those names filled with plain numbers."""
    copy = model.clone()
    for name in names:
        value = copy.graph.initializers[name]
        if value.const_value is not None:
            array = value.const_value.numpy()
            _fill(value, _filling(filling, array.shape).astype(array.dtype))
    return copy


def is_simple(tensor: ir.TensorProtocol | None, filling: str) -> bool:
    """Whether a weight is as simple as that filling, or is not to be filled at all."""
    if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
        return True
    array = tensor.numpy()
    simpler = FILLINGS[: FILLINGS.index(filling) + 1]
    return array.size < 2 or any(np.array_equal(array, _filling(name, array.shape)) for name in simpler)


def _filling(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "steps":  # no row is a multiple of another, and none is large
        return np.asarray((np.arange(math.prod(shape)) % 7 * 0.25).reshape(shape).astype(np.float32))
    return (np.zeros if name == "zeros" else np.ones)(shape, np.float32)


def _next_free(number: int, taken: Collection[int]) -> int:
    while number in taken:
        number += 1
    return number


def _computed(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph:
        yield from node.outputs


def _with_names(shape: ir.Shape | None, known: Mapping[str, int]) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([dim if isinstance(dim, int) else known.get(dim.value or "", dim) for dim in shape])


def _is_shape(tensor: ir.TensorProtocol) -> bool:
    return (
        tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32) and len(tensor.shape) <= 1 and tensor.size <= _SHAPE_INTS
    )


def _sliced(tensor: ir.TensorProtocol, wanted: Mapping[int, int], tail: bool) -> np.ndarray | None:
    """Return the contents of a tensor at the sizes wanted, None where they stay."""
    if _is_shape(tensor):
        array = tensor.numpy()
        numbers = np.array([wanted.get(int(n), int(n)) for n in array.reshape(-1)], array.dtype).reshape(array.shape)
        return None if np.array_equal(numbers, array) else numbers
    shape = [int(dim) for dim in tensor.shape.numpy()]
    if not any(dim in wanted for dim in shape):
        return None
    kept = tuple(
        slice(None) if dim not in wanted else slice(dim - wanted[dim], None) if tail else slice(wanted[dim])
        for dim in shape
    )
    return np.ascontiguousarray(tensor.numpy()[kept])


def _fill(value: ir.Value, array: np.ndarray | None) -> None:
    if array is not None:
        assert value.const_value is not None
        value.const_value = ir.Tensor(array, value.const_value.dtype, name=value.name)
        value.shape = ir.Shape(array.shape)


def _renumbered(attribute: ir.Attr, wanted: Mapping[int, int]) -> ir.Attr:
    if attribute.type == ir.AttributeType.INT:
        return ir.AttrInt64(attribute.name, wanted.get(attribute.as_int(), attribute.as_int()))
    if attribute.type == ir.AttributeType.INTS:
        return ir.AttrInt64s(attribute.name, [wanted.get(number, number) for number in attribute.as_ints()])
    return attribute
