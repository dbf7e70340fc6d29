"""What is told of masks: whether all queries see the same, how low their numbers go, and how far queries see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.probes import make
from ffc.graph.blocks.masks import is_at_least, is_of_products, is_same_for_all_queries, lows, widest_window
from ffc.graph.shapes.inference import infer
from tests.graphs import Draft

Make = Callable[[Any, Any, Any], Any]

MASKS: dict[str, tuple[Make, bool, bool]] = {
    "of keys": (lambda op, keys, pairs: op.Where(keys, 0.0, -9.0), True, True),
    "spelled out": (lambda op, keys, pairs: op.Expand(op.Where(keys, 0.0, -9.0), [1, 1, 3, 3]), True, True),
    "of pairs": (lambda op, keys, pairs: op.Where(pairs, 0.0, -9.0), False, True),
    "of both": (lambda op, keys, pairs: op.Where(op.And(keys, pairs), 0.0, -9.0), False, True),
    "lower": (lambda op, keys, pairs: op.Where(keys, 0.0, -11.0), True, False),
    "lower in sum": (lambda op, keys, pairs: op.Add(op.Where(keys, 0.0, -9.0), op.Where(pairs, 0.0, -9.0)), False, False),
    "bounded": (lambda op, keys, pairs: op.Max(op.Where(pairs, 0.0, -11.0), -10.0), False, True),
    "looked up": (lambda op, keys, pairs: op.Gather(np.full((2, 3), -9, np.float32), [0, 1, 0]), False, True),
}


@pytest.mark.parametrize("name", MASKS)
def test_whether_queries_see_the_same_and_how_low_a_mask_goes(name: str) -> None:
    write, same, above = MASKS[name]
    draft = Draft()
    keys = draft.input("keys", "batch", 1, 1, "seq", dtype=ir.DataType.BOOL)
    pairs = draft.input("pairs", "batch", 1, "seq", "seq", dtype=ir.DataType.BOOL)
    mask = write(draft.op, keys, pairs)
    model = draft.model({"y": (mask, ["batch", 1, "queries", "seq"])})
    assert is_same_for_all_queries(mask, infer(model)) is same
    assert is_at_least(mask, -10.0) is above


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda op, keep, mask: op.Where(keep, 0.0, -1e9), set()),
        (lambda op, keep, mask: op.Expand(op.Where(keep, 0.0, -1e35), [2, 1, 3, 3]), {-1e35}),
        (lambda op, keep, mask: op.Where(keep, op.Where(keep, 0.0, -np.inf), -1e35), {-1e35, -np.inf}),
        (lambda op, keep, mask: op.Max(mask, -1e9), set()),
        (lambda op, keep, mask: mask, None),
        (lambda op, keep, mask: op.Where(keep, mask, -np.inf), None),
    ],
)
def test_which_low_numbers_a_mask_may_hold(write: Make, found: set[float] | None) -> None:
    draft = Draft()
    keep, mask = draft.input("keep", "batch", 1, 3, 3, dtype=ir.DataType.BOOL), draft.input("mask", "batch", 1, 3, 3)
    value = write(draft.op, keep, mask)
    draft.model({"y": (value, ["batch", 1, 3, 3])})
    told = lows(value)
    assert (told if told is None else {float(np.float32(low)) for low in told}) == (
        found if found is None else {float(np.float32(low)) for low in found}
    )


@pytest.mark.parametrize(
    ("write", "fits"),
    [
        (lambda op, product, mask: op.Div(op.Add(product, np.eye(3, dtype=np.float32)), np.float32(2)), True),
        (lambda op, product, mask: op.Add(product, op.GatherElements(product, np.zeros((1, 3, 3), np.int64), axis=2)), True),
        (lambda op, product, mask: op.Add(product, op.Gather(np.full((2, 3), -3, np.float32), [0, 1, 0])), True),
        (lambda op, product, mask: op.Add(product, mask), False),
        (lambda op, product, mask: op.Add(product, np.full((3, 3), -11, np.float32)), False),
        (lambda op, product, mask: mask, False),
    ],
)
def test_whether_scores_are_products_and_no_mask_is_among_them(write: Make, fits: bool) -> None:
    draft = Draft()
    x, mask = draft.input("x", 1, 3, 3), draft.input("mask", 1, 3, 3)
    value = write(draft.op, draft.op.MatMul(x, x), mask)
    draft.model({"y": (value, [1, 3, 3])})
    assert is_of_products(value, -10.0) is fits


def windowed(width: int | None) -> ir.Model:
    draft = Draft()
    op = draft.op
    mask = draft.input("attention_mask", "batch", "seq", dtype=ir.DataType.INT64)
    places = op.Range(np.int64(0), op.Squeeze(op.Shape(mask, start=1, end=2), [0]), np.int64(1))
    distance = op.Sub(op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1]))
    near = op.LessOrEqual(op.Abs(distance), np.int64(0 if width is None else width))
    seen = op.And(op.Unsqueeze(near, [0]), op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL.value), [1]))
    return draft.model({"y": (op.Cast(seen, to=ir.DataType.FLOAT.value), ["batch", "seq", "seq"])})


@pytest.mark.parametrize(("width", "found"), [(5, 5), (64, 64), (300, None), (None, None)])
def test_the_window_of_a_model_is_told_by_what_distances_are_compared_with(width: int | None, found: int | None) -> None:
    model = windowed(width)
    assert widest_window(model, 256) == found
    beyond = [probe for probe in make(model) if "beyond" in probe.name]
    assert len(beyond) == (found is not None)
    for probe in beyond:
        assert probe.mask is not None and found is not None
        lost = int((~probe.mask[1]).sum())
        assert probe.mask[0].all() and not probe.mask[1, :lost].any()
        assert lost > found + 1, "the first token sees nothing"
