"""Norms are found in every form that exporters write, whichever of gamma and beta are there, and over no other axis."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.graphs import Draft, count, difference, run_passes, run_stock

WIDTH = 6
X = (3 * np.random.default_rng(0).standard_normal((2, 5, WIDTH)) + 1).astype(np.float32)

ROOTS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "sqrt": lambda op, x, v: op.Div(x, op.Sqrt(v)),
    "root": lambda op, x, v: op.Div(x, op.Pow(v, np.float32(0.5))),
    "reciprocal": lambda op, x, v: op.Mul(op.Reciprocal(op.Sqrt(v)), x),
    "one over": lambda op, x, v: op.Mul(x, op.Div(np.float32(1), op.Sqrt(v))),
    "power": lambda op, x, v: op.Mul(x, op.Pow(v, np.float32(-0.5))),
}


def norm(draft: Draft, x: Any, root: str = "sqrt", gamma: Any = None, beta: Any = None, axis: int = -1) -> Any:
    """Return a norm of `x` written out."""
    op = draft.op
    centred = op.Sub(x, op.ReduceMean(x, [axis]))
    y = ROOTS[root](op, centred, op.Add(op.ReduceMean(op.Mul(centred, centred), [axis]), np.float32(1e-6)))
    y = y if gamma is None else op.Mul(y, draft.weight("gamma", np.asarray(gamma, np.float32)))
    return y if beta is None else op.Add(y, draft.weight("beta", np.asarray(beta, np.float32)))


def moments(draft: Draft, x: Any, gamma: Any = None, beta: Any = None) -> Any:
    """Return a norm as TensorFlow computes it: x * m + (beta - mean * m)."""
    op = draft.op
    mean = op.ReduceMean(x, [2])
    off = op.Sub(x, mean)
    m = op.Reciprocal(op.Sqrt(op.Add(op.ReduceMean(op.Mul(off, off), [2]), np.float32(1e-6))))
    m = m if gamma is None else op.Mul(m, draft.weight("gamma", np.asarray(gamma, np.float32)))
    if beta is None:
        return op.Add(op.Mul(x, m), op.Mul(op.Neg(mean), m))
    return op.Add(op.Mul(x, m), op.Sub(draft.weight("beta", np.asarray(beta, np.float32)), op.Mul(mean, m)))


def fused(make: Callable[[Draft, Any], Any], *shape: int | str) -> ir.Model:
    """Return what becomes of a model of one input x and what `make` computes of it, proved equal."""
    draft = Draft()
    result = make(draft, draft.input("x", *(shape or ("batch", "seq", WIDTH))))
    model = draft.model({"y": (result, [f"n{axis}" for axis in range(len(shape or X.shape))])})
    after = run_passes(model, "opset", "clean", "fuse")
    x = X.reshape(-1, WIDTH) if len(shape) == 2 else X
    assert difference(run_stock(model, {"x": x}), run_stock(after, {"x": x})) < 1e-5
    return after


ONES, ZEROS, GAMMA, BETA = np.ones(WIDTH), np.zeros(WIDTH), np.linspace(0.5, 2, WIDTH), np.linspace(-1, 1, WIDTH)
PARAMETERS = list(itertools.product((None, ONES, GAMMA), (None, ZEROS, BETA)))


@pytest.mark.parametrize(("gamma", "beta"), PARAMETERS)
@pytest.mark.parametrize("root", [*ROOTS, "moments"])
def test_a_norm_is_found_with_any_of_its_parameters(root: str, gamma: Any, beta: Any) -> None:
    def make(draft: Draft, x: Any) -> Any:
        return moments(draft, x, gamma, beta) if root == "moments" else norm(draft, x, root, gamma, beta)

    after = fused(make)
    assert [node.op_type for node in after.graph] == ["Norm"]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, WIDTH)])
def test_parameters_are_one_number_or_have_more_axes(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    gamma, beta = GAMMA[:size].reshape(shape), BETA[:size].reshape(shape)
    assert [node.op_type for node in fused(lambda draft, x: norm(draft, x, "sqrt", gamma, beta)).graph] == ["Norm"]


@pytest.mark.parametrize("axis", [1, 0, -2])
def test_over_another_axis_it_is_none(axis: int) -> None:
    assert count(fused(lambda draft, x: norm(draft, x, gamma=GAMMA, axis=axis)), "Norm") == 0


def test_axes_may_be_counted_from_the_front_and_there_may_be_two() -> None:
    assert count(fused(lambda draft, x: norm(draft, x, axis=2)), "Norm") == 1
    assert count(fused(lambda draft, x: norm(draft, x, axis=1), "rows", WIDTH), "Norm") == 1


def test_a_factor_for_each_token_is_none_of_the_norm() -> None:
    factor = np.linspace(1, 2, 5).reshape(5, 1)
    after = fused(lambda draft, x: norm(draft, x, gamma=factor), "batch", 5, WIDTH)
    assert [node.op_type for node in after.graph] == ["Norm", "Mul"]


def test_what_is_read_before_it_is_scaled_stays() -> None:
    def make(draft: Draft, x: Any) -> Any:
        plain = norm(draft, x)
        return draft.op.Add(draft.op.Mul(plain, GAMMA.astype(np.float32)), draft.op.Exp(plain))

    assert [node.op_type for node in fused(make).graph] == ["Norm", "Mul", "Exp", "Add"]


def test_a_sum_joins_a_norm_that_is_whole() -> None:
    def make(draft: Draft, x: Any) -> Any:
        return norm(draft, draft.op.Add(x, draft.op.Exp(x)), gamma=GAMMA, beta=BETA)

    assert [node.op_type for node in fused(make).graph] == ["Exp", "AddNorm"]
