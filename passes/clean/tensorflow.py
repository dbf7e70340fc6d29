"""Rules for what tf2onnx makes of TensorFlow's and Keras' operators: selections by arithmetic, norms by pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc import Match, Op, Sample, Tensor, constant, rule
from ffc.compiler.rules import flags, integers, is_constant, is_scalar, normal

__all__ = ["RULES"]

FLOAT, INT32 = ir.DataType.FLOAT.value, ir.DataType.INT32.value

_NUMBERS = integers(-5, 5, 2, 3, 5, dtype=np.int32)


# tf.where: c * a + (not c) * b, c as a number
@rule(
    "where-by-arithmetic", lambda op, c, a, b: op.Where(c, a, b), shared=True,
    samples=(
        Sample({"c": flags(2, 1, 5), "a": normal(2, 3, 5)}, {"b": -1e9}, {"to": FLOAT}),
        Sample({"c": flags(2, 1, 5), "a": _NUMBERS, "b": _NUMBERS}, {}, {"to": INT32}),
    ),
)  # fmt: skip
def _arithmetic(op: Op, c: Tensor, a: Tensor, b: Tensor, *, to: int) -> Tensor:
    return op.Add(op.Mul(op.Cast(c, to=to), a), op.Mul(op.Cast(op.Not(c), to=to), b))


def _is_far(match: Match) -> str | None:
    if match.array("zero").any():
        return "what is masked does not become 0"
    return None if match.number("low") <= -1e8 else "what is masked is not far below any score"


_SCORES = {"c": flags(2, 1, 1, 5), "scores": normal(2, 3, 5, 5)}


# probabilities masked once more
@rule(
    "masked-twice", lambda op, c, scores, low: op.Softmax(op.Where(c, scores, low), axis=-1),
    where=(is_constant("zero"), is_scalar("low"), _is_far),
    samples=(
        Sample(_SCORES, {"low": -1e9, "zero": 0.0}),
        Sample(_SCORES, {"low": -2.0, "zero": 0.0}, matches=False),
        Sample(_SCORES, {"low": -1e9, "zero": 1.0}, matches=False),
    ),
)  # fmt: skip
def _masked_twice(op: Op, c: Tensor, scores: Tensor, low: Tensor, zero: Tensor) -> Tensor:
    return op.Where(c, op.Softmax(op.Where(c, scores, low), axis=-1), zero)


def _both_of_four(match: Match) -> str | None:
    shapes = [match.editor.shapes.of(match.values[name]) for name in "kq"]
    makers = [match.values[name].producer() for name in "kq"]
    if any(maker is not None and maker.op_type == "Softmax" for maker in makers):
        return "it weighs values by probabilities, and gives no scores"
    return None if all(shape is not None and len(shape) == 4 for shape in shapes) else "its operands have not 4 axes"


# scores of keys by queries: (k @ q)^T = q^T @ k^T
@rule(
    "scores-turned",
    lambda op, k, q: op.MatMul(op.Transpose(q, perm=[0, 1, 3, 2]), op.Transpose(k, perm=[0, 1, 3, 2])),
    where=(_both_of_four,),
    samples=(
        Sample({"k": normal(2, 3, 5, 4), "q": normal(2, 3, 4, 5)}),
        Sample({"k": normal(2, 3, 5, 4), "q": normal(4, 5)}, matches=False),
    ),
)  # fmt: skip
def _turned(op: Op, k: Tensor, q: Tensor) -> Tensor:
    return op.Transpose(op.MatMul(k, q), perm=[0, 1, 3, 2])


def _by_rows(match: Match) -> str | None:
    table, rows = match.array("table"), match.array("rows")
    return None if rows.size == 1 and int(rows.reshape(-1)[0]) == len(table) else "ids are not moved by all rows"


# negative ids, which Gather understands by itself
@rule(
    "ids-wrapped", lambda op, table, ids: op.Gather(table, ids), where=(is_constant("table", "rows"), _by_rows),
    samples=(
        Sample({"ids": integers(-7, 7, 2, 3, dtype=np.int32)}, {"table": normal(7, 4), "rows": np.int32(7)}),
        Sample({"ids": integers(0, 6, 2, 3, dtype=np.int32)}, {"table": normal(7, 4), "rows": np.int32(6)}, {}, False),
    ),
)  # fmt: skip
def _wrapped(op: Op, table: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
    below = op.Less(op.Cast(ids, to=FLOAT), 0.0)
    return op.Gather(table, op.Where(below, op.Add(ids, rows), ids))


# tf.nn.moments and batch_normalization: x * m + (beta - mean * m), m = gamma / sqrt(variance + epsilon), are a centred
# product, in which norms are looked for


def _centred(op: Op, x: Tensor, axes: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(_centred_alone(op, x, axes, m), beta)


def _centred_alone(op: Op, x: Tensor, axes: Tensor, m: Tensor) -> Tensor:
    return op.Mul(op.Sub(x, op.ReduceMean(x, axes)), m)


_MOMENTS = tuple(
    (normal(2, 3, 6), {"axes": [axis], "m": normal(*m), "beta": normal(*beta)})
    for axis, m, beta in ((-1, (6,), (6,)), (2, (2, 3, 1), ()), (1, (1, 6), (2, 1, 6)))
)


def _moments(*, beta: bool = True) -> tuple[Sample, ...]:
    given = ("axes", "m", "beta") if beta else ("axes", "m")
    return tuple(Sample({"x": x}, {name: constants[name] for name in given}) for x, constants in _MOMENTS)


@rule("moments", _centred, shared=True, samples=_moments())
def _less_mean(op: Op, x: Tensor, axes: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Sub(beta, op.Mul(op.ReduceMean(x, axes), m)))


@rule("moments-negated", _centred, shared=True, samples=_moments())
def _plus_negated(op: Op, x: Tensor, axes: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Add(op.Mul(op.Neg(op.ReduceMean(x, axes)), m), beta))


@rule("moments-no-beta", _centred_alone, shared=True, samples=_moments(beta=False))
def _plus_negated_alone(op: Op, x: Tensor, axes: Tensor, m: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Mul(op.Neg(op.ReduceMean(x, axes)), m))


def _varies(match: Match) -> str | None:
    return None if constant(match.values["x"]) is None else "what is multiplied is constant too"


# the same product with its factor last, where a norm's gamma stands
@rule(
    "factor-last", lambda op, x, s, gamma: op.Mul(op.Mul(x, op.Reciprocal(s)), gamma),
    where=(is_constant("gamma"), _varies),
    samples=(
        Sample({"x": normal(2, 3, 6), "s": normal(2, 3, 1, mean=9)}, {"gamma": normal(6)}),
        Sample({"x": normal(2, 3, 6), "s": normal(2, 3, 1, mean=9), "gamma": normal(6)}, matches=False),
        Sample({"s": normal(2, 3, 1, mean=9)}, {"x": normal(6), "gamma": normal(6)}, matches=False),
    ),
)  # fmt: skip
def _factor_first(op: Op, x: Tensor, s: Tensor, gamma: Tensor) -> Tensor:
    return op.Mul(x, op.Mul(op.Reciprocal(s), gamma))


def _over_one_axis(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["x"])
    return None if shape is not None and len(shape) == 3 else "it is not known to pool over the last of three axes"


@rule(
    "mean-by-pooling", lambda op, x: op.ReduceMean(x, [-1]), where=(_over_one_axis,),
    samples=(Sample({"x": normal(2, 3, 6)}), Sample({"x": normal(2, 3, 6, 5)}, matches=False)),
)  # fmt: skip
def _pooled(op: Op, x: Tensor) -> Tensor:
    return op.GlobalAveragePool(x)


NORMS = (_pooled, _less_mean, _plus_negated, _plus_negated_alone, _factor_first)
RULES = (_arithmetic, _masked_twice, _turned, _wrapped, *NORMS)
