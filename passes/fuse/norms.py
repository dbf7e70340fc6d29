"""Rules for layer norms, and for those of a residual sum."""

from __future__ import annotations

import numpy as np

from ffc import Match, Op, Rule, Sample, Tensor, ops, rule
from ffc.compiler.rules import is_constant, is_small, normal
from ffc.graph.dialect.trace import Program

__all__ = ["RULES"]


def _over_last_axis(match: Match) -> str | None:
    if match.array("gamma").dtype != np.float32:
        return "it is not computed in float32"
    shape = match.editor.shapes.of(match.values["x"])
    vectors = [match.array(name) for name in ("gamma", "beta") if name in match.values]
    if shape is None or any(vector.shape != shape[-1:] for vector in vectors):
        return "gamma and beta are not as wide as the last axis"
    axis = match.attributes["axis"].as_int() if "axis" in match.attributes else -1
    return None if axis in (-1, len(shape) - 1) else f"it is taken over axis {axis} and those after it"


def _chain(name: str, square: Program) -> Rule:
    def sample(width: int, epsilon: float, *, matches: bool = True) -> Sample:
        constants = {"gamma": normal(width), "beta": normal(width), "epsilon": epsilon}
        return Sample({"x": normal(2, 3, width)}, constants, matches=matches)

    # (x - mean) / sqrt(variance + epsilon) * gamma + beta
    @rule(
        name, ops.Norm, bind=lambda match: {"epsilon": match.number("epsilon")},
        where=(is_constant("gamma", "beta", "epsilon"), is_small("epsilon"), _over_last_axis),
        samples=(sample(4, 1e-6), sample(33, 1e-6), sample(4, 0.5, matches=False)),
    )  # fmt: skip
    def chain(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor) -> Tensor:
        centred = op.Sub(x, op.ReduceMean(x, [-1]))
        variance = op.ReduceMean(square(op, centred), [-1])
        return op.Add(op.Mul(op.Div(centred, op.Sqrt(op.Add(variance, epsilon))), gamma), beta)

    return chain


def _norms(*parameters: str) -> tuple[Sample, ...]:
    return tuple(
        Sample({"x": normal(2, 3, width)}, dict.fromkeys(parameters, normal(width)), {"epsilon": 1e-5, "axis": axis})
        for width in (4, 33)
        for axis in (-1, 2)
    )


@rule("norm", ops.Norm, where=(is_constant("gamma", "beta"), _over_last_axis), samples=_norms("gamma", "beta"))
def _norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float, axis: int) -> Tensor:
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon, axis=axis)


@rule(
    "norm-no-bias", ops.Norm, bind=lambda match: {"beta": np.zeros_like(match.array("gamma"))},
    where=(is_constant("gamma"), _over_last_axis), samples=_norms("gamma"),
)  # fmt: skip
def _norm_no_bias(op: Op, x: Tensor, gamma: Tensor, *, epsilon: float, axis: int) -> Tensor:
    return op.LayerNormalization(x, gamma, epsilon=epsilon, axis=axis)


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


RULES = (
    _chain("norm-chain", lambda op, x: op.Pow(x, 2.0)),
    _chain("norm-chain-square", lambda op, x: op.Mul(x, x)),
    _norm,
    _norm_no_bias,
    _add_norm,
)
