"""The finder recognises every block in the layouts that exporters write, reads its numbers right, and says why it refuses others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.structure import Attention, Blocks
from tests import encoders
from tests.graphs import LOWEST, Draft, encoder, run_passes

WIDTH, HEADS, SIZE, TOKENS = 12, 3, 4, "seq"


@dataclass(frozen=True)
class Form:
    """How one attention is written.

    Attributes:
        split: How q, k and v come about: "separate" products, or one product cut by "split", "slice", "gather" (reshaped to [B, S, 3, H, D]), or
            "interleaved" (reshaped to [B, S, H, 3, D]).
        scale: Where the scale stands: "after" or "divide" behind the product, "query" or "key" before it, "both" with its root on each, "none".
        masks: How many masks are added.
        guard: Whether the Softmax is guarded against NaN.
        axis: Of the Softmax.
        fault: What is wrong with it.
    """

    split: str = "separate"
    scale: str = "after"
    masks: int = 1
    guard: bool = False
    axis: int = -1
    fault: str = ""


SCALES = {"after": 0.5, "divide": 0.5, "query": 0.5, "key": 0.5, "both": 0.5, "swapped": 0.5, "none": 1.0}


def attention_model(form: Form) -> ir.Model:
    """Return a model of one attention with its residual connection, [batch, seq, 12] to the same."""
    draft = Draft()
    op = draft.op
    x = draft.input("x", "batch", TOKENS, WIDTH)
    other = draft.input("other", "batch", TOKENS, WIDTH) if form.fault == "cross" else x
    q, k, v = _heads(draft, form, x, other)
    probabilities = op.Softmax(_scores(draft, form, q, k), axis=form.axis)
    if form.guard:
        probabilities = op.Where(op.IsNaN(probabilities), np.float32(0), probabilities)
    if form.fault == "dropout":
        probabilities = op.Mul(probabilities, 0.9)
    if form.fault == "scaled values":
        v = op.Mul(v, 2.0)
    context = op.MatMul(probabilities, v)
    ordered = context if form.fault == "unmerged" else op.Transpose(context, perm=[0, 2, 1, 3])
    merged = op.Reshape(ordered, [0, -1, WIDTH])
    out = op.Add(draft.linear("out", merged, WIDTH, WIDTH), x)
    if form.fault == "context read twice":
        out = op.Add(out, merged)
    outputs = {"y": (out, ["batch", TOKENS, WIDTH])}
    if form.fault == "probabilities out":
        outputs["p"] = (probabilities, ["batch", HEADS, TOKENS, TOKENS])  # type: ignore[assignment]
    return draft.model(outputs)


def _scores(draft: Draft, form: Form, q: Any, k: Any) -> Any:
    op = draft.op
    k = op.Transpose(k, perm=[0, 1, 3, 2])
    q, k = _scaled_before(op, form.scale, q, k)
    scores = op.MatMul(q, k)
    if form.scale == "after":
        scores = op.Mul(scores, 0.5)
    elif form.scale == "swapped":
        scores = op.Mul(np.float32(0.5), scores)
    elif form.scale == "divide":
        scores = op.Div(scores, np.full(1, 2, np.float32))
    for index in range(form.masks):
        scores = _hidden(op, form.fault, scores, draft.input(f"mask{index}", "batch", 1, 1, TOKENS))
    if form.fault == "scaled mask":
        scores = op.Mul(scores, 2.0)
    return op.Tanh(scores) if form.fault == "tanh" else scores


def _hidden(op: Any, fault: str, scores: Any, mask: Any) -> Any:
    if fault == "filled":
        return op.Where(op.Greater(mask, 0.0), scores, np.float32(-1e9))
    if fault == "filled inverted":
        return op.Where(op.Greater(mask, 0.0), np.float32(LOWEST), scores)
    if fault == "filled high":
        return op.Where(op.Greater(mask, 0.0), scores, np.float32(-5))
    if fault == "subtracted":
        return op.Sub(scores, mask)
    if fault == "subtracted from":
        return op.Sub(mask, scores)
    return op.Add(scores, mask)


def _scaled_before(op: Any, scale: str, q: Any, k: Any) -> tuple[Any, Any]:
    if scale == "query":
        return op.Mul(q, 0.5), k
    if scale == "key":
        return q, op.Div(k, 2.0)
    if scale == "both":
        return op.Mul(q, 0.5**0.5), op.Mul(np.float32(0.5**0.5), k)
    return q, k


def _heads(draft: Draft, form: Form, x: Any, other: Any) -> tuple[Any, Any, Any]:
    """Return q, k and v as [B, H, S, D]."""
    op = draft.op

    def apart(value: Any) -> Any:
        order = [SIZE, HEADS] if form.fault == "mixed heads" else [HEADS, SIZE]
        return op.Transpose(op.Reshape(value, [0, 0, *order]), perm=[0, 2, 1, 3] if order[0] == HEADS else [0, 3, 1, 2])

    if form.fault == "one key head":
        alone = [op.Reshape(draft.linear(role, x, WIDTH, SIZE), [0, 1, -1, SIZE]) for role in "kv"]
        return apart(draft.linear("q", x, WIDTH, WIDTH)), alone[0], alone[1]
    if form.fault == "rotary":
        q, k, v = _heads(draft, replace(form, fault=""), x, other)
        return op.Add(q, draft.normal("q.turn", SIZE)), op.Add(k, draft.normal("k.turn", SIZE)), v
    if form.split == "separate":
        sources = (x, other, other)
        return tuple(apart(draft.linear(role, s, WIDTH, WIDTH)) for role, s in zip("qkv", sources, strict=True))
    fused = draft.linear("qkv", x, WIDTH, 3 * WIDTH)
    if form.split == "split":
        return tuple(apart(part) for part in op.Split(fused, [WIDTH] * 3, axis=-1, outputs=3))
    if form.split == "slice":
        return tuple(apart(op.Slice(fused, [i * WIDTH], [(i + 1) * WIDTH], [2])) for i in range(3))
    if form.split == "gather":
        parts = op.Transpose(op.Reshape(fused, [0, 0, 3, HEADS, SIZE]), perm=[2, 0, 3, 1, 4])
        return tuple(op.Gather(parts, np.int64(i), axis=0) for i in range(3))
    assert form.split == "interleaved"
    parts = op.Transpose(op.Reshape(fused, [0, 0, HEADS, 3, SIZE]), perm=[3, 0, 2, 1, 4])
    return tuple(op.Gather(parts, np.int64(i), axis=0) for i in range(3))


def the_attention(model: ir.Model) -> Attention:
    blocks = find(model)
    assert not blocks.unmatched, blocks.unmatched
    (layer,) = blocks.layers
    assert layer.cuttable is not None
    return layer.cuttable


def columns(form: Form) -> dict[str, list[int]]:
    """Return the columns of the fused product that are q, k and v."""
    numbers = np.arange(3 * WIDTH)
    if form.split == "interleaved":
        parts = numbers.reshape(HEADS, 3, SIZE).transpose(1, 0, 2).reshape(3, -1)
    else:
        parts = numbers.reshape(3, -1)
    return {role: list(part) for role, part in zip("qkv", parts.tolist(), strict=True)}


@pytest.mark.parametrize("split", ["separate", "split", "slice", "gather", "interleaved"])
def test_attention_is_found_however_q_k_and_v_are_cut(split: str) -> None:
    form = Form(split=split)
    found = the_attention(attention_model(form))
    assert (found.heads, *(product.sizes for product in found.roles.values())) == (HEADS, *[(WIDTH, WIDTH)] * 4)
    assert list(found.roles) == [product.role for product in found.roles.values()] == ["q", "k", "v", "attn_out"]
    for role, product in zip("qkv", found.roles.values(), strict=False):
        if split == "separate":
            assert (product.weight.name, product.columns) == (f"{role}.weight", None)
        else:
            assert (product.weight.name, list(product.columns or ())) == ("qkv.weight", columns(form)[role])


@pytest.mark.parametrize("scale", SCALES)
def test_scale_is_read_wherever_it_stands(scale: str) -> None:
    assert the_attention(attention_model(Form(scale=scale))).scale == pytest.approx(SCALES[scale])


def test_attention_is_found_where_an_exporter_wrote_open_sizes_as_minus_one() -> None:
    model = attention_model(Form(masks=0))
    for value in model.graph.inputs:
        value.shape = ir.Shape([-1, -1, WIDTH])
    blocks = find(model)
    assert [layer.cuttable is not None for layer in blocks.layers] == [True]
    assert not blocks.unmatched


@pytest.mark.parametrize("masks", [0, 1, 2])
def test_masks_are_all_that_is_added(masks: int) -> None:
    found = the_attention(attention_model(Form(masks=masks)))
    assert sorted(str(mask.value.name) for mask in found.masks) == [f"mask{i}" for i in range(masks)]


@pytest.mark.parametrize("guard", [False, True])
def test_a_guarded_softmax_is_found_and_known_as_such(guard: bool) -> None:
    assert the_attention(attention_model(Form(guard=guard))).guarded is guard


REFUSED = {
    "softmax over another axis": (Form(axis=2), "it is taken over axis 2, not the last"),
    "values scaled": (Form(fault="scaled values"), "its values are scaled"),
    "probabilities scaled": (Form(fault="dropout"), "stands between its probabilities and the values"),
    "scores squashed": (Form(fault="tanh"), "stands between its scores and the product"),
    "scores filled with a number that is not low": (Form(fault="filled high"), "something that is no low number"),
    "subtracted from a mask": (Form(fault="subtracted from"), "subtracts its scores"),
    "probabilities an output": (Form(fault="probabilities out"), "are an output of the model"),
}


@pytest.mark.parametrize(("form", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_attention_is_refused_with_the_reason(form: Form, reason: str) -> None:
    blocks = find(attention_model(form))
    assert not blocks.layers
    (miss,) = blocks.unmatched
    assert (miss.where.split()[0], miss.kind) == ("Softmax", "attention")
    assert reason in miss.why


WHOLE = {
    "context read twice": (Form(fault="context read twice"), "something other than one output projection"),
    "heads not merged in order": (Form(fault="unmerged"), "does not lead to an output projection"),
    "positions that turn": (Form(fault="rotary"), "Add"),
    "keys and values of one head": (Form(fault="one key head"), "queries have 3 heads, keys 1, values 1"),
}


@pytest.mark.parametrize(("form", "reason"), WHOLE.values(), ids=WHOLE)
def test_attention_whose_heads_cannot_be_cut_is_found_with_the_reason(form: Form, reason: str) -> None:
    blocks = find(attention_model(form))
    assert not blocks.unmatched
    (layer,) = blocks.layers
    assert layer.attention is not None and layer.cuttable is None
    assert (layer.attention.heads, layer.attention.scale) == (HEADS, 0.5)
    assert reason in layer.attention.why


def test_keys_and_values_of_other_tokens_are_attention_too() -> None:
    found = the_attention(attention_model(Form(fault="cross")))
    assert found.roles["q"].x is not found.roles["k"].x is found.roles["v"].x


@pytest.mark.parametrize(
    ("fault", "mask"),
    [
        ("filled", {"inverted": False}),
        ("filled inverted", {"inverted": True}),
        ("subtracted", {"factor": -1.0}),
        ("scaled mask", {"factor": 2.0}),
        ("", {"factor": 1.0, "inverted": False, "flat": False}),
    ],
)
def test_what_hides_tokens_is_read_in_every_form(fault: str, mask: dict[str, object]) -> None:
    found = the_attention(attention_model(Form(fault=fault)))
    (hides,) = found.masks
    assert {name: getattr(hides, name) for name in mask} == mask
    assert found.scale == (1.0 if fault == "scaled mask" else 0.5)


def test_a_chain_of_sums_as_a_mask_takes_no_time() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 1, TOKENS, TOKENS)
    total = x
    for _ in range(60):  # followed both ways each, it would be walked 2^60 times
        total = draft.op.Add(total, total)
    blocks = find(draft.model({"y": (draft.op.Softmax(total), ["batch", 1, TOKENS, TOKENS])}))
    assert "no product of activations" in blocks.unmatched[0].why


def test_heads_laid_out_the_other_way_round_are_found_with_their_columns() -> None:
    blocks = find(attention_model(Form(fault="mixed heads")))
    # [B, S, D, H] is attention too, of heads whose columns lie apart.
    assert blocks.layers[0].cuttable is not None
    assert blocks.layers[0].cuttable.roles["q"].columns == tuple(d * HEADS + h for h in range(HEADS) for d in range(SIZE))


# The operator Attention


def kernel_model(*, scaled_values: bool = False, kv_heads: int = HEADS, **attributes: Any) -> ir.Model:
    draft = Draft()
    x = draft.input("x", "batch", TOKENS, WIDTH)
    q = draft.linear("q", x, WIDTH, WIDTH)
    k, v = (draft.linear(role, x, WIDTH, kv_heads * SIZE) for role in "kv")
    v = draft.op.Mul(v, 2.0) if scaled_values else v
    context = draft.op.Attention(q, k, v, q_num_heads=HEADS, kv_num_heads=kv_heads, **attributes)
    out = draft.op.Add(draft.linear("out", context, WIDTH, WIDTH), x)
    return draft.model({"y": (out, ["batch", TOKENS, WIDTH])})


@pytest.mark.parametrize(("attributes", "scale"), [({}, SIZE**-0.5), ({"scale": 0.3}, 0.3)])
def test_the_operator_attention_is_found_with_its_scale(attributes: dict[str, float], scale: float) -> None:
    found = the_attention(kernel_model(**attributes))
    assert (found.heads, found.scale) == (HEADS, pytest.approx(scale))


@pytest.mark.parametrize("attributes", [{"is_causal": 1}, {"softcap": 5.0}])
def test_an_operator_that_does_more_is_refused(attributes: dict[str, Any]) -> None:
    blocks = find(kernel_model(**attributes))
    assert not blocks.layers
    assert next(iter(attributes)) in blocks.unmatched[0].why


def test_an_operator_whose_values_are_scaled_is_refused() -> None:
    blocks = find(kernel_model(scaled_values=True))
    assert not blocks.layers
    assert "values are scaled" in blocks.unmatched[0].why


def test_grouped_keys_and_values_are_found_but_not_to_be_cut() -> None:
    (layer,) = find(kernel_model(kv_heads=1)).layers
    assert layer.attention is not None
    assert [operand.heads for operand in layer.attention.operands] == [HEADS, 1, 1]
    assert layer.attention.why == "queries have 3 heads, keys 1, values 1"


# Whole encoders


def roles(blocks: Blocks) -> list[str]:
    return [product.role for product in blocks.products]


@pytest.mark.parametrize("stages", [(), ("opset",), ("opset", "clean"), ("opset", "clean", "fuse")], ids=str)
def test_every_block_of_the_hand_made_encoder_is_found_at_every_stage(stages: tuple[str, ...]) -> None:
    blocks = find(run_passes(encoder(layers=2), *stages))
    assert not blocks.unmatched
    assert [(layer.cuttable is not None, layer.ffn is not None) for layer in blocks.layers] == [(True, True)] * 2
    assert len(blocks.norms) == 5
    assert [product.role for product in blocks.head] == ["head"]
    assert sum(len(embedding.tables) for embedding in blocks.embeddings) == 3
    assert sorted(roles(blocks)) == sorted(["attn_out", "ffn_in", "ffn_out", "k", "q", "v"] * 2 + ["head"])
    attention = blocks.layers[0].cuttable
    assert attention is not None
    assert (attention.heads, attention.scale) == (3, pytest.approx(0.5))


def test_layers_know_their_weights_by_role() -> None:
    for layer in find(encoder(layers=2)).layers:
        names = [product.weight.name for product in layer.products()]
        assert names == [f"layer{layer.index}.{role}.weight" for role in ("q", "k", "v", "out", "ffn_in", "ffn_out")]


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_every_block_of_a_real_export_is_found(kind: encoders.Kind, head: bool, exported: Callable[..., Path]) -> None:
    model = ffc.load(exported(kind, head=head))
    for found in (find(model), find(run_passes(model, "opset", "clean", "fuse"))):
        assert not found.unmatched
        assert len(found.layers) == 2
        for layer in found.layers:
            assert layer.cuttable is not None and layer.ffn is not None
            assert layer.cuttable.heads == encoders.HEADS
            assert layer.cuttable.scale == pytest.approx((encoders.HIDDEN // encoders.HEADS) ** -0.5, rel=1e-5)
            assert layer.ffn.units == encoders.FFN
        assert len(found.norms) == 5
        assert sum(len(embedding.tables) for embedding in found.embeddings) == 3
        # BERT's pooler and classifier, RoBERTa's dense and out_proj: neither is a feed-forward network.
        assert len(found.head) == (2 if head else 0)
        assert len(found.products) == 12 + len(found.head)


def test_shared_zero_biases_do_not_hide_a_block(exported: Callable[..., Path]) -> None:
    found = find(ffc.load(exported("bert", zero_biases=True)))
    assert not found.unmatched
    assert all(layer.cuttable and layer.ffn for layer in found.layers)
    assert len(found.layers) == 2


def test_a_causal_mask_is_a_mask_like_any_other() -> None:
    (layer,) = find(run_passes(encoder(causal=True), "opset")).layers
    assert layer.cuttable is not None
    assert len(layer.cuttable.masks) == 1


def test_every_block_of_minilm_is_found(minilm: Path) -> None:
    found = find(ffc.load(minilm))
    assert not found.unmatched
    assert [(layer.cuttable.heads, layer.ffn.units) for layer in found.layers if layer.cuttable and layer.ffn] == [(12, 1536)] * 6
    assert len(found.norms) == 13


def test_a_model_without_blocks_has_none() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    found = find(draft.model({"y": (draft.op.Where(draft.op.IsNaN(x), np.float32(LOWEST), x), ["batch", 4])}))
    assert (found.layers, found.norms, found.embeddings, found.head, found.products, found.unmatched) == ((),) * 6
