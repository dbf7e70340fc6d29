"""Rules for products by a weight with a bias, x @ w + b, and for their activation."""

from __future__ import annotations

import numpy as np

from ffc import Match, Op, Sample, Tensor, ops, rule
from ffc.compiler.rules import is_constant, normal, rank

__all__ = ["RULES"]


def _is_float(match: Match) -> str | None:
    return None if match.array("w").dtype == np.float32 else "its weight is not float32"


def _is_bias(match: Match) -> str | None:
    width = match.array("w").shape[1]
    return None if match.array("b").shape == (width,) else f"what is added is not a bias of {width} numbers"


_LINEAR = (is_constant("w"), rank("w", 2), _is_float, is_constant("b"), _is_bias)


def _products(*leading: int) -> tuple[Sample, ...]:
    """Return samples for x [..., I], and near-misses with a matrix for a bias and with a weight that is an input."""
    found = []
    for inner, outer in ((4, 5), (9, 3)):
        x, w, b = normal(*leading, inner), normal(inner, outer), normal(outer)
        found.append(Sample({"x": x}, {"w": w, "b": b}))
        found.append(Sample({"x": x}, {"w": w, "b": normal(leading[-1], outer)}, matches=False))
        found.append(Sample({"x": x, "w": w}, {"b": b}, matches=False))
    return tuple(found)


@rule("linear", ops.Linear, where=_LINEAR, samples=_products(2, 3))
def _linear(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return op.Add(op.MatMul(x, w), b)


_X, _PARAMETERS = {"x": normal(2, 3, 4)}, {"w": normal(4, 5), "b": normal(5)}


@rule("linear-relu", ops.LinearRelu, where=_LINEAR, samples=(Sample(_X, _PARAMETERS),))
def _linear_relu(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return op.Relu(op.ffc.Linear(x, w, b))


@rule(
    "linear-gelu", ops.LinearGelu, where=_LINEAR,
    samples=tuple(Sample(_X, _PARAMETERS, {"approximate": form}) for form in ("none", "tanh")),
)  # fmt: skip
def _linear_gelu(op: Op, x: Tensor, w: Tensor, b: Tensor, *, approximate: str) -> Tensor:
    return op.Gelu(op.ffc.Linear(x, w, b), approximate=approximate)


RULES = (_linear, _linear_relu, _linear_gelu)
