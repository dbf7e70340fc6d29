"""What steps cut off stays cut off where the model meant it: ReLUs and Clips that a tool dropped, and none of the model's own lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from tests.graphs import Draft, count, difference, run_passes, run_stock
from tests.kernels import needs_quantize_linear

FLOAT, INT64 = ir.DataType.FLOAT.value, ir.DataType.INT64


def pair(draft: Draft, x: Any, low: float, high: float, dtype: Any = np.uint8) -> Any:
    """Round x to the steps that onnxruntime's tools make of a range, and back."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    step = np.float32((np.float64(high) - low) / (int(most) - int(least)))
    zero = dtype(np.rint(least - low / np.float64(step)))
    return draft.op.DequantizeLinear(draft.op.QuantizeLinear(x, step, zero), step, zero)


def product(draft: Draft, x: Any, width: int = 8) -> Any:
    """Multiply x as onnxruntime does that quantises as it runs."""
    rounded, step, zero = draft.op.DynamicQuantizeLinear(x, outputs=3)
    stored = draft.weight("w", draft.random.integers(-99, 99, (width, 5), np.int8))
    return draft.op.Mul(draft.op.Cast(draft.op.MatMulInteger(rounded, stored, zero), to=FLOAT), draft.op.Mul(step, np.float32(0.01)))


def counts(draft: Draft) -> Any:
    return draft.op.Cast(draft.input("count", "batch", 1, dtype=INT64), to=FLOAT)


@pytest.mark.parametrize("form", ["penalty", "weighed", "never negative"])
def test_relus_of_the_model_itself_stay(form: str) -> None:
    draft = Draft()
    op, feature = draft.op, counts(draft)
    before = {
        "penalty": lambda: op.Sub(np.float32(6), feature),
        "weighed": lambda: op.Add(op.Mul(feature, draft.normal("by", 5)), draft.normal("plus", 5)),
        "never negative": lambda: op.Sigmoid(feature),
    }[form]()
    model = draft.model({"y": (op.Add(product(draft, draft.input("x", "batch", 8)), op.Relu(before)), ["batch", 5])})
    result = run_passes(model, "dequantize")
    assert count(result, "Relu") == 1
    inputs = {"x": draft.random.standard_normal((4, 8), np.float32), "count": np.array([[0], [3], [9], [60]])}
    assert difference(run_stock(model, inputs), run_stock(result, inputs)) < 0.02


@needs_quantize_linear
def test_a_relu_that_a_tool_dropped_behind_numbers_of_the_input_comes_back() -> None:
    draft = Draft()
    feature = draft.op.Add(draft.op.Mul(counts(draft), np.array([0.5, -0.5], np.float32)), np.array([-2, 3], np.float32))
    model = draft.model({"y": (pair(draft, feature, 0, 3.01), ["batch", 2])})
    result = run_passes(model, "dequantize")
    inputs = {"count": np.arange(10)[:, None]}
    assert difference(run_stock(model, inputs), run_stock(result, inputs)) < 0.01


MASKS = {
    "Where": lambda op, mask: op.Where(op.Cast(mask, to=ir.DataType.BOOL.value), np.float32(0), np.float32(-30)),
    "product": lambda op, mask: op.Mul(op.Sub(np.float32(1), op.Cast(mask, to=FLOAT)), np.float32(-1e4)),
    "sum": lambda op, mask: op.Add(MASKS["product"](op, mask), op.Unsqueeze(MASKS["Where"](op, mask), [1])),
}


@needs_quantize_linear
@pytest.mark.parametrize("form", MASKS)
def test_a_mask_is_no_relu(form: str) -> None:
    draft = Draft()
    mask = MASKS[form](draft.op, draft.input("mask", "batch", "seq", dtype=INT64))
    axes = ["seq", "batch", "seq"] if form == "sum" else ["batch", "seq"]
    result = ffc.compile(draft.model({"y": (pair(draft, mask, 0, 255), axes)}), "dequantize{cosine=-1}")
    assert any("as if no token was hidden" in note for step in result.report.steps for note in step.notes)
    assert count(result.model, "Relu") == 0
    hidden = run_stock(result.model, {"mask": np.array([[1, 1, 0]])})["y"]
    assert (hidden[..., 2] <= -30).all()
    assert not hidden[..., :2].any()


@needs_quantize_linear
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
@pytest.mark.parametrize(("low", "high"), [(0, 6), (-1, 1), (0, 1), (-2, 3)])
def test_a_clip_that_a_tool_dropped_comes_back(low: int, high: int, dtype: Any) -> None:
    draft = Draft()
    exact = draft.op.MatMul(draft.input("x", "batch", 8), draft.normal("w", 8, 5))
    model = draft.model({"y": (pair(draft, exact, low, high, dtype), ["batch", 5])})
    found = run_stock(run_passes(model, "opset", "dequantize"), inputs := {"x": 9 * draft.random.standard_normal((40, 8), np.float32)})
    assert (found["y"].min(), found["y"].max()) == (low, high)
    assert difference(run_stock(model, inputs), found) < 0.01


@needs_quantize_linear
def test_what_was_only_seen_in_calibration_cuts_nothing() -> None:
    draft = Draft()
    exact = draft.op.MatMul(draft.input("x", "batch", 8), draft.normal("w", 8, 5))
    rounded = pair(draft, pair(draft, exact, -1.02, 1.01), -0.5, 0.51)
    result = ffc.compile(draft.model({"y": (rounded, ["batch", 5])}), "dequantize{cosine=-1}")
    assert {node.op_type for node in result.model.graph} == {"MatMul"}
    notes = [note for step in result.report.steps for note in step.notes]
    assert "a function dropped before calibrated steps is known only where they end at 0 or whole numbers" in notes


def test_numbers_that_are_whole_anyway_cut_nothing() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 8)
    best = draft.op.Cast(draft.op.ArgMax(draft.op.MatMul(x, draft.normal("w", 8, 12)), axis=1), to=FLOAT)
    assert count(run_passes(draft.model({"y": (pair(draft, best, 0, 9), ["batch", 1])}), "dequantize"), "Clip") == 0

    draft = Draft()
    x = draft.input("x", "batch", 8)
    rounded = draft.op.Add(pair(draft, counts(draft), 0, 9), pair(draft, x, -3, 5))
    result = run_passes(draft.model({"y": (rounded, ["batch", 8])}), "dequantize")
    assert count(result, "Clip") == 0
    inputs = {"x": np.full((1, 8), -50, np.float32), "count": np.array([[120]])}
    assert (run_stock(result, inputs)["y"] == 70).all()


@pytest.mark.parametrize("before", ["Tanh", "Softmax", "Sigmoid"])
def test_what_stays_within_its_ends_needs_no_clip(before: str) -> None:
    draft = Draft()
    exact = getattr(draft.op, before)(draft.op.MatMul(draft.input("x", "batch", 8), draft.normal("w", 8, 5)))
    rounded = pair(draft, draft.op.Unsqueeze(exact, [0]), -1 if before == "Tanh" else 0, 1)
    result = run_passes(draft.model({"y": (rounded, [1, "batch", 5])}), "dequantize")
    assert count(result, "Clip") == count(result, "Relu") == 0


@pytest.mark.parametrize("factor", [1, 0.3])
def test_the_square_of_a_product_stays_one(factor: float) -> None:
    draft = Draft()
    op = draft.op
    one, other = (op.DynamicQuantizeLinear(draft.input(name, "batch", 4, 4), outputs=3) for name in "ab")
    sums = op.Cast(op.MatMulInteger(one[0], other[0], one[2], other[2]), to=FLOAT)
    exact = op.Mul(sums, op.Mul(one[1], other[1]))
    model = draft.model({"y": (op.Mul(op.Mul(exact, exact), np.float32(factor)), ["batch", 4, 4])})
    inputs = {name: draft.random.standard_normal((2, 4, 4), np.float32) for name in "ab"}
    assert difference(run_stock(model, inputs), run_stock(run_passes(model, "dequantize"), inputs)) < 0.05
