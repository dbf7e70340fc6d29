"""Products have the roles that the encoders they come from name them by, as far as the graph tells, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph.blocks.finder import find
from tests.coverage import others
from tests.graph.blocks.test_finder import TOKENS, WIDTH, Form, attention_model, roles
from tests.graphs import Draft, run_passes

LLAMA = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "attn_out"}
LLAMA |= {"gate_proj": "ffn_in", "up_proj": "gate", "down_proj": "ffn_out"}  # what is activated is ffn_in
MODERNBERT = {"Wqkv": "other", "attn.Wo": "attn_out", "Wi": "other", "mlp.Wo": "ffn_out"}
DENSE = {"dense": "head", "classifier": "head"}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 120}
SMALL |= {"max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 3}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "use_cache": False}

ENCODERS: dict[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "EuroBert": ({"num_key_value_heads": 2}, LLAMA | DENSE),
    "Gemma3Text": (GROUPED | {"sliding_window": 8}, LLAMA | {"score": "head"}),
    "ModernBert": ({"local_attention": 8, "global_attn_every_n_layers": 2}, MODERNBERT | DENSE),
    "Qwen3": (GROUPED, LLAMA | {"score": "head"}),
}
"""By the prefix of its classes: what an encoder has beside the usual sizes, and roles by the ends of names of modules."""


def exported(prefix: str, folder: Path, exporter: others.Exporter) -> tuple[Path, dict[str, np.ndarray]]:
    """Export a small classifier and return the path of the file, and its weights [in, out] by their names."""
    sizes = SMALL | {"num_hidden_layers": 1 if exporter == "dynamo" else 2}  # by dynamo, a layer takes seconds
    other = others.Other(prefix, prefix, ENCODERS[prefix][0], sizes=sizes, kind="ForSequenceClassification")
    weights = {name: value.detach().numpy().T for name, value in others.random(other).named_parameters() if value.ndim == 2}
    return others.export(other, folder, exporter), weights


def expected(prefix: str, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    found = {name.removesuffix(".weight"): name for name in weights if "embed" not in name}
    ends = ENCODERS[prefix][1].items()
    return {full: next(role for end, role in ends if name.endswith(end)) for name, full in found.items()}


@pytest.mark.parametrize(
    ("prefix", "exporter"),
    [(prefix, "TorchScript") for prefix in ENCODERS]
    + [pytest.param(prefix, "dynamo", marks=[pytest.mark.slow] if prefix != "Gemma3Text" else []) for prefix in ENCODERS],
)
def test_products_are_named_as_their_modules_are(prefix: str, exporter: others.Exporter, tmp_path: Path) -> None:
    path, weights = exported(prefix, tmp_path, exporter)
    model = ffc.load(path)
    for blocks in (find(model), find(run_passes(model, "opset", "clean", "fuse"))):
        assert not blocks.unmatched
        found = {
            next(name for name, weight in weights.items() if np.array_equal(weight, product.matrix())): product.role
            for product in blocks.products
        }
        assert found == expected(prefix, weights)
        assert all(layer.cuttable is None and layer.ffn and layer.ffn.units == 48 for layer in blocks.layers)
        assert [product.role for product in blocks.head] == ["head"] * list(found.values()).count("head")


def test_parts_of_merged_products_are_told_where_their_columns_are(tmp_path: Path) -> None:
    path, weights = exported("ModernBert", tmp_path, "TorchScript")
    for layer in find(ffc.load(path)).layers:
        qkv = next(weight for name, weight in weights.items() if f"layers.{layer.index}.attn.Wqkv" in name)
        wide = next(weight for name, weight in weights.items() if f"layers.{layer.index}.mlp.Wi" in name)
        parts = {product.role: product.matrix() for product in layer.products() if product.columns is not None}
        assert parts.keys() == {"v", "ffn_in", "gate"}  # what is turned by its position cannot be told
        np.testing.assert_array_equal(parts["v"], qkv[:, 64:])
        np.testing.assert_array_equal(np.hstack([parts["ffn_in"], parts["gate"]]), wide)


def test_skipping_the_head_of_gemma_leaves_its_layers_to_int8(tmp_path: Path) -> None:
    path, _ = exported("Gemma3Text", tmp_path, "TorchScript")
    result = ffc.compile(path, "fuse,int8{skip=head cosine=0.5}")
    step = next(step for step in result.report.steps if step.text.startswith("int8"))
    assert step.changes == dict.fromkeys(("q", "k", "v", "attn_out", "ffn_in", "gate", "ffn_out"), 2)
    assert [why.split()[0] for why in step.skipped] == ["head"]


ATTENTIONS = {
    "positions that turn": (Form(fault="rotary"), ["q", "k", "v", "attn_out"]),
    "positions that turn parts of one product": (Form(split="split", fault="rotary"), ["other", "attn_out"]),
    "keys and values of one head": (Form(fault="one key head"), ["q", "k", "v", "attn_out"]),
    "heads not merged in order": (Form(fault="unmerged"), ["q", "k", "v", "attn_out"]),
    "context read twice": (Form(fault="context read twice"), ["q", "k", "v", "other"]),
}


@pytest.mark.parametrize(("form", "wanted"), ATTENTIONS.values(), ids=ATTENTIONS)
def test_roles_are_given_though_heads_cannot_be_cut(form: Form, wanted: list[str]) -> None:
    blocks = find(attention_model(form))
    assert blocks.layers[0].cuttable is None
    assert sorted(roles(blocks)) == sorted(wanted)


def test_keys_that_serve_as_values_too_are_not_named() -> None:
    draft = Draft()
    op = draft.op
    x = draft.input("x", "batch", TOKENS, WIDTH)
    q, k = (op.Add(draft.linear(role, x, WIDTH, WIDTH), op.Mul(x, 0.5)) for role in ("q", "shared"))
    context = op.Attention(q, k, op.Neg(k), q_num_heads=3, kv_num_heads=3)
    y = op.Add(draft.linear("out", context, WIDTH, WIDTH), x)
    blocks = find(draft.model({"y": (y, ["batch", TOKENS, WIDTH])}))
    assert {product.weight.name: product.role for product in blocks.products} == {
        "q.weight": "q", "shared.weight": "other", "out.weight": "attn_out"
    }  # fmt: skip


def layered(end: str) -> ir.Model:
    """Return a model of attention, a feed-forward network unless `end` says otherwise, and a classifier."""
    draft = Draft()
    op = draft.op
    x = draft.input("x", "batch", TOKENS, WIDTH)
    q, k, v = (draft.linear(role, x, WIDTH, WIDTH) for role in "qkv")
    x = op.Add(draft.linear("o", op.Attention(q, k, v, q_num_heads=3, kv_num_heads=3), WIDTH, WIDTH), x)
    if end != "attention":
        wide = draft.linear("wide", x, WIDTH, 20)
        active = op.Softmax(wide) if end == "softmax" else op.Relu(wide)
        narrow = draft.linear("narrow", active, 20, WIDTH)
        x = op.Add(draft.norm("norm", narrow) if end == "norm" else narrow, x)
    if end == "bottleneck":
        x = op.Add(draft.norm("norm", draft.linear("more", x, WIDTH, WIDTH)), x)
    logits = draft.linear("classifier", op.Tanh(draft.linear("pooler", x, WIDTH, WIDTH)), WIDTH, 2)
    return draft.model({"y": (logits, ["batch", TOKENS, 2])})


LAYERS = {
    "relu": {"wide": "ffn_in", "narrow": "ffn_out", "pooler": "head", "classifier": "head"},
    "norm": {"wide": "ffn_in", "narrow": "ffn_out", "pooler": "head", "classifier": "head"},
    "bottleneck": {"wide": "ffn_in", "narrow": "ffn_out", "more": "other", "pooler": "head", "classifier": "head"},
    "softmax": {"wide": "other", "narrow": "other", "pooler": "other", "classifier": "other"},
    "attention": {"pooler": "other", "classifier": "other"},
}


@pytest.mark.parametrize(("end", "wanted"), LAYERS.items(), ids=LAYERS)
def test_the_head_is_what_follows_a_last_layer_that_is_known_in_whole(end: str, wanted: dict[str, str]) -> None:
    blocks = find(layered(end))
    found = {str(product.weight.name).removesuffix(".weight"): product.role for product in blocks.products}
    assert found == {"q": "q", "k": "k", "v": "v", "o": "attn_out"} | wanted
    assert [product.weight for product in blocks.head] == [p.weight for p in blocks.products if p.role == "head"]
