"""Rules for what tf2onnx makes of TensorFlow's and Keras' operators: selections by arithmetic, norms by pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc import Match, Op, Sample, Tensor, rule
from ffc.compiler.rules import flags, integers, is_constant, is_scalar, is_small, normal, nothing_for_one_query

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


def _norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    return op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=epsilon)


def _parameters(match: Match) -> Mapping[str, Any]:
    flat = {name: match.array(name).reshape(-1) for name in ("gamma", "beta")}
    return {**flat, "epsilon": match.number("epsilon")}


def _over_width(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["x"])
    if shape is None or len(shape) != 3:
        return "it is not known to pool over the last of three axes"
    for name in ("gamma", "beta"):
        array = match.array(name)
        if array.dtype != np.float32 or array.size != shape[2] or array.shape[-1:] != shape[2:] or array.ndim > 3:
            return f"{name} is not as wide as the last axis"
    return None


def _pooled(epsilon: float, *width: int, matches: bool) -> Sample:
    constants = {"gamma": normal(1, *width, mean=1), "beta": normal(1, 1, 6), "epsilon": epsilon}
    return Sample({"x": normal(2, 3, 6)}, constants, matches=matches)


# tf.nn.moments and batch_normalization: x * m + (beta - mean * m) with m = gamma / sqrt(variance + epsilon)
@rule(
    "norm-by-pooling", _norm, bind=_parameters,
    where=(is_constant("gamma", "beta", "epsilon"), _over_width, is_small("epsilon")),
    samples=(
        _pooled(1e-6, 1, 6, matches=True),
        _pooled(0.5, 1, 6, matches=False),
        _pooled(1e-6, 3, 1, matches=False),
    ),
)  # fmt: skip
def _pooled_norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor) -> Tensor:
    mean = op.GlobalAveragePool(x)
    centred = op.Sub(x, mean)
    variance = op.GlobalAveragePool(op.Mul(centred, centred))
    factor = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)
    return op.Add(op.Mul(x, factor), op.Add(op.Mul(op.Neg(mean), factor), beta))


RULES = (_arithmetic, _masked_twice, _turned, _wrapped, _pooled_norm)
