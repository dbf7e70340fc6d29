"""Rules for products by a weight with a bias, x @ w + b, and for their activation."""

from __future__ import annotations

import numpy as np

from ffc import Match, Op, Sample, Tensor, ops, rule
from ffc.compiler.rules import Condition, is_constant, normal, rank

__all__ = ["RULES"]


def _is_float(match: Match) -> str | None:
    return None if match.array("w").dtype == np.float32 else "its weight is not float32"


def _bias_along(axis: int) -> Condition:
    def holds(match: Match) -> str | None:
        width = match.array("w").shape[axis]
        return None if match.array("b").shape == (width,) else f"what is added is not a bias of {width} numbers"

    return holds


_WEIGHT = (is_constant("w"), rank("w", 2), _is_float)
_LINEAR = (*_WEIGHT, is_constant("b"), _bias_along(1))


def _products(*leading: int, transposed: bool = False) -> tuple[Sample, ...]:
    """Return samples for x [..., I], and near-misses with a matrix for a bias and with a weight that is an input."""
    found = []
    for inner, outer in ((4, 5), (9, 3)):
        x, w, b = normal(*leading, inner), normal(*((outer, inner) if transposed else (inner, outer))), normal(outer)
        found.append(Sample({"x": x}, {"w": w, "b": b}))
        found.append(Sample({"x": x}, {"w": w, "b": normal(leading[-1], outer)}, matches=False))
        found.append(Sample({"x": x, "w": w}, {"b": b}, matches=False))
    return tuple(found)


@rule("linear", ops.Linear, where=_LINEAR, samples=_products(2, 3))
def _linear(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return op.Add(op.MatMul(x, w), b)


@rule("linear-gemm", ops.Linear, where=_LINEAR, samples=_products(3))
def _gemm(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return op.Gemm(x, w, b)


@rule(
    "linear-gemm-transposed", ops.Linear, bind=lambda match: {"w": np.ascontiguousarray(match.array("w").T)},
    where=(*_WEIGHT, is_constant("b"), _bias_along(0)), samples=_products(3, transposed=True),
)  # fmt: skip
def _gemm_transposed(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return op.Gemm(x, w, b, transB=1)


@rule(
    "linear-gemm-no-bias", ops.Linear, where=_WEIGHT, samples=(Sample({"x": normal(3, 4)}, {"w": normal(5, 4)}),),
    bind=lambda match: {"w": np.ascontiguousarray(match.array("w").T), "b": np.zeros_like(match.array("w")[:, 0])},
)  # fmt: skip
def _gemm_no_bias(op: Op, x: Tensor, w: Tensor) -> Tensor:
    return op.Gemm(x, w, transB=1)


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


RULES = (_linear, _gemm, _gemm_transposed, _gemm_no_bias, _linear_relu, _linear_gelu)
