"""Pairs of QuantizeLinear and DequantizeLinear, which round activations to steps and back: they go."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc import Editor, Log, Match, Op, Sample, Tensor, constant, rule
from ffc.compiler.rules import Draw
from ffc.graph.dialect import quantise
from ffc.graph.dialect.edit import producer
from ffc.graph.shapes.positions import moves

__all__ = ["RULES", "drop_relus"]

_NEVER_NEGATIVE = {"Abs", "Exp", "Relu", "Sigmoid", "Softmax", "Sqrt"}
"""Operators whose result is never below 0, so that steps which begin there cut nothing off."""

_MOST_OF_A_MASK = 500
"""Values that are looked at to tell a mask from an activation."""


def _on_steps(step: float, zero: int = 0) -> Draw:
    """Draw uint8 numbers of steps, both ends among them, as what they stand for: rounding then changes nothing."""

    def draw(random: np.random.Generator) -> np.ndarray:
        numbers = random.integers(0, 256, (3, 5))
        numbers[0, :2] = 0, 255
        return ((numbers - zero) * step).astype(np.float32)

    return draw


# Steps found as the model runs


@rule(
    "round-dynamically", lambda op, x: x, shared=True,
    samples=(Sample({"x": _on_steps(0.5)}), Sample({"x": _on_steps(0.25, 100)})),
)  # fmt: skip
def _dynamic(op: Op, x: Tensor) -> Tensor:
    return op.DequantizeLinear(*op.DynamicQuantizeLinear(x, outputs=3))


# Steps that are known before


def _back_again(match: Match) -> str | None:
    """Both ways go by the same steps, and what is rounded is no weight."""
    for name in ("scale", "zero"):
        one, other = match.values.get(name), match.values.get(f"{name}_back")
        known = constant(one), constant(other)
        if one is not other and (known[0] is None or known[1] is None or not _same(known[0], known[1])):
            return f"it is read by another {name} than it was rounded by"
    return "what is rounded is constant" if constant(match.values["x"]) is not None else None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _cuts(match: Match) -> bool | None:
    """Whether negative numbers become 0, since that is the lowest step; None where it is not known."""
    if "zero" not in match.values:
        return True  # uint8 with 0 for its zero point
    zero = constant(match.values["zero"])
    least = None if zero is None else quantise.ends(zero.dtype)
    if zero is None or least is None:
        return None
    lowest = np.equal(zero, least[0])
    return bool(lowest.all()) if lowest.all() == lowest.any() else None


def _keeps_signs(match: Match) -> str | None:
    return None if _cuts(match) is False else "its lowest step is 0, or not known"


def _cuts_below_zero(match: Match) -> str | None:
    return None if _cuts(match) else "its lowest step is not 0"


_UINT8 = {"scale": 0.5, "scale_back": 0.5}
_SHIFTED = {**_UINT8, "zero": np.uint8(7), "zero_back": np.uint8(7)}
_FROM_ZERO = {**_UINT8, "zero": np.uint8(0), "zero_back": np.uint8(0)}
_ELSEWHERE = {**_SHIFTED, "zero_back": np.uint8(8)}
_COARSER = {**_SHIFTED, "scale_back": 1.0}
_AXIS = {"axis": 1}


def _pair(
    op: Op, x: Tensor, scale: Tensor, zero: Tensor, scale_back: Tensor, zero_back: Tensor, *, axis: int
) -> Tensor:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, axis=axis), scale_back, zero_back, axis=axis)


def _pair_at_zero(op: Op, x: Tensor, scale: Tensor, scale_back: Tensor, *, axis: int) -> Tensor:
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, axis=axis), scale_back, axis=axis)


def _relu(op: Op, x: Tensor) -> Tensor:
    return op.Relu(x)


_WHOLE, _HALF = _on_steps(0.5, 7), _on_steps(0.5)
_SIGNED: Draw = lambda random: _HALF(random) * random.choice([-1, 1], (3, 5)).astype(np.float32)  # noqa: E731
_NEGATIVE = Sample({"x": _SIGNED}, _FROM_ZERO, _AXIS)

RULES = (
    _dynamic,
    rule(
        "round", lambda op, x: x, where=(_back_again, _keeps_signs), shared=True,
        samples=(
            Sample({"x": _WHOLE}, _SHIFTED, _AXIS),
            Sample({"x": _WHOLE}, _ELSEWHERE, _AXIS, matches=False),
            Sample({"x": _WHOLE}, _COARSER, _AXIS, matches=False),
            Sample({"x": _HALF}, _FROM_ZERO, _AXIS, matches=False),
        ),
    )(_pair),
    # onnxruntime's tools drop a ReLU before such steps, since they do what it does.
    rule(
        "round-above-zero", _relu, where=(_back_again, _cuts_below_zero), shared=True,
        samples=(_NEGATIVE, Sample({"x": _WHOLE}, _SHIFTED, _AXIS, matches=False)),
    )(_pair),
    rule(
        "round-unsigned", _relu, where=(_back_again, _cuts_below_zero), shared=True,
        samples=(Sample(_NEGATIVE.inputs, _UINT8, _AXIS),),
    )(_pair_at_zero),
)  # fmt: skip


def drop_relus(editor: Editor, log: Log) -> None:
    """Drop ReLUs of what is never negative, and of masks; one operator, which is what rules see, tells neither."""
    for node in list(editor.graph):
        x = node.inputs[0] if node.op_type == "Relu" and not node.domain else None
        if x is None or constant(x) is not None:
            continue
        if _never_negative(x):
            editor.replace(node.outputs[0], x)
        elif _is_mask(x):
            log.note(f"the mask {x.name} was rounded to steps from 0, as if no token was hidden; here it hides them")
            editor.replace(node.outputs[0], x)


def _never_negative(value: ir.Value | None, depth: int = 8) -> bool:
    array, node = constant(value), producer(value)
    if array is not None:
        return bool((array >= 0).all())
    if node is None or node.domain or not depth:
        return False
    if moves(node):
        return _never_negative(node.inputs[0], depth - 1)
    if node.op_type == "Where":
        return all(_never_negative(each, depth - 1) for each in node.inputs[1:])
    return node.op_type in _NEVER_NEGATIVE


def _is_mask(value: ir.Value) -> bool:
    """Whether `value` is computed from inputs that are no floats, without any weight: nothing has a ReLU behind it."""
    pending, seen = [value], {value}
    while pending and len(seen) < _MOST_OF_A_MASK:
        value = pending.pop()
        array = constant(value)
        if value.dtype == ir.DataType.FLOAT and (value.is_graph_input() or (array is not None and array.ndim > 1)):
            return False
        node = None if array is not None else value.producer()
        sources = [] if node is None else [each for each in node.inputs if each is not None and each not in seen]
        seen.update(sources)
        pending += sources
    return not pending
