"""Weights, biases and tables that lie on steps, as floats."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc import Editor, constant
from ffc.graph.dialect import quantise
from ffc.graph.dialect.edit import producer
from ffc.graph.shapes.positions import moves

__all__ = ["compute", "move_back"]


def move_back(editor: Editor) -> int:
    """Let what moves elements, such as a look-up, move the numbers that they stand for; return how many did."""
    pending, count = [node for node in editor.graph if _dequantizes(node)], 0
    while pending:
        node = pending.pop()
        mover, scale = producer(node.inputs[0]), node.inputs[1]
        if mover is None or not moves(mover) or scale is None or editor.shapes.of(scale) not in [(), (1,)]:
            continue
        hint = f"{node.outputs[0].name}.moved"
        exact = editor.at(node, hint).DequantizeLinear(mover.inputs[0], *node.inputs[1:])
        attributes, outputs = {name: attr.value for name, attr in mover.attributes.items()}, len(mover.outputs)
        moved = editor.at(node, hint).node(mover.op_type, exact, *mover.inputs[1:], outputs=outputs, **attributes)
        place = mover.outputs.index(node.inputs[0])
        editor.replace(node.outputs[0], moved if outputs == 1 else moved[place], fresh=True)
        pending += [made for made in [exact.producer()] if made is not None]
        count += 1
    return count


def compute(editor: Editor) -> int:
    """Compute constants that are rounded to steps, and those that lie on steps as floats; return how many of these."""
    count = 0
    for node in list(editor.graph):
        arrays = [constant(value) for value in node.inputs if value is not None]
        if node.domain or node.op_type not in _COMPUTED or any(array is None for array in arrays):
            continue
        axis, size = (attribute.value if (attribute := node.attributes.get(name)) else default for name, default in _AT)
        result = _COMPUTED[node.op_type]([array for array in arrays if array is not None], axis, size)
        if result is None:
            continue
        out = node.outputs[0]
        editor.replace(out, editor.constant(result, out.name or "weight"))
        count += node.op_type == "DequantizeLinear"
    return count


_AT = (("axis", 1), ("block_size", 0))


def _dequantizes(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and not node.domain


def _exact(given: list[np.ndarray], axis: int, block_size: int) -> np.ndarray | None:
    """What DequantizeLinear gives: ``(x - zero) * scale``."""
    x, scale, *zero = given
    if scale.dtype.kind != "f":
        return None
    numbers = x.astype(scale.dtype)
    if zero:
        numbers = numbers - _along(zero[0], x.shape, axis, block_size).astype(scale.dtype)
    return np.asarray(numbers * _along(scale, x.shape, axis, block_size))


def _rounded(given: list[np.ndarray], axis: int, block_size: int) -> np.ndarray | None:
    """What QuantizeLinear gives: ``x / scale`` to the nearest, plus zero, within the range of the type."""
    x, scale, *zeros = given
    zero = zeros[0] if zeros else np.zeros((), np.uint8)
    ends = quantise.ends(zero.dtype)
    if ends is None or x.dtype != scale.dtype:
        return None
    steps = np.rint(x / _along(scale, x.shape, axis, block_size))
    return np.asarray(np.clip(steps + _along(zero, x.shape, axis, block_size).astype(np.float64), *ends), zero.dtype)


def _along(array: np.ndarray, shape: tuple[int, ...], axis: int, block_size: int) -> np.ndarray:
    """Return scales or zero points so that they fit what they belong to: one, one for each index, or for each block."""
    if block_size:
        return np.repeat(array, block_size, axis=axis).take(range(shape[axis]), axis=axis)
    if array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


_COMPUTED = {"DequantizeLinear": _exact, "QuantizeLinear": _rounded}
