"""Rules for what old opsets made exporters write, and what the conversion from them does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ffc import Match, Op, Rule, Sample, Tensor, constant, rule
from ffc.compiler.rules import integers, normal
from ffc.graph.dialect.trace import Program

__all__ = ["RULES"]


# Up to opset 12, Softmax, LogSoftmax and Hardmax took all axes from one on as a single axis. The conversion therefore
# flattens what they read and shapes the result again, wherever it does not know that there is only one such axis.


def _axes(match: Match) -> list[int] | None:
    """Return which of the axes that are flattened are longer than 1, as far as is known, or None."""
    shapes = match.editor.shapes
    before, after = shapes.of(match.values["x"]), shapes.of(match.root.outputs[0])
    if before is None or before != after:
        return None
    axis = match.attributes["axis"].as_int()
    flattened = range(len(before))[axis:]
    long = [index for index in flattened if before[index] != 1]
    return long or list(flattened[-1:])


def _one_axis(match: Match) -> str | None:
    if match.attributes["last"].as_int() not in (-1, 1):
        return "it is not taken over the last of two axes"
    axes = _axes(match)
    if axes is None:
        return "it is not known to give back the shape that it reads"
    return None if len(axes) == 1 else f"it is taken over axes {axes} together"


def _axis(match: Match) -> Mapping[str, Any]:
    axes, shape = _axes(match), match.editor.shapes.of(match.values["x"])
    assert axes is not None and shape is not None
    return {"axis": -1 if axes[0] == len(shape) - 1 else axes[0]}


def _flattened(*shape: int, axis: int, last: int = -1, matches: bool = True) -> Sample:
    return Sample({"x": normal(*shape)}, {"shape": list(shape)}, {"axis": axis, "last": last}, matches)


_SAMPLES = (
    _flattened(2, 3, 4, 5, axis=3),
    _flattened(2, 3, 5, axis=-1, last=1),
    _flattened(2, 5, 1, axis=1),
    _flattened(3, 1, 1, 1, axis=1),
    _flattened(2, 3, 5, axis=1, matches=False),
    _flattened(2, 3, 5, axis=3, matches=False),
    _flattened(2, 3, 5, axis=2, last=0, matches=False),
    Sample({"x": normal(2, 3, 5)}, {"shape": [3, 2, 5]}, {"axis": 2, "last": -1}, matches=False),
)


def _rules() -> Iterator[Rule]:
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        title = f"{name.lower()}-flattened"
        yield rule(title, _plain(name), where=(_one_axis,), bind=_axis, samples=_SAMPLES)(_around(name))


def _plain(name: str) -> Program:
    def plain(op: Op, x: Tensor, *, axis: int) -> Tensor:
        result: Tensor = op.node(name, x, axis=axis)
        return result

    return plain


def _around(name: str) -> Program:
    def flattened(op: Op, x: Tensor, shape: Tensor, *, axis: int, last: int) -> Tensor:
        return op.Reshape(op.node(name, op.Flatten(x, axis=axis), axis=last), shape)

    return flattened


# Before Range, at opset 10, what counts from 0 was where ones are not zero


def _never_zero(match: Match) -> str | None:
    value, maker = match.values["ones"], match.values["ones"].producer()
    array, shape = constant(value), match.editor.shapes.of(value)
    if array is None and maker is not None and maker.op_type == "ConstantOfShape" and "value" in maker.attributes:
        array = maker.attributes["value"].as_tensor().numpy()
    if array is None or not array.all():
        return "what is looked through may be zero"
    return None if shape is not None and len(shape) == 1 else "it is not known to have one axis"


@rule(
    "range-by-nonzero", lambda op, ones: op.Range(0, op.Squeeze(op.Shape(ones), [0]), 1), where=(_never_zero,),
    samples=(
        Sample({}, {"ones": np.ones(5, np.int64)}),
        Sample({}, {"ones": [1, 0, 2]}, matches=False),
        Sample({"ones": integers(0, 2, 5)}, matches=False),
    ),
)  # fmt: skip
def _counted(op: Op, ones: Tensor) -> Tensor:
    return op.Squeeze(op.Transpose(op.NonZero(ones), perm=[1, 0]), [1])


RULES = (*_rules(), _counted)
