"""Rules for layer norms in the forms that exporters write, and for those of a residual sum."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc import Match, Op, Rule, Sample, Tensor, ops, rule
from ffc.compiler.rules import Condition, is_constant, is_small, normal
from ffc.graph.dialect.trace import Program

__all__ = ["RESIDUAL", "RULES"]


def _width(match: Match) -> int | None:
    """Return the size of the last axis of x, None if it varies or is not known."""
    shape = match.editor.shapes.of(match.values["x"])
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _is_float(match: Match) -> str | None:
    given = match.array("gamma" if "gamma" in match.values else "epsilon")
    return None if given.dtype == np.float32 else "it is not computed in float32"


# Norms written out: (x - mean) / sqrt(variance + epsilon). What it is multiplied by and what is added come after.

_SQUARES: dict[str, Program] = {
    "pow": lambda op, x: op.Pow(x, 2.0),
    "square": lambda op, x: op.Mul(x, x),
}

_QUOTIENTS: dict[str, Program] = {
    "sqrt": lambda op, x, v: op.Div(x, op.Sqrt(v)),
    "root": lambda op, x, v: op.Div(x, op.Pow(v, 0.5)),
    "reciprocal": lambda op, x, v: op.Mul(x, op.Reciprocal(op.Sqrt(v))),
    "one-over": lambda op, x, v: op.Mul(x, op.Div(1.0, op.Sqrt(v))),
    "power": lambda op, x, v: op.Mul(x, op.Pow(v, -0.5)),
}


def _over_last(match: Match) -> str | None:
    shape, axes = match.editor.shapes.of(match.values["x"]), match.array("axes").tolist()
    if shape is None or axes not in ([-1], [len(shape) - 1]):
        return f"it is taken over axes {axes}"
    return None if _width(match) else "the size of its last axis is not known"


_WRITTEN_OUT = (is_constant("axes", "epsilon"), is_small("epsilon"), _over_last, _is_float)


def _plain(match: Match) -> Mapping[str, Any]:
    """Return the parameters of a norm that has none."""
    width = _width(match)
    assert width is not None
    parameters = {"gamma": np.ones(width, np.float32), "beta": np.zeros(width, np.float32)}
    return {**parameters, "epsilon": match.number("epsilon")}


_FORMS = tuple(
    Sample({"x": normal(2, 3, 8)}, {"axes": [axis], "epsilon": epsilon}, matches=matches)
    for epsilon, axis, matches in ((1e-6, -1, True), (1e-12, 2, True), (0.5, -1, False), (1e-6, 1, False))
)


def _chains() -> Iterator[Rule]:
    """Yield a rule for each form; those that have gamma and beta are taken by `_scaled` and `_shifted` after it."""
    for (form, quotient), (name, square) in itertools.product(_QUOTIENTS.items(), _SQUARES.items()):
        yield rule(f"norm-{form}-{name}", ops.Norm, where=_WRITTEN_OUT, bind=_plain, samples=_FORMS)(
            _chain(quotient, square)
        )


def _chain(quotient: Program, square: Program) -> Program:
    def chain(op: Op, x: Tensor, axes: Tensor, epsilon: Tensor) -> Tensor:
        centred = op.Sub(x, op.ReduceMean(x, axes))
        result: Tensor = quotient(op, centred, op.Add(op.ReduceMean(square(op, centred), axes), epsilon))
        return result

    return chain


# In double precision between casts, as TorchScript writes the norms of a model in half


def _of_float(match: Match) -> str | None:
    return None if match.editor.shapes.dtype(match.values["x"]) == ir.DataType.FLOAT else "it is no norm of float32"


@rule(
    "norm-double", ops.Norm, bind=_plain,
    where=(is_constant("axes", "epsilon"), is_small("epsilon"), _over_last, _of_float),
    samples=tuple(
        Sample({"x": normal(2, 3, 8)}, {"axes": [axis], "epsilon": np.float64(epsilon)}, matches=matches)
        for epsilon, axis, matches in ((1e-6, -1, True), (1e-12, 2, True), (0.5, -1, False), (1e-6, 1, False))
    ),
)  # fmt: skip
def _in_double(op: Op, x: Tensor, axes: Tensor, epsilon: Tensor) -> Tensor:
    centred = op.Cast(op.Sub(x, op.ReduceMean(x, axes)), to=ir.DataType.DOUBLE.value)
    deviation = op.Sqrt(op.Add(op.ReduceMean(op.Pow(centred, 2.0), axes), epsilon))
    return op.Cast(op.Div(centred, deviation), to=ir.DataType.FLOAT.value)


# Norms of the operator


def _as_wide(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["x"])
    vectors = [match.array(name) for name in ("gamma", "beta") if name in match.values]
    if shape is None or any(vector.shape != shape[-1:] for vector in vectors):
        return "gamma and beta are not as wide as the last axis"
    axis = match.attributes["axis"].as_int()
    return None if axis in (-1, len(shape) - 1) else f"it is taken over axis {axis} and those after it"


def _norms(*parameters: str) -> tuple[Sample, ...]:
    return tuple(
        Sample({"x": normal(2, 3, width)}, dict.fromkeys(parameters, normal(width)), {"epsilon": 1e-5, "axis": axis})
        for width in (4, 33)
        for axis in (-1, 2)
    )


@rule("norm", ops.Norm, where=(is_constant("gamma", "beta"), _is_float, _as_wide), samples=_norms("gamma", "beta"))
def _norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float, axis: int) -> Tensor:
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon, axis=axis)


@rule(
    "norm-no-bias", ops.Norm, bind=lambda match: {"beta": np.zeros_like(match.array("gamma"))},
    where=(is_constant("gamma"), _is_float, _as_wide), samples=_norms("gamma"),
)  # fmt: skip
def _norm_no_bias(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float, axis: int) -> Tensor:
    return op.LayerNormalization(x, gamma, epsilon=epsilon, axis=axis)


# What comes after a norm: norm(x) * factor and norm(x) + offset are norms too


def _along_width(name: str) -> Condition:
    """Condition: this constant is one number, or as many as the last axis of x has, along it."""

    def holds(match: Match) -> str | None:
        array, shape = match.array(name), match.editor.shapes.of(match.values["x"])
        if shape is None or array.ndim > len(shape) or array.dtype != np.float32:
            return f"{name} is not known to keep the shape and type of the norm"
        along = array.size == 1 or (array.size == shape[-1] and array.shape[-1] == shape[-1])
        return None if along else f"{name} has shape {list(array.shape)}"

    return holds


def _after(name: str) -> tuple[Sample, ...]:
    x, given = {"x": normal(2, 3, 6)}, {"gamma": normal(6), "beta": normal(6)}
    shapes = {(6,): True, (1, 1, 6): True, (): True, (3, 1): False, (2, 3, 6): False, (1, 1, 1, 6): False}
    return tuple(
        Sample(x, {**given, name: normal(*shape)}, {"epsilon": 1e-6}, matches) for shape, matches in shapes.items()
    )


@rule(
    "norm-scaled", ops.Norm, where=(is_constant("gamma", "beta", "factor"), _along_width("factor")),
    bind=lambda match: {name: _flat(match, "factor") * match.array(name) for name in ("gamma", "beta")},
    samples=_after("factor"),
)  # fmt: skip
def _scaled(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, factor: Tensor, *, epsilon: float) -> Tensor:
    return op.Mul(op.ffc.Norm(x, gamma, beta, epsilon=epsilon), factor)


@rule(
    "norm-shifted", ops.Norm, where=(is_constant("gamma", "beta", "offset"), _along_width("offset")),
    bind=lambda match: {"beta": _flat(match, "offset") + match.array("beta")}, samples=_after("offset"),
)  # fmt: skip
def _shifted(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, offset: Tensor, *, epsilon: float) -> Tensor:
    return op.Add(op.ffc.Norm(x, gamma, beta, epsilon=epsilon), offset)


def _flat(match: Match, name: str) -> np.ndarray:
    return match.array(name).reshape(-1)


# Norms of a residual sum


def _equal_shapes(match: Match) -> str | None:
    shapes = match.editor.shapes
    one, other = shapes.of(match.values["x"]), shapes.of(match.values["skip"])
    return None if one is not None and one == other else "the two summands differ in shape"


def _sum(*skip: int, matches: bool) -> Sample:
    inputs = {"x": normal(2, 3, 6), "skip": normal(*skip)}
    return Sample(inputs, {"gamma": normal(6), "beta": normal(6)}, {"epsilon": 1e-12}, matches)


# norm(x + skip)
@rule(
    "add-norm", ops.AddNorm, where=(is_constant("gamma", "beta"), _equal_shapes),
    samples=(_sum(2, 3, 6, matches=True), _sum(2, 1, 6, matches=False)),
)  # fmt: skip
def _add_norm(op: Op, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    return op.ffc.Norm(op.Add(x, skip), gamma, beta, epsilon=epsilon)


RULES = (*_chains(), _in_double, _norm, _norm_no_bias, _scaled, _shifted)
RESIDUAL = (_add_norm,)
