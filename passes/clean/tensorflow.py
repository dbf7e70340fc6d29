"""Rules for what tf2onnx makes of TensorFlow's and Keras' operators: selections by arithmetic, norms by pooling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.compiler import rules
from ffc.compiler.rules import Match, Rule, Sample

__all__ = ["RULES"]

FLOAT, INT32 = ir.DataType.FLOAT.value, ir.DataType.INT32.value


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


# tf.where


def _arithmetic(op: Any, c: Any, a: Any, b: Any, *, to: int) -> Any:
    return op.Add(op.Mul(op.Cast(c, to=to), a), op.Mul(op.Cast(op.Not(c), to=to), b))


def _where(op: Any, c: Any, a: Any, b: Any, *, to: int) -> Any:
    return op.Where(c, a, b)


def _arithmetic_samples(random: np.random.Generator) -> Iterator[Sample]:
    c = random.random((2, 1, 5)) < 0.5
    yield Sample({"c": c, "a": _normal(random, 2, 3, 5)}, {"b": np.full((), -1e9, np.float32)}, {"to": FLOAT})
    integers = {name: random.integers(-5, 5, (2, 3, 5), np.int32) for name in "ab"}
    yield Sample({"c": c, **integers}, attributes={"to": INT32})


# Probabilities masked once more


def _masked_twice(op: Any, c: Any, scores: Any, low: Any, zero: Any) -> Any:
    return op.Where(c, op.Softmax(op.Where(c, scores, low), axis=-1), zero)


def _masked_once(op: Any, c: Any, scores: Any, low: Any) -> Any:
    return op.Softmax(op.Where(c, scores, low), axis=-1)


def _is_far(match: Match) -> str | None:
    if match.array("zero").any():
        return "what is masked does not become 0"
    return None if float(match.array("low").reshape(-1)[0]) <= -1e8 else "what is masked is not far below any score"


def _masked_twice_samples(random: np.random.Generator) -> Iterator[Sample]:
    c = random.random((2, 1, 1, 5)) < 0.5
    c[..., 0] = True  # a row masked throughout is allowed to differ
    inputs, zero = {"c": c, "scores": _normal(random, 2, 3, 5, 5)}, np.zeros((), np.float32)
    yield Sample(inputs, {"low": np.full((), -1e9, np.float32), "zero": zero})
    yield Sample(inputs, {"low": np.full((), -2, np.float32), "zero": zero}, matches=False)
    yield Sample(inputs, {"low": np.full((), -1e9, np.float32), "zero": zero + 1}, matches=False)


# Scores of keys by queries


def _turned(op: Any, k: Any, q: Any) -> Any:
    return op.Transpose(op.MatMul(k, q), perm=[0, 1, 3, 2])


def _straight(op: Any, k: Any, q: Any) -> Any:
    return op.MatMul(op.Transpose(q, perm=[0, 1, 3, 2]), op.Transpose(k, perm=[0, 1, 3, 2]))


def _both_of_four(match: Match) -> str | None:
    shapes = [match.editor.shapes.of(match.values[name]) for name in "kq"]
    makers = [match.values[name].producer() for name in "kq"]
    if any(maker is not None and maker.op_type == "Softmax" for maker in makers):
        return "it weighs values by probabilities, and gives no scores"
    return None if all(shape is not None and len(shape) == 4 for shape in shapes) else "its operands have not 4 axes"


def _turned_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield Sample({"k": _normal(random, 2, 3, 5, 4), "q": _normal(random, 2, 3, 4, 5)})
    yield Sample({"k": _normal(random, 2, 3, 5, 4), "q": _normal(random, 4, 5)}, matches=False)


# Negative ids, which Gather understands by itself


def _wrapped(op: Any, table: Any, ids: Any, rows: Any) -> Any:
    below = op.Less(op.Cast(ids, to=FLOAT), 0.0)
    return op.Gather(table, op.Where(below, op.Add(ids, rows), ids))


def _plain(op: Any, table: Any, ids: Any) -> Any:
    return op.Gather(table, ids)


def _by_rows(match: Match) -> str | None:
    table, rows = match.array("table"), match.array("rows")
    return None if rows.size == 1 and int(rows.reshape(-1)[0]) == len(table) else "ids are not moved by all rows"


def _wrapped_samples(random: np.random.Generator) -> Iterator[Sample]:
    table, ids = _normal(random, 7, 4), random.integers(-7, 7, (2, 3), np.int32)
    yield Sample({"ids": ids}, {"table": table, "rows": np.array(7, np.int32)})
    yield Sample({"ids": np.abs(ids) % 6}, {"table": table, "rows": np.array(6, np.int32)}, matches=False)


# tf.nn.moments and batch_normalization: x * m + (beta - mean * m) with m = gamma / sqrt(variance + epsilon)


def _pooled_norm(op: Any, x: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    mean = op.GlobalAveragePool(x)
    centred = op.Sub(x, mean)
    variance = op.GlobalAveragePool(op.Mul(centred, centred))
    factor = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)
    return op.Add(op.Mul(x, factor), op.Add(op.Mul(op.Neg(mean), factor), beta))


def _norm(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    return op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=epsilon)


def _parameters(match: Match) -> Mapping[str, Any]:
    flat = {name: match.array(name).reshape(-1) for name in ("gamma", "beta")}
    return {**flat, "epsilon": float(match.array("epsilon").reshape(-1)[0])}


def _over_width(match: Match) -> str | None:
    shape, epsilon = match.editor.shapes.of(match.values["x"]), match.array("epsilon")
    if shape is None or len(shape) != 3:
        return "it is not known to pool over the last of three axes"
    for name in ("gamma", "beta"):
        array = match.array(name)
        if array.dtype != np.float32 or array.size != shape[2] or array.shape[-1:] != shape[2:] or array.ndim > 3:
            return f"{name} is not as wide as the last axis"
    return None if epsilon.size == 1 and 0 < float(epsilon.reshape(-1)[0]) < 1e-2 else "epsilon is not one small number"


def _pooled_samples(random: np.random.Generator) -> Iterator[Sample]:
    parameters = {"gamma": 1 + _normal(random, 1, 1, 6), "beta": _normal(random, 1, 1, 6)}
    x = _normal(random, 2, 3, 6)
    yield Sample({"x": x}, {**parameters, "epsilon": np.full((), 1e-6, np.float32)})
    yield Sample({"x": x}, {**parameters, "epsilon": np.full((), 0.5, np.float32)}, matches=False)
    per_token = {**parameters, "gamma": _normal(random, 1, 3, 1), "epsilon": np.full((), 1e-6, np.float32)}
    yield Sample({"x": x}, per_token, matches=False)


RULES = (
    # c * a + (not c) * b, c as a number
    Rule("where-by-arithmetic", _arithmetic, _where, _arithmetic_samples, shared=True),
    Rule(
        "masked-twice", _masked_twice, _masked_once, _masked_twice_samples,
        where=(rules.is_constant("zero"), rules.is_scalar("low"), _is_far),
    ),
    # (k @ q)^T = q^T @ k^T
    Rule("scores-turned", _turned, _straight, _turned_samples, where=(_both_of_four,)),
    Rule("ids-wrapped", _wrapped, _plain, _wrapped_samples, where=(rules.is_constant("table", "rows"), _by_rows)),
    Rule(
        "norm-by-pooling", _pooled_norm, _norm, _pooled_samples, bind=_parameters,
        where=(rules.is_constant("gamma", "beta", "epsilon"), _over_width),
    ),
)  # fmt: skip
