"""Sizes and numbers that a graph asks of its inputs, told by the constants that it holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import constant

__all__ = ["demanded", "numbers_compared", "sizes_written"]

_SAME = {
    "Abs", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Softmax", "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_ELEMENTWISE = {"Add", "Div", "Mul", "Pow", "Sub"}
_NORMS = {"BatchNormalization": 1, "InstanceNormalization": 1, "LayerNormalization": -1, "RMSNormalization": -1}
_RECURRENT = {"GRU", "LSTM", "RNN"}
_SHAPING = {"Concat", "Expand", "Range", "Reshape", "Slice", "Split", "Tile"}

_LARGEST = 4096
"""A number above this is no size of an input to try."""

_Axes = tuple[int | None, ...]
"""For each axis of a value the axis of the input that it is."""


def demanded(value: ir.Value) -> dict[int, int]:
    """Return, by axis of an input of known rank, the size that a weight it meets asks of it."""
    found: dict[int, int] = {}
    met: set[ir.Value] = set()
    pending: list[tuple[ir.Value, _Axes]] = [(value, tuple(range(len(value.shape or ()))))]
    while pending:
        here, axes = pending.pop()
        if here in met:
            continue
        met.add(here)
        for use in here.uses():
            for place, size in _asked(use.node, use.idx, len(axes)):
                axis = axes[place] if -len(axes) <= place < len(axes) else None
                if axis is not None:
                    found.setdefault(axis, size)
            passed = _passed(use.node, use.idx, axes)
            if passed is not None and use.node.outputs:
                pending.append((use.node.outputs[0], passed))
    return found


def _asked(node: ir.Node, index: int, rank: int) -> Iterator[tuple[int, int]]:
    """Yield what a node asks of the axes of its input `index`."""
    weights = [constant(other) for other in node.inputs[:3]]
    second = weights[1] if len(weights) > 1 else None
    if node.op_type in _ELEMENTWISE and len(weights) == 2 and (other := weights[1 - index]) is not None:
        yield from ((axis - other.ndim, size) for axis, size in enumerate(other.shape) if size > 1)
    elif node.op_type in _RECURRENT and len(weights) == 3 and second is not None:
        directions, _, width = second.shape
        recurrent = weights[2]
        if index == 0:
            yield -1, width
        elif index in (5, 6) and recurrent is not None:
            yield from ((0, directions), (-1, recurrent.shape[-1]))
    elif index or second is None:
        return
    elif node.op_type in ("MatMul", "MatMulInteger"):
        yield -1, second.shape[max(0, second.ndim - 2)]
    elif node.op_type == "Gemm":
        yield (0 if _number(node, "transA", 0) else 1), second.shape[1 if _number(node, "transB", 0) else 0]
    elif node.op_type == "Conv":
        yield 1, second.shape[1] * _number(node, "group", 1)
    elif node.op_type in _NORMS and second.ndim == 1:
        yield _NORMS[node.op_type], len(second)


def _passed(node: ir.Node, index: int, axes: _Axes) -> _Axes | None:
    """Return the axes of what a node makes of its input `index`, None where they cannot be followed."""
    kind = node.op_type
    if (kind in _SAME or kind in _NORMS) and index == 0:
        return axes
    if kind in _ELEMENTWISE:
        other = node.inputs[1 - index]
        rank = None if other is None or other.shape is None else len(other.shape)
        return axes if rank is not None and rank <= len(axes) else None
    if kind == "Transpose":
        order = node.attributes.get("perm")
        places = tuple(order.as_ints()) if order else tuple(reversed(range(len(axes))))
        return tuple(axes[place] for place in places) if sorted(places) == list(range(len(axes))) else None
    if kind == "MatMul" and index == 0 and constant(node.inputs[1]) is not None:
        return (*axes[:-1], None)
    if kind == "Concat":
        along = _number(node, "axis", 0) % max(1, len(axes))
        return tuple(None if place == along else axis for place, axis in enumerate(axes))
    return None


def _number(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def numbers_compared(value: ir.Value) -> list[int]:
    """Return the numbers that a graph compares an input with for equality, such as the rates that it knows."""
    found: list[int] = []
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            if use.node.op_type == "Equal":
                other = constant(use.node.inputs[1 - use.idx])
                found += [] if other is None or other.size != 1 else [int(other.reshape(()))]
            elif use.node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze") and use.idx == 0:
                pending += use.node.outputs
    return found


def sizes_written(model: ir.Model) -> list[int]:
    """Return sizes that shapes written in a graph suggest for its inputs, sides of squares too; frequent ones first."""
    found: Counter[int] = Counter()
    for node in model.graph:
        for value in node.inputs[:1] if node.op_type == "Concat" else node.inputs[1:]:
            if node.op_type in _SHAPING:
                found.update(_small(constant(value)))
        if node.op_type == "Concat":
            found.update(number for value in node.inputs[1:] for number in _small(constant(value)))
        elif node.op_type == "Split" and (lengths := node.attributes.get("split")):
            found.update([sum(lengths.as_ints())])
    for value in model.graph.outputs:
        found.update(dim for dim in value.shape or () if isinstance(dim, int))
    sides = {math.isqrt(size): count for size, count in found.items() if size > 1 and math.isqrt(size) ** 2 == size}
    return [size for size, _ in (found + Counter(sides)).most_common() if 1 < size <= _LARGEST]


def _small(array: np.ndarray | None) -> Sequence[int]:
    """Return the numbers of a small array of integers."""
    return [] if array is None or array.dtype.kind not in "iu" or array.size > 8 else [int(n) for n in array.ravel()]
