"""The pass `clean` takes out what no one needs, keeps outputs equal, and inflates nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.dialect.fold import FOLD_LIMIT
from ffc.graph.text import text
from tests.graphs import (
    LIBRARY,
    LOWEST,
    Draft,
    Stock,
    count,
    difference,
    encoder,
    feeds,
    masks,
    run_pass,
    run_passes,
    run_stock,
)

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def cleaned(make: Callable[[Draft, Any], Any]) -> ir.Model:
    """Return the model with input ``x`` [2, 3] and an output that `make` computes, cleaned and proved equal."""
    draft = Draft()
    result = make(draft, draft.input("x", 2, 3))
    expected = {"x": X}
    model = draft.model({"y": (result, [f"n{axis}" for axis in range(2)])})
    before = run_stock(model, expected)["y"]
    after = run_passes(model, "opset", "clean")
    assert np.allclose(run_stock(after, expected)["y"], before, rtol=1e-6)
    return after


def test_golden(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("clean", run_passes(encoder(), "opset", "clean"))


def test_outputs_of_an_encoder_stay_equal_on_every_mask() -> None:
    model = encoder(layers=2)
    after = run_passes(model, "opset", "clean")
    assert len(after.graph) < len(model.graph) - 20
    before, result = Stock(model), Stock(after)
    for length in (1, 2, 9, 24):
        for mask in masks(3, length).values():
            inputs = feeds(mask)
            assert difference(before(inputs), result(inputs), mask) < 1e-5


def test_cleaning_twice_changes_nothing_more() -> None:
    once = run_passes(encoder(layers=2), "opset", "clean")
    before = text(once)
    log = run_pass(LIBRARY["clean"](), once)
    assert log.count == 0
    assert text(once) == before


def test_constants_are_folded() -> None:
    after = cleaned(lambda d, x: d.op.Add(x, d.op.Mul(d.normal("a", 3), d.op.Exp(d.normal("b", 3)))))
    assert [node.op_type for node in after.graph] == ["Add"]


def test_folding_never_inflates_a_model() -> None:
    side = int((FOLD_LIMIT / 4) ** 0.5) + 10

    def make(draft: Draft, x: Any) -> Any:
        large = draft.op.Expand(draft.normal("row", 1, side), [side, side])
        return draft.op.Add(x, draft.op.ReduceSum(draft.op.Mul(large, large), [0, 1], keepdims=1))

    assert count(cleaned(make), "Expand") == 1


def test_shapes_that_come_out_constant_are_written_down() -> None:
    def make(draft: Draft, x: Any) -> Any:
        return draft.op.Reshape(x, draft.op.Concat(draft.op.Shape(x, start=1), [-1], axis=0))

    after = cleaned(make)
    assert [node.op_type for node in after.graph] == ["Reshape"]


def test_a_target_that_keeps_a_dimension_says_so_with_a_zero() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "seq", 12)
    shape = draft.op.Concat(draft.op.Shape(x, end=2), [3], [4], axis=0)
    after = run_passes(draft.model({"y": (draft.op.Neg(draft.op.Reshape(x, shape)), ["batch", "seq", 3, 4])}), "opset", "clean")
    (reshape,) = [node for node in after.graph if node.op_type == "Reshape"]
    target = reshape.inputs[1]
    assert target is not None and target.const_value is not None
    assert target.const_value.numpy().tolist() == [0, 0, 3, 4]
    array = np.arange(48, dtype=np.float32).reshape(2, 2, 12)
    assert np.array_equal(run_stock(after, {"x": array})["y"], -array.reshape(2, 2, 3, 4))


def test_duplicates_of_nodes_and_weights_are_merged() -> None:
    def make(draft: Draft, x: Any) -> Any:
        same = np.full(3, 2, np.float32)
        one = draft.op.Mul(x, draft.weight("a", same))
        other = draft.op.Mul(x, draft.weight("b", same.copy()))
        return draft.op.Add(draft.op.Exp(one), draft.op.Identity(draft.op.Exp(other)))

    after = cleaned(make)
    assert sorted(node.op_type for node in after.graph) == ["Add", "Exp", "Mul"]
    assert len(after.graph.initializers) == 1


def test_what_only_looks_like_noise_stays() -> None:
    def guard(draft: Draft, x: Any) -> Any:  # no mask before the Softmax: what NaN there may be is the model's own
        p = draft.op.Softmax(x)
        return draft.op.Where(draft.op.IsNaN(p), np.float32(0), p)

    assert count(cleaned(guard), "IsNaN") == 1
    assert count(cleaned(lambda d, x: d.op.Mul(x, [1.0, 1.0, 1.0001])), "Mul") == 1
    assert count(cleaned(lambda d, x: d.op.Add(d.op.Reshape(x, [3, 2]), 1.0)), "Reshape") == 1


def guarded(low: float, queries: int) -> ir.Model:
    draft = Draft()
    scores, keep = draft.input("scores", 2, 2, 3), draft.input("keep", 2, queries, 3, dtype=ir.DataType.BOOL)
    p = draft.op.Softmax(draft.op.Add(scores, draft.op.Where(keep, np.float32(0), np.float32(low))), axis=-1)
    return draft.model({"y": (draft.op.Where(draft.op.IsNaN(p), np.float32(0), p), [2, 2, 3])})


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo(np.float32).min)])
def test_a_row_masked_throughout_becomes_finite_and_others_stay(low: float) -> None:
    keep = np.array([[[True, True, False]], [[False, False, False]]])
    inputs = {"scores": np.stack([X, X]), "keep": keep}
    model = guarded(low, queries=1)
    before, after = run_stock(model, inputs)["y"], run_passes(model, "opset", "clean")
    assert count(after, "IsNaN", "Where") == 1
    found = run_stock(after, inputs)["y"]
    assert np.allclose(found[0], before[0], rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("low", [-np.inf, float(np.finfo(np.float32).min)])
def test_a_query_that_sees_nothing_keeps_what_a_guard_gives_it(low: float) -> None:
    keep = np.array([[[True, True, False], [True, False, False]], [[True, True, False], [False, False, False]]])
    inputs = {"scores": np.stack([X, X]), "keep": keep}
    model = guarded(low, queries=2)
    before, after = run_stock(model, inputs)["y"], run_passes(model, "opset", "clean")
    assert count(after, "IsNaN") == np.isinf(low)
    assert np.allclose(run_stock(after, inputs)["y"], before, rtol=1e-6)
    assert np.allclose(before[1, 1], 0 if np.isinf(low) else 1 / 3)


@pytest.mark.parametrize("low", [-1e4, LOWEST])
@pytest.mark.parametrize("other", ["input", "lowest", "-1e9", "bias"])
def test_a_guard_stays_where_masks_may_come_to_minus_infinity(low: float, other: str) -> None:
    draft = Draft()
    op, flags = draft.op, {"dtype": ir.DataType.BOOL}
    q, mask = draft.input("q", 2, 3, 4), draft.input("mask", 2, 3, 3)
    keep, past = draft.input("keep", 2, 3, 3, **flags), draft.input("past", 2, 3, 3, **flags)
    added = {"input": mask, "lowest": op.Where(past, 0.0, LOWEST), "-1e9": op.Where(past, 0.0, -1e9), "bias": np.eye(3, dtype=np.float32)}
    scores = op.Add(op.Mul(op.MatMul(q, op.Transpose(q, perm=[0, 2, 1])), np.float32(0.5)), added[other])
    p = op.Softmax(op.Add(scores, op.Where(keep, np.float32(0), np.float32(low))), axis=-1)
    model = draft.model({"y": (op.Where(op.IsNaN(p), np.float32(0), p), [2, 3, 3])})
    after = run_passes(model, "opset", "clean")
    assert count(after, "IsNaN") == (other == "input" or (other == "lowest" and low == LOWEST))
    shown = np.ones((2, 3, 3), np.bool_)
    shown[1, 1] = False
    masks = {"mask": np.where(shown, 0, -np.inf).astype(np.float32), "past": shown, "keep": shown}
    inputs = {"q": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32), **masks}
    assert np.allclose(run_stock(after, inputs)["y"], run_stock(model, inputs)["y"], rtol=1e-5)


def test_outputs_that_are_one_value_keep_their_names() -> None:
    draft = Draft()
    x = draft.input("x", 2, 3)
    one, other = draft.op.Relu(x), draft.op.Relu(x)
    after = run_passes(draft.model({"one": (one, [2, 3]), "other": (other, [2, 3])}), "opset", "clean")
    found = run_stock(after, {"x": X})
    assert list(found) == ["one", "other"]
    assert np.array_equal(found["one"], found["other"])


def test_an_output_that_equals_a_value_without_a_type_keeps_its_own() -> None:
    draft = Draft()
    x = draft.input("x", "n", 3)
    negative = draft.op.Neg(x)
    one, two = (draft.op.Add(negative, np.float32(1)) for _ in range(2))
    model = draft.model({"y": (two, ["n", 3]), "z": (draft.op.Mul(one, np.float32(2)), ["n", 3])})
    after = ffc.compile(model, "clean").model
    assert count(after, "Add") == 1
    assert [value.dtype for value in after.graph.outputs] == [ir.DataType.FLOAT] * 2
    found = run_stock(after, {"x": X})
    assert np.array_equal(found["y"], 1 - X) and np.array_equal(found["z"], 2 - 2 * X)
