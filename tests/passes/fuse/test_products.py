"""Products in other clothes: whatever way a converter writes x @ w + b, it is found, cut and quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ffc
from tests import decoders
from tests.graphs import LIBRARY, Draft, Stock, count, difference, masks, run_pass, run_passes
from tests.properties.drafts import cases

ADDED = ((), (1,), (5,), (1, 5), (3, 5), (3, 1), None)
"""Shapes of what a Gemm adds, None for nothing."""


def gemm(added: tuple[int, ...] | None, dynamic: bool, **attributes: Any) -> ir.Model:
    """Return a model of one Gemm of x and a constant weight of five columns."""
    draft = Draft()
    x = draft.input("x", *((4, 3) if attributes["transA"] else (3, 4)))
    w = draft.normal("w", *((5, 4) if attributes["transB"] else (4, 5)))
    c = [] if added is None else [draft.input("c", *added) if dynamic else draft.normal("c", *added)]
    return draft.model({"y": (draft.op.Gemm(x, w, *c, **attributes), [3, 5])})


@cases(150)
@given(
    st.sampled_from(ADDED), st.booleans(), st.sampled_from([1.0, 0.5, -3.0]), st.sampled_from([1.0, 0.0, 0.25]), st.booleans(), st.booleans()
)
def test_any_gemm_by_a_weight_is_a_product_and_right(
    added: tuple[int, ...] | None, dynamic: bool, alpha: float, beta: float, left: bool, right: bool
) -> None:
    before = gemm(added, dynamic, alpha=alpha, beta=beta, transA=int(left), transB=int(right))
    after = run_passes(before, "clean", "fuse")
    computed = added is not None and dynamic
    assert count(after, "Gemm") == int(computed and beta != 1)
    assert count(after, "Linear") == int(added in ((), (1,), (5,), (1, 5)) and not dynamic)
    random = np.random.default_rng(0)
    sizes: dict[str, Any] = {str(value.name): value.shape.numpy() for value in before.graph.inputs if value.shape is not None}
    given_ = {name: random.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    assert difference(Stock(before)(given_), Stock(after)(given_)) < 1e-6


def test_a_gemm_of_halves_or_of_two_inputs_is_left() -> None:
    draft = Draft()
    x, half = draft.input("x", 3, 3), draft.input("half", 3, 3, dtype=ir.DataType.FLOAT16)
    y = draft.op.Gemm(x, x)
    z = draft.op.Cast(draft.op.Gemm(half, draft.weight("w", np.ones((3, 3), np.float16))), to=ir.DataType.FLOAT.value)
    model = draft.model({"y": (y, [3, 3]), "z": (z, [3, 3])})
    run_pass(LIBRARY["clean"](), model)
    assert count(model, "Gemm") == 2


@pytest.mark.parametrize("way", decoders.WAYS)
@pytest.mark.parametrize("kind", decoders.KINDS)
def test_a_decoder_without_a_cache_is_fused_pruned_and_quantised(kind: decoders.Kind, way: decoders.Way, tmp_path: Path) -> None:
    path = decoders.export(kind, way, tmp_path / "decoder.onnx")
    fused = ffc.compile(path, "fuse")
    before, after = Stock(path), Stock(fused.model)
    for mask in masks(3, 8).values():
        ids = np.random.default_rng(0).integers(5, decoders.VOCABULARY, mask.shape)
        feeds = {"input_ids": ids, "attention_mask": mask}
        assert difference(before(feeds), after(feeds), mask) < 1e-5
    small = ffc.compile(path, "prune{by=norm heads=0.5 ffn=0.5},int8")
    steps = {step.text.partition("{")[0]: step.changes for step in small.report.steps}
    layers = decoders.LAYERS
    assert steps["fuse"]["attention"] == layers
    assert steps["prune"] == {"heads": layers * decoders.HEADS // 2, "units": layers * decoders.UNITS // 2}
    assert steps["int8"] == {role: layers for role in ("q", "k", "v", "attn_out", "ffn_in", "ffn_out")} | {"head": 1}
    assert count(small.model, "MatMul", "Gemm", "FusedMatMul") == 0
