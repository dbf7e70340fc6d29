"""Rules that drop operators which give back what they are given."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc import Match, Op, Sample, Tensor, constant, rule
from ffc.compiler.rules import flags, is_constant, normal

__all__ = ["RULES"]


def _keep(op: Op, x: Tensor) -> Tensor:
    return x


def _same_shape(match: Match) -> str | None:
    shapes = match.editor.shapes
    before, after = shapes.of(match.values["x"]), shapes.of(match.root.outputs[0])
    return None if before is not None and before == after else "it changes the shape"


def _always_true(match: Match) -> str | None:
    array = constant(match.values["always"])
    if array is None or not array.all():
        return "neither operand is always true"
    return _same_shape(match)


@rule(
    "and-true", _keep, where=(_always_true,),
    samples=(
        Sample({"x": flags(2, 3)}, {"always": True}),
        Sample({"x": flags(2, 3)}, {"always": np.ones((1, 3), np.bool_)}),
        Sample({"x": flags(2, 3)}, {"always": False}, matches=False),
        Sample({"x": flags(2, 3)}, {"always": np.ones((4, 2, 3), np.bool_)}, matches=False),
    ),
)  # fmt: skip
def _and(op: Op, x: Tensor, always: Tensor) -> Tensor:
    return op.And(x, always)


def _same_type(match: Match) -> str | None:
    value, wanted = match.values["x"], match.attributes["to"].as_int()
    found = match.editor.shapes.dtype(value)
    return None if found == ir.DataType(wanted) else f"it casts {found} to {ir.DataType(wanted)}"


@rule(
    "cast-to-same", _keep, where=(_same_type,),
    samples=(
        Sample({"x": normal(2, 3)}, attributes={"to": ir.DataType.FLOAT.value}),
        Sample({"x": normal(2, 3)}, attributes={"to": ir.DataType.INT64.value}, matches=False),
    ),
)  # fmt: skip
def _cast(op: Op, x: Tensor, *, to: int) -> Tensor:
    return op.Cast(x, to=to)


def _in_place(match: Match) -> str | None:
    perm = list(match.attributes["perm"].as_ints())
    return None if perm == sorted(perm) else f"it moves axes {perm}"


@rule(
    "transpose-nothing", _keep, where=(_in_place,),
    samples=(
        Sample({"x": normal(2, 3, 4)}, attributes={"perm": [0, 1, 2]}),
        Sample({"x": normal(2, 3, 4)}, attributes={"perm": [0, 2, 1]}, matches=False),
    ),
)  # fmt: skip
def _transpose(op: Op, x: Tensor, *, perm: tuple[int, ...]) -> Tensor:
    return op.Transpose(x, perm=perm)


_SHAPES = (
    Sample({"x": normal(2, 3)}, {"shape": [2, 3]}),
    Sample({"x": normal(1, 3)}, {"shape": [1, 1, 3]}, matches=False),
)


@rule("reshape-to-same", _keep, where=(_same_shape,), samples=_SHAPES)
def _reshape(op: Op, x: Tensor, shape: Tensor) -> Tensor:
    return op.Reshape(x, shape)


@rule("expand-to-same", _keep, where=(_same_shape,), samples=_SHAPES)
def _expand(op: Op, x: Tensor, shape: Tensor) -> Tensor:
    return op.Expand(x, shape)


def _is_one(match: Match) -> str | None:
    return _same_shape(match) if (match.array("one") == 1).all() else "the factor is not 1"


@rule(
    "times-one", _keep, where=(is_constant("one"), _is_one),
    samples=(
        Sample({"x": normal(2, 3)}, {"one": 1.0}),
        Sample({"x": normal(2, 3)}, {"one": [2.0, 2.0, 2.0]}, matches=False),
    ),
)  # fmt: skip
def _mul(op: Op, x: Tensor, one: Tensor) -> Tensor:
    return op.Mul(x, one)


RULES = (_and, _cast, _transpose, _reshape, _expand, _mul)
