"""The pass `fuse` turns the blocks of an encoder into calls, equal on every padding, whatever an exporter wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.text import text
from tests import encoders
from tests.graph.blocks.test_finder import HEADS, Form, attention_model, kernel_model
from tests.graphs import (
    LIBRARY,
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
from tests.kernels import needs_bool_masks, needs_grouped_keys

LENGTHS = (1, 2, 7, 24)


def fused(model: ir.Model) -> ir.Model:
    return run_passes(model, "opset", "clean", "fuse")


def calls(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == "ffc")


def test_golden(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("fuse", fused(encoder()))


def test_every_block_becomes_a_call() -> None:
    assert calls(fused(encoder(layers=2))) == {
        "AttentionMasked": 2, "AddNorm": 4, "Linear": 2 * 5 + 1, "LinearGelu": 2, "Embed": 1,
    }  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_outputs_stay_equal_on_every_mask(length: int, causal: bool) -> None:
    model = encoder(layers=2, causal=causal)
    after = fused(model)
    assert calls(after)["AttentionMasked"] == 2
    before, result = Stock(model), Stock(after)
    for batch in (1, 3):
        for mask in masks(batch, length).values():
            # Causal attention leaves padded first tokens nothing real to see; what they give means nothing, and the pooler reads the first.
            inputs = feeds(mask)
            one, other = before(inputs), result(inputs)
            if causal:
                one, other = ({"h": found["last_hidden_state"]} for found in (one, other))
            assert difference(one, other, mask) < 1e-5


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_real_export_is_fused_whole_and_equal_on_every_mask(
    kind: encoders.Kind, head: bool, exported: Callable[..., Path]
) -> None:
    path = exported(kind, head=head)
    after = fused(ffc.load(path))
    found = calls(after)
    assert (found["AttentionMasked"], found["LinearGelu"], found["AddNorm"]) == (2, 2, 4)
    assert (found["Linear"], found["Embed"]) == (2 * 5 + (2 if head else 0), 1)
    assert count(after, "Softmax", "MatMul", "Gemm", "LayerNormalization", "IsNaN") == 0
    before, result = Stock(path), Stock(after)
    for length in (1, 5, 33):
        for mask in masks(3, length).values():
            inputs = feeds(mask, vocabulary=encoders.VOCABULARY, types=kind == "bert")
            assert difference(before(inputs), result(inputs), mask) < 1e-4


def test_a_row_masked_throughout_is_finite_and_leaves_others_alone(exported: Callable[..., Path]) -> None:
    path = exported("bert")
    mask = np.ones((3, 6), np.int64)
    mask[1] = 0
    inputs = feeds(mask, vocabulary=encoders.VOCABULARY)
    expected, after = run_stock(path, inputs), run_stock(fused(ffc.load(path)), inputs)
    assert difference(expected, after, mask) < 1e-4
    assert np.isfinite(after["last_hidden_state"]).all()


def random_feeds(model: ir.Model, batch: int, length: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.name is not None
        shape = [dim if isinstance(dim, int) else {"batch": batch, "seq": length}[str(dim.value)] for dim in value.shape]
        found[value.name] = random.standard_normal(shape).astype(np.float32)
    return found


@pytest.mark.parametrize("split", ["separate", "split", "slice", "gather", "interleaved"])
@pytest.mark.parametrize(("scale", "masks"), [("after", 0), ("both", 1), ("divide", 2)])
def test_attention_in_any_layout_becomes_one_call(split: str, scale: str, masks: int) -> None:
    model = attention_model(Form(split=split, scale=scale, masks=masks))
    after = fused(model)
    assert calls(after) == {"AttentionMasked" if masks else "Attention": 1, "Linear": 4}
    for batch, length in ((1, 1), (2, 5)):
        inputs = random_feeds(model, batch, length)
        assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


@pytest.mark.parametrize("masks", [0, 1])
def test_a_guard_stays_safe_with_a_mask_of_minus_infinity(masks: int) -> None:
    model = attention_model(Form(guard=True, masks=masks))
    after = fused(model)
    inputs = random_feeds(model, 2, 5)
    if masks:
        inputs["mask0"][:, ..., 3:] = -np.inf
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5
    if masks:
        inputs["mask0"][1] = -np.inf
        found = run_stock(after, inputs)["y"]
        assert np.isfinite(found).all()
        assert np.allclose(found[0], run_stock(model, inputs)["y"][0], atol=1e-5)


@pytest.mark.parametrize("fault", ["scaled values", "filled high", "subtracted from", "tanh"])
def test_what_is_no_attention_stays_equal_and_is_reported(fault: str) -> None:
    model = run_passes(attention_model(Form(fault=fault)), "opset", "clean")
    after = model.clone()
    log = run_pass(LIBRARY["fuse"](), after)
    assert count(after, "Softmax") == 1
    assert any(miss.where.startswith("Softmax") for miss in log.misses)
    inputs = random_feeds(model, 2, 5)
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


TAKEN = ("context read twice", "cross", "unmerged", "rotary", "one key head", "filled", "filled inverted", "subtracted", "scaled mask")


@pytest.mark.parametrize("fault", TAKEN)
def test_attention_is_taken_whatever_makes_its_operands_and_hides_its_tokens(fault: str) -> None:
    model = attention_model(Form(fault=fault))
    after = fused(model)
    assert (calls(after)["AttentionMasked"], count(after, "Softmax")) == (1, 0)
    for batch, length in ((1, 1), (2, 5)):
        inputs = random_feeds(model, batch, length)
        inputs["mask0"][:, ..., 0] = np.abs(inputs["mask0"][:, ..., 0]) * (-1 if fault == "filled inverted" else 1)
        assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


@pytest.mark.parametrize("split", ["split", "slice", "gather", "interleaved"])
def test_a_fused_product_that_must_stay_is_not_computed_in_part_again(split: str) -> None:
    model = attention_model(Form(split=split, fault="rotary"))
    after = fused(model)
    assert calls(after) == {"AttentionMasked": 1, "Linear": 2}  # q, k and v in one, and the projection
    inputs = random_feeds(model, 2, 5)
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


@pytest.mark.parametrize("kv_heads", [pytest.param(1, marks=needs_grouped_keys), HEADS])
def test_grouped_keys_and_values_of_the_operator_are_repeated(kv_heads: int) -> None:
    model = kernel_model(kv_heads=kv_heads)
    after = fused(model)
    assert calls(after)["Attention"] == 1
    inputs = random_feeds(model, 2, 5)
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


def test_attention_that_a_kernel_does_already_is_taken_too() -> None:
    model = kernel_model(scale=0.3)
    after = fused(model)
    assert next(node.domain for node in after.graph if node.op_type == "Attention") == "ffc"
    assert calls(after) == {"Attention": 1, "Linear": 4}
    inputs = random_feeds(model, 2, 5)
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


@needs_bool_masks
def test_a_bool_mask_of_the_operator_means_the_same_after() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "seq", 12)
    keep = draft.op.Greater(draft.input("mask", "batch", 1, "seq", "seq"), 0.0)

    def heads(value: ir.Value) -> ir.Value:
        found: ir.Value = draft.op.Transpose(draft.op.Reshape(value, [0, 0, 3, 4]), perm=[0, 2, 1, 3])
        return found

    q, k, v = (heads(draft.linear(role, x, 12, 12)) for role in "qkv")
    context = draft.op.Reshape(draft.op.Transpose(draft.op.Attention(q, k, v, keep), perm=[0, 2, 1, 3]), [0, 0, 12])
    out = draft.op.Add(draft.linear("out", context, 12, 12), x)
    model = draft.model({"y": (out, ["batch", "seq", 12])})
    after = fused(model)
    assert calls(after)["AttentionOrZero"] == 1
    inputs = random_feeds(model, 2, 5)
    rows = np.array([[1, 1, 1, 1, 1], [-1, 1, -1, 1, 1]], np.float32)
    inputs["mask"] = np.broadcast_to(rows[:, None, None], (2, 1, 5, 5)).copy()
    inputs["mask"][1, :, 3] = -1
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


def test_fusing_twice_changes_nothing_more() -> None:
    once = fused(encoder(layers=2))
    before = text(once)
    assert run_pass(LIBRARY["fuse"](), once).count == 0
    assert text(once) == before


def test_minilm_is_fused_whole_and_equal_on_every_mask(minilm: Path) -> None:
    after = fused(ffc.load(minilm))
    found = calls(after)
    assert (found["AttentionMasked"], found["LinearGelu"], found["Linear"], found["Embed"]) == (6, 6, 30, 1)
    before, result = Stock(minilm), Stock(after)
    for mask in masks(2, 19).values():
        inputs = feeds(mask, vocabulary=30000)
        assert difference(before(inputs), result(inputs), mask) < 1e-4
