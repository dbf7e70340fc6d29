"""Following data through operators that only move it, by sending positions through the graph instead of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ffc.graph.shapes.dim import Dim, evaluate, symbols
from ffc.graph.shapes.inference import Shapes

__all__ = ["BATCH", "LENGTH", "concrete", "input_sizes", "move", "moves"]

BATCH, LENGTH = 2, 3
"""Sizes that stand for batch and tokens while positions travel; distinct, so that swapped axes are noticed."""

_MOVING = {"Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}


def moves(node: ir.Node | None) -> bool:
    """Whether `node` only moves elements of its first input."""
    return node is not None and not node.domain and node.op_type in _MOVING


def input_sizes(inputs: Sequence[ir.Value], shapes: Shapes, batch: int = BATCH, length: int = LENGTH) -> dict[str, int]:
    """Return a number for each symbol in the shapes of a graph's inputs: `batch` on axis 0, `length` elsewhere."""
    sizes: dict[str, int] = {}
    for value in inputs:
        for axis, dim in enumerate(shapes.of(value) or ()):
            for name in symbols(dim):
                sizes.setdefault(name, length if axis else batch)
    return sizes


def concrete(shapes: Shapes, value: ir.Value, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """Return the shape of `value` with `sizes` put in for its symbols, or None if it is not known that far."""
    shape = shapes.of(value)
    return None if shape is None else _numbers(shape, sizes)


def _numbers(dims: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    if any(name not in sizes for dim in dims for name in symbols(dim)):
        return None
    return tuple(evaluate(dim, sizes) for dim in dims)


def move(
    node: ir.Node, array: np.ndarray, output: ir.Value, shapes: Shapes, sizes: Mapping[str, int]
) -> np.ndarray | None:
    """Apply a moving node to `array`.

    Args:
        node: A node for which `moves` holds.
        array: What its first input holds.
        output: Which of its outputs is wanted.
        shapes: Shapes of the graph.
        sizes: A number for each symbol in them.

    Returns:
        What `output` then holds, or None where a shape or an index is not known, or `sizes` do not fit the graph.
    """
    try:
        return _moved(node, array, output, shapes, sizes)
    except (IndexError, ValueError):
        return None


def _moved(
    node: ir.Node, array: np.ndarray, output: ir.Value, shapes: Shapes, sizes: Mapping[str, int]
) -> np.ndarray | None:
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return array.transpose(None if perm is None else perm.value)
    if node.op_type in ("Gather", "Slice", "Split"):
        return _select(node, array, output, shapes, sizes)
    target = concrete(shapes, output, sizes)
    if target is None or int(np.prod(target)) != array.size:
        return None
    return array.reshape(target)


def _ints(shapes: Shapes, value: ir.Value | None, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    known = None if value is None else shapes.ints(value)
    return None if known is None else _numbers(known, sizes)


def _select(
    node: ir.Node, array: np.ndarray, output: ir.Value, shapes: Shapes, sizes: Mapping[str, int]
) -> np.ndarray | None:
    axis = node.attributes.get_int("axis", 0)
    inputs = [*node.inputs, None, None, None, None]
    if node.op_type == "Gather":
        index = _ints(shapes, inputs[1], sizes)
        rank = None if inputs[1] is None else shapes.of(inputs[1])
        if index is None or rank is None:
            return None
        return array.take(index[0] if not rank else np.asarray(index), axis)
    if node.op_type == "Split":
        parts = _ints(shapes, inputs[1], sizes)
        if parts is None:
            step = array.shape[axis] // len(node.outputs)
            parts = (step,) * len(node.outputs)
        return np.split(array, np.cumsum(parts)[:-1], axis)[node.outputs.index(output)]
    starts, ends = _ints(shapes, inputs[1], sizes), _ints(shapes, inputs[2], sizes)
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if inputs[3] is None else _ints(shapes, inputs[3], sizes)
    steps = (1,) * len(starts) if inputs[4] is None else _ints(shapes, inputs[4], sizes)
    if axes is None or steps is None or any(step < 1 for step in steps):
        return None
    window = [slice(None)] * array.ndim
    for one, start, end, step in zip(axes, starts, ends, steps, strict=True):
        window[one] = slice(start, end, step)
    return array[tuple(window)]
