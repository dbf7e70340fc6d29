"""The pass `clean` gives tokens their two axes back through all that treats them alike, and through nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.graphs import Draft, count, difference, run_passes, run_stock

BATCH, TOKENS, WIDTH = 2, 3, 4
X = np.random.default_rng(0).standard_normal((BATCH, TOKENS, WIDTH)).astype(np.float32)

Make = Callable[[Draft, Any, Any], Any]
"""Takes a draft, the rows [batch * tokens, width] and a second value of them."""


def cleaned(make: Make, *, batch: int | str = "batch", back: int | None = WIDTH) -> ir.Model:
    """Return what becomes of a model of rows, proved equal; `back` is the width that tokens have at the end, None for rows."""
    draft = Draft()
    x = draft.input("x", batch, TOKENS, WIDTH)
    rows = draft.op.Reshape(x, [-1, WIDTH])
    result = make(draft, rows, draft.op.Reshape(draft.op.Exp(x), [-1, WIDTH]))
    y = result if back is None else draft.op.Reshape(result, [-1, TOKENS, back])
    model = draft.model({"y": (y, ["a", "b"] if back is None else ["a", TOKENS, back])})
    after = run_passes(model, "opset", "clean")
    assert difference(run_stock(model, {"x": X}), run_stock(after, {"x": X})) < 1e-5
    return after


def gemm(**attributes: Any) -> Make:
    shape = (5, WIDTH) if attributes.get("transB") else (WIDTH, 5)
    return lambda d, x, other: d.op.Gemm(x, d.normal("w", *shape), d.normal("b", 5), **attributes)


ALIKE: dict[str, tuple[Make, int]] = {
    "product": (lambda d, x, other: d.op.MatMul(x, d.normal("w", WIDTH, 5)), 5),
    "product with what varies": (lambda d, x, other: d.op.MatMul(x, d.op.MatMul(d.op.Transpose(other, perm=[1, 0]), other)), WIDTH),
    "gemm": (gemm(), 5),
    "gemm with attributes": (gemm(transB=1, alpha=0.5, beta=2.0), 5),
    "gemm without bias": (lambda d, x, other: d.op.Gemm(x, d.normal("w", WIDTH, 5)), 5),
    "constant": (lambda d, x, other: d.op.Sub(d.normal("c", WIDTH), x), WIDTH),
    "constant of one row": (lambda d, x, other: d.op.Mul(x, d.normal("c", 1, WIDTH)), WIDTH),
    "number": (lambda d, x, other: d.op.Pow(x, np.float32(2)), WIDTH),
    "one": (lambda d, x, other: d.op.Tanh(x), WIDTH),
    "two": (lambda d, x, other: d.op.Add(x, other), WIDTH),
    "three": (lambda d, x, other: d.op.Where(d.op.Greater(x, other), x, other), WIDTH),
    "mean": (lambda d, x, other: d.op.Sub(x, d.op.ReduceMean(x, [1])), WIDTH),
    "largest": (lambda d, x, other: d.op.ReduceMax(x, [-1]), 1),
    "norm": (lambda d, x, other: d.op.LayerNormalization(x, d.normal("g", WIDTH), d.normal("b", WIDTH), axis=1), WIDTH),
    "softmax": (lambda d, x, other: d.op.Softmax(x, axis=1), WIDTH),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_treats_rows_alike_reads_tokens(name: str) -> None:
    make, width = ALIKE[name]
    after = cleaned(make, back=width)
    (last,) = (value.producer() for value in after.graph.outputs)
    assert last is not None
    assert last.op_type != "Reshape"
    assert count(after, "Gemm") == 0


ACROSS: dict[str, Make] = {
    "mean of rows": lambda d, x, other: d.op.Sub(x, d.op.ReduceMean(x, [0])),
    "mean of all": lambda d, x, other: d.op.Sub(x, d.op.ReduceMean(x)),
    "softmax of rows": lambda d, x, other: d.op.Softmax(x, axis=0),
    "norm of rows": lambda d, x, other: d.op.LayerNormalization(x, d.normal("g", BATCH * TOKENS, WIDTH), axis=0),
    "a number for each row": lambda d, x, other: d.op.Mul(x, d.normal("c", BATCH * TOKENS, 1)),
    "right operand": lambda d, x, other: d.op.MatMul(d.normal("w", BATCH * TOKENS, BATCH * TOKENS), x),
    "transposed": lambda d, x, other: d.op.Gemm(x, d.normal("w", BATCH * TOKENS, WIDTH), transA=1),
    "sums along the rows": lambda d, x, other: d.op.CumSum(x, np.int64(0)),
}


@pytest.mark.parametrize("name", ACROSS)
def test_what_mixes_rows_reads_them_as_they_were(name: str) -> None:
    assert count(cleaned(ACROSS[name], batch=BATCH, back=None), "Reshape") >= 1


def test_rows_that_leave_the_model_stay_rows() -> None:
    after = cleaned(lambda d, x, other: d.linear("w", x, WIDTH, 5), back=None)
    assert [node.op_type for node in after.graph] == ["MatMul", "Add", "Reshape"]


def test_the_first_token_alone_is_left_as_it_is() -> None:
    draft = Draft()
    x = draft.input("x", "batch", TOKENS, WIDTH)
    first = draft.op.Reshape(draft.op.Slice(x, [0], [1], [1]), [-1, WIDTH])
    model = draft.model({"y": (draft.linear("head", first, WIDTH, 5), ["batch", 5])})
    after = run_passes(model, "opset", "clean")
    assert [node.op_type for node in after.graph] == ["Slice", "Reshape", "MatMul", "Add"]


def test_ids_that_were_flattened_are_looked_up_as_they_came() -> None:
    draft = Draft()
    ids = draft.input("ids", "batch", "tokens", dtype=ir.DataType.INT64)
    flat = draft.op.Reshape(draft.op.Unsqueeze(ids, [2]), [-1])
    found = draft.op.Reshape(draft.op.Gather(draft.normal("table", 9, WIDTH), flat), draft.op.Concat(draft.op.Shape(ids), [WIDTH], axis=0))
    model = draft.model({"y": (found, ["batch", "tokens", WIDTH])})
    after = run_passes(model, "opset", "clean")
    assert [node.op_type for node in after.graph] == ["Gather"]


def test_heads_that_become_rows_at_once_are_merged_first() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "tokens", 2, 2)
    y = draft.linear("out", draft.op.Reshape(x, [-1, WIDTH]), WIDTH, 5)
    target = draft.op.Concat(draft.op.Shape(x, end=2), [5], axis=0)
    after = run_passes(draft.model({"y": (draft.op.Reshape(y, target), ["batch", "tokens", 5])}), "opset", "clean")
    assert [node.op_type for node in after.graph] == ["Reshape", "MatMul", "Add"]
