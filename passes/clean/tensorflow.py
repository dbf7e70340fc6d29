"""Rules for what tf2onnx makes of TensorFlow's and Keras' operators: selections by arithmetic, norms by pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc import Match, Op, Sample, Tensor, constant, rule
from ffc.compiler.rules import flags, integers, is_constant, is_scalar, normal, nothing_for_one_query

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


def _guarded(op: Op, c: Tensor, scores: Tensor) -> Tensor:
    probabilities = op.Softmax(op.Where(c, scores, -np.inf), axis=-1)
    return op.Where(op.IsNaN(probabilities), 0.0, probabilities)


_SCORES = {"c": flags(2, 1, 1, 5), "scores": normal(2, 3, 5, 5)}


# probabilities masked once more, which gives 0 to a query that sees nothing: what a guard against NaN says
@rule(
    "masked-twice", _guarded, where=(is_constant("zero"), is_scalar("low"), _is_far),
    samples=(
        Sample(_SCORES, {"low": -1e9, "zero": 0.0}),
        Sample({**_SCORES, "c": nothing_for_one_query(2, 1, 5)}, {"low": -1e9, "zero": 0.0}),
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


# rows of a table as TensorFlow 1 looks them up where there are few: a product with ones and zeros


def _selects(match: Match) -> str | None:
    dtype, table = match.editor.shapes.dtype(match.values["ids"]), match.array("table")
    depth, values = (match.array(name).reshape(-1).tolist() for name in ("depth", "values"))
    if dtype not in (ir.DataType.INT32, ir.DataType.INT64) or table.ndim != 2 or depth != [len(table)]:
        return "it does not select rows of a table"
    return None if values == [0, 1] else f"rows are multiplied by {values}"


def _one_hot(*values: float, depth: int = 5, matches: bool = True) -> Sample:
    constants = {"depth": [depth], "values": list(values), "table": normal(5, 4)}
    return Sample({"ids": integers(-5, 5, 2, 3)}, constants, matches=matches)


@rule(
    "one-hot-lookup", lambda op, ids, table: op.Gather(table, ids),
    where=(is_constant("depth", "values", "table"), _selects),
    samples=(_one_hot(0.0, 1.0), _one_hot(0.0, 2.0, matches=False)),
)  # fmt: skip
def _looked_up(op: Op, ids: Tensor, depth: Tensor, values: Tensor, table: Tensor) -> Tensor:
    return op.MatMul(op.OneHot(ids, depth, values, axis=-1), table)


# tf.nn.moments and batch_normalization: x * m + (beta - mean * m), with m = gamma / sqrt(variance + epsilon), are a
# product of what is centred, in which norms are looked for


def _centred(op: Op, x: Tensor, mean: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(_centred_alone(op, x, mean, m), beta)


def _centred_alone(op: Op, x: Tensor, mean: Tensor, m: Tensor) -> Tensor:
    return op.Mul(op.Sub(x, mean), m)


_MOMENTS = {"x": normal(2, 3, 6), "mean": normal(2, 3, 1), "m": normal(2, 3, 6)}


@rule("moments", _centred, samples=(Sample(_MOMENTS, {"beta": normal(6)}),))
def _less_mean(op: Op, x: Tensor, mean: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Sub(beta, op.Mul(mean, m)))


@rule("moments-negated", _centred, samples=(Sample(_MOMENTS, {"beta": normal(2, 1, 6)}),))
def _plus_negated(op: Op, x: Tensor, mean: Tensor, m: Tensor, beta: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Add(op.Mul(op.Neg(mean), m), beta))


@rule("moments-no-beta", _centred_alone, samples=(Sample(_MOMENTS),))
def _plus_negated_alone(op: Op, x: Tensor, mean: Tensor, m: Tensor) -> Tensor:
    return op.Add(op.Mul(x, m), op.Mul(op.Neg(mean), m))


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
RULES = (_arithmetic, _masked_twice, _turned, _wrapped, _looked_up, *NORMS)
