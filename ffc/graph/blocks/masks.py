"""What the graph tells of masks: whether all queries see the same, how low numbers go, and how far queries see."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import constant, producer
from ffc.graph.shapes.inference import Shapes

__all__ = ["FLOOR", "HIDDEN", "is_at_least", "is_of_products", "is_same_for_all_queries", "lows", "widest_window"]

HIDDEN = -1e30
"""What hides a token: scores vanish beside it, and a few of it add up to a finite number."""

FLOOR = -1e38
"""What a mask holds at least: below all that hides tokens, and not yet the lowest float, which kernels mistake."""

_COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_BY_ELEMENT = {"Add", "And", "Cast", "Equal", "Identity", "Max", "Min", "Mul", "Not", "Or", "Sub", "Where", "Xor"}
_BY_ELEMENT |= _COMPARISONS

_MOVING = {"Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}

_OF_DISTANCES = {"Abs", "Add", "Neg", "Sub", "Unsqueeze"}


def is_same_for_all_queries(mask: ir.Value, shapes: Shapes) -> bool:
    """Whether a mask [..., queries, keys] is known to be the same for all queries.

    A query that may attend to nothing then stands in a row of the batch that is masked throughout.
    """
    pending, seen = [mask], {mask}
    for value in pending:  # grows while it is walked
        shape, array, node = shapes.of(value), constant(value), producer(value)
        if shape is not None and (len(shape) < 2 or shape[-2] == 1):
            continue
        if array is not None and (array == array[..., :1, :]).all():
            continue
        if node is None or node.domain or node.op_type not in (*_BY_ELEMENT, "Expand"):
            return False
        parts = node.inputs[:1] if node.op_type == "Expand" else node.inputs
        fresh = [part for part in dict.fromkeys(parts) if part is not None and part not in seen]
        seen.update(fresh)
        pending += fresh
    return True


def is_at_least(value: ir.Value | None, low: float) -> bool:
    """Whether all numbers of `value` are known to be `low` or more."""
    array, node = constant(value), producer(value)
    if array is not None:
        return array.dtype.kind == "f" and bool((array >= low).all())
    if node is None or node.domain:
        return False
    match node.op_type:
        case "Where":
            return all(is_at_least(choice, low) for choice in node.inputs[1:])
        case "Max":
            return any(is_at_least(operand, low) for operand in node.inputs)
        case "Add":
            return all(is_at_least(operand, low / 2) for operand in node.inputs)
    return node.op_type in _MOVING and is_at_least(node.inputs[0], low)


def lows(value: ir.Value | None) -> frozenset[float] | None:
    """Return the numbers below `HIDDEN` that `value` may hold; None where they are not known."""
    array, node = constant(value), producer(value)
    if array is not None:
        return frozenset(float(number) for number in np.unique(array) if number < HIDDEN)
    if node is None or node.domain:
        return None
    if node.op_type in _MOVING:
        return lows(node.inputs[0])
    if node.op_type == "Where":
        one, other = (lows(choice) for choice in node.inputs[1:])
        return None if one is None or other is None else one | other
    return frozenset() if is_at_least(value, HIDDEN) else None


def is_of_products(scores: ir.Value | None, low: float, *, whole: bool = False) -> bool:
    """Whether `scores` are products and factors on them, numbers of `low` or more added, and others that vanish there.

    Where they are `whole`, they may be an input of the graph.
    """
    node = producer(scores)
    if node is None or node.domain:
        return node is None and whole
    if node.op_type == "Add":
        return all(is_at_least(part, low) or is_of_products(part, max(low, HIDDEN)) for part in node.inputs)
    if node.op_type in ("Div", "Mul"):
        part = next((value for value in node.inputs if constant(value) is None), None)
        return is_of_products(part, max(low, HIDDEN), whole=whole)
    if node.op_type in (*_MOVING, "GatherElements"):
        return is_of_products(node.inputs[0], low, whole=whole)
    return node.op_type == "MatMul"


def widest_window(model: ir.Model, most: int) -> int | None:
    """Return the largest number, up to `most`, that distances between tokens are compared with; None if there is none.

    A model that shows each query only the keys near it compares them with the width of that window.
    """
    found: list[int] = []
    for node in model.graph:
        if node.domain or node.op_type not in _COMPARISONS:
            continue
        pending = [*node.inputs]
        while pending:
            value = pending.pop()
            array, maker = constant(value), producer(value)
            if array is not None and array.dtype.kind == "i" and array.size == 1:
                found.append(abs(int(array.reshape(-1)[0])))
            elif array is None and maker is not None and not maker.domain and maker.op_type in _OF_DISTANCES:
                pending += maker.inputs[:1] if maker.op_type == "Unsqueeze" else maker.inputs
    return max((number for number in found if 1 < number <= most), default=None)
