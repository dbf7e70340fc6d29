"""ReLUs and Clips put in the place of steps: which are needed, by what is known of the numbers that they read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ffc import Editor, Log, constant
from ffc.graph.dialect.edit import producer
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import moves

__all__ = ["cutting_nodes", "drop_needless"]

_CUTTING = ("Clip", "Relu")

_Range = tuple[float, float]
"""The least and the largest number that there may be."""

_ANY: _Range = (-math.inf, math.inf)
_OPERATORS: dict[str, _Range] = {
    "Abs": (0, math.inf), "Erf": (-1, 1), "Exp": (0, math.inf), "HardSigmoid": (0, 1), "Relu": (0, math.inf),
    "Sigmoid": (0, 1), "Softmax": (0, 1), "Sqrt": (0, math.inf), "Tanh": (-1, 1),
}  # fmt: skip

_HIDES = -1e4
"""Times this or less, one token more or less that counts leaves nothing of a score."""

_WHOLE = {"Ceil", "Floor", "Round", "Sign"}


def cutting_nodes(editor: Editor) -> set[ir.Node]:
    """Return the ReLUs and Clips of a model."""
    return {node for node in editor.graph if node.op_type in _CUTTING}


def drop_needless(editor: Editor, log: Log, own: Collection[ir.Node]) -> None:
    """Drop ReLUs and Clips that rules wrote and nothing needs; the one operator that rules see does not tell.

    Args:
        editor: Of the model.
        log: Is told of masks.
        own: Those that the model had before.
    """
    shapes = editor.shapes
    for node in list(editor.graph):
        x = node.inputs[0] if node.op_type in _CUTTING and not node.domain and node not in own else None
        if x is None:
            continue
        (low, high), (least, most) = _range_of(x, shapes), _cut(node, shapes)
        if least <= low and high <= most:
            editor.replace(node.outputs[0], x)
        elif _is_mask(x, shapes):
            log.note(f"the mask {x.name} was rounded to steps from 0, as if no token was hidden; here it hides them")
            editor.replace(node.outputs[0], x)
        elif node.op_type == "Clip" and not _is_learnt(x, shapes):  # whole numbers of the inputs
            editor.replace(node.outputs[0], x if least else editor.at(node, f"{x.name}.above").Relu(x))


def _cut(node: ir.Node, shapes: Shapes) -> _Range:
    """Return the least and the largest number that a ReLU, or a Clip of both ends, lets through."""
    if node.op_type == "Relu":
        return 0, math.inf
    least, most = (_range_of(each, shapes) for each in node.inputs[1:])
    return least[0], most[1]


def _range_of(value: ir.Value | None, shapes: Shapes, depth: int = 8) -> _Range:
    """Return between what the numbers of `value` are known to lie; `depth` operators are looked at."""
    array, node = constant(value), producer(value)
    if array is not None and array.size and array.dtype.kind in "biuf":
        return float(array.min()), float(array.max())
    if node is None or node.domain or not depth:
        return _ANY
    combined = node.op_type in _COMBINED or moves(node)
    known = [_range_of(each, shapes, depth - 1) for each in node.inputs] if combined else []
    match node.op_type:
        case "Add":
            return known[0][0] + known[1][0], known[0][1] + known[1][1]
        case "Sub":
            return known[0][0] - known[1][1], known[0][1] - known[1][0]
        case "Mul":
            ends = [0 if 0 in pair else pair[0] * pair[1] for pair in itertools.product(*known)]
            return min(ends), max(ends)
        case "Where":
            return min(known[1][0], known[2][0]), max(known[1][1], known[2][1])
        case "Clip":
            least, most = known[1:] if len(known) == 3 else (_ANY, _ANY)
            return min(max(known[0][0], least[0]), most[0]), min(max(known[0][1], least[1]), most[1])
        case "Cast":
            source = node.inputs[0]
            return (0, 1) if source is not None and shapes.dtype(source) == ir.DataType.BOOL else _ANY
    return known[0] if known else _OPERATORS.get(node.op_type, _ANY)


_COMBINED = {"Add", "Clip", "Expand", "Mul", "Sub", "Where"}


def _is_mask(value: ir.Value, shapes: Shapes) -> bool:
    """Whether `value` can only be what hides tokens: nothing in it is above 0, or it is a flag times what hides them.

    Behind what is never above 0 nobody has a ReLU, which would leave nothing of it.
    """
    node = producer(value)
    if _range_of(value, shapes)[1] <= 0:
        return True
    if node is None or node.domain:
        return False
    if moves(node) or node.op_type == "Expand":
        return node.inputs[0] is not None and _is_mask(node.inputs[0], shapes)
    if node.op_type == "Add":
        return all(each is not None and _is_mask(each, shapes) for each in node.inputs)
    factors = map(constant, node.inputs) if node.op_type == "Mul" else ()
    hides = any(array is not None and (array <= _HIDES).all() for array in factors)
    return hides and not any(each.is_graph_input() or _is_weight(each) for each in _float_sources(value, shapes))


def _is_learnt(value: ir.Value, shapes: Shapes) -> bool:
    """Whether weights have a part in `value`, so that round numbers do not come of inputs that hold such numbers."""
    return any(_is_weight(source) for source in _float_sources(value, shapes))


def _is_weight(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.size > 1 and not np.array_equal(array, np.rint(array))


def _float_sources(value: ir.Value, shapes: Shapes) -> list[ir.Value]:
    """Return the inputs and constants that `value` is computed from, by way of floats that need not be whole."""
    pending, found = [value], list[ir.Value]()
    seen = {value}
    while pending:
        here = pending.pop()
        node, dtype = producer(here), shapes.dtype(here)
        if dtype is not None and not dtype.is_floating_point():
            continue
        if node is None or constant(here) is not None:
            found.append(here)
        elif node.op_type not in _WHOLE:
            fresh = [each for each in node.inputs if each is not None and each not in seen]
            seen.update(fresh)
            pending += fresh
    return found
