"""The ways in which a product with a constant weight is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graphs import Draft

PRODUCTS = (
    "matmul+bias", "bias+matmul", "matmul", "flat gemm", "flat gemm transposed", "flat gemm scaled", "flat gemm alone", "flat matmul",
)  # fmt: skip
BARE = ("matmul", "flat gemm alone")
"""Those without a bias."""


def write_product(
    draft: Draft, name: str, form: str, x: Any, inner: int, outer: int, rows: np.ndarray | None = None
) -> Any:  # fmt: skip
    """Add a product with a constant weight, in one of the forms of `PRODUCTS`.

    Args:
        draft: What it is added to.
        name: Prefix of its weights.
        form: How it is written.
        x: What it reads, [batch, seq, inner].
        inner: Input width.
        outer: Output width.
        rows: Factors on the rows of its weight, [inner].
    """
    op = draft.op
    array = 0.4 * draft.random.standard_normal((inner, outer)).astype(np.float32)
    if rows is not None:
        array = array * rows[:, None]
    transposed = form in ("flat gemm transposed", "flat gemm scaled")
    weight = draft.weight(f"{name}.weight", np.ascontiguousarray(array.T if transposed else array))
    bias = draft.normal(f"{name}.bias", outer)
    if not form.startswith("flat"):
        product = op.MatMul(x, weight)
        added = {"matmul+bias": (product, bias), "bias+matmul": (bias, product)}.get(form)
        return product if added is None else op.Add(*added)
    rank2 = op.Reshape(x, [-1, inner])
    if form == "flat matmul":
        flat = op.Add(op.MatMul(rank2, weight), bias)
    elif form == "flat gemm alone":
        flat = op.Gemm(rank2, weight)
    else:
        factors = {"alpha": 0.5, "beta": 2.0} if form == "flat gemm scaled" else {}
        flat = op.Gemm(rank2, weight, bias, transB=int(transposed), **factors)
    return op.Reshape(flat, op.Concat(op.Shape(x, end=2), [outer], axis=0))
