"""Encoders of ``torch.nn``, whose tokens come before the batch: fused, pruned and quantised as those of any library."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.chain import open_model
from ffc.compiler.syntax import parse
from ffc.graph.tidy import tidy
from tests.graphs import LIBRARY, Draft, Feeds, Stock, count, difference, masks, run_pass, run_passes
from tests.own_encoders import HEADS, LAYERS, LENGTH, UNITS, VOCABULARY, Own

WIDTH, SIZE = 12, 4


def fused(model: ir.Model) -> ir.Model:
    return run_passes(model, "opset", "clean", "fuse")


def check_pruned(model: ir.Model, feeds: list[tuple[Feeds, np.ndarray]], heads: int, units: int) -> ir.Model:
    """Check that half of the heads and units can be cut, as the masked model has it; return the pruned model."""
    (prune,) = parse("prune{by=norm heads=0.5 ffn=0.5}" if units else "prune{by=norm heads=0.5}", LIBRARY)
    pruned = model.clone()
    log = run_pass(prune, pruned)
    assert log.done == {"heads": heads} | ({"units": units} if units else {})
    masked, after = Stock(tidy(prune.contract.against.make(model))), Stock(pruned)  # type: ignore[union-attr]
    assert all(difference(masked(given), after(given), mask) < 1e-5 for given, mask in feeds)
    return pruned


def cases() -> Iterator[Any]:
    for way, batch_first, norm_first, masked in itertools.product(
        ("TorchScript", "dynamo"), (True, False), (True, False, None), (True, False)
    ):
        own = Own(way, batch_first, norm_first, masked)
        quick = way == "TorchScript" or (masked and (batch_first, norm_first) in ((True, False), (False, True)))
        yield pytest.param(own, marks=[] if quick else [pytest.mark.slow], id="-".join(map(str, vars(own).values())))


@pytest.mark.parametrize("own", [*cases()])
def test_an_encoder_of_ones_own_is_fused_pruned_and_quantised(own: Own, tmp_path: Path) -> None:
    path = own.write(tmp_path / "own.onnx")
    model = fused(open_model(path))
    layers, whole = (1, False) if own.norm_first is None else (LAYERS, True)
    assert count(model, "AttentionMasked" if own.masked else "Attention") == layers
    assert count(model, "Norm", "AddNorm") == 2 * layers * whole + 1
    assert count(model, "LinearGelu") == layers * whole
    assert count(model, "MatMul", "Gemm", "Softmax", "Transpose") == 0
    before, after = Stock(path), Stock(model)
    feeds: list[tuple[Feeds, np.ndarray]] = []
    for mask in masks(3, LENGTH).values():
        given: Feeds = {"ids": np.random.default_rng(0).integers(0, VOCABULARY, mask.shape)}
        feeds.append((given | ({"hidden": mask == 0} if own.masked else {}), mask))
    assert all(difference(before(given), after(given), mask) < 1e-5 for given, mask in feeds)
    pruned = check_pruned(model, feeds, layers * HEADS // 2, layers * UNITS // 2 * whole)
    roles = run_pass(LIBRARY["int8"](), pruned).done
    assert roles == {role: layers for role in ("q", "k", "v", "attn_out", *(("ffn_in", "ffn_out") if whole else ()))}


@pytest.mark.parametrize("masked", [True, False])
def test_it_is_compiled_as_any_model_though_its_mask_hides_what_is_true(masked: bool, tmp_path: Path) -> None:
    path = Own("TorchScript", True, False, masked).write(tmp_path / "own.onnx")
    report = ffc.compile(path, "prune{by=norm heads=0.5 ffn=0.5},fuse,int8").report
    changes = {kind: count for step in report.steps for kind, count in step.changes.items()}
    wanted = {"heads": LAYERS * HEADS // 2, "units": LAYERS * UNITS // 2, "attention": LAYERS, "q": LAYERS, "ffn_in": LAYERS}
    assert {kind: changes[kind] for kind in wanted} == wanted
    assert report.verdict is not None and report.verdict.probes == (6 if masked else 2)


def hand_written(packed: bool, flat: bool, mask: str, swap_first: bool, static: bool) -> ir.Model:
    """Return one attention as torch writes it on [tokens, batch, width], with a residual connection.

    Args:
        packed: Whether queries, keys and values come of one product.
        flat: Whether batch and heads are one axis while it multiplies.
        mask: What hides tokens: ``none``, ``keys``, added for each key, or ``scores``, for each score.
        swap_first: Whether the residual connection is on [tokens, batch, width] too.
        static: Whether all sizes are numbers.
    """
    draft = Draft()
    op, heads = draft.op, WIDTH // SIZE
    batch, tokens = (2, 5) if static else ("batch", "seq")
    x = draft.input("x", batch, tokens, WIDTH)
    keep = draft.input("keep", batch, tokens, dtype=ir.DataType.INT64)
    swapped = op.Transpose(x, perm=[1, 0, 2])
    rows = op.Concat(op.Shape(x, start=1, end=2), op.Mul(op.Shape(x, end=1), [heads]), [SIZE], axis=0)
    if packed:
        q, k, v = op.Split(draft.linear("qkv", swapped, WIDTH, 3 * WIDTH), [WIDTH] * 3, axis=-1, outputs=3)
    else:
        q, k, v = (draft.linear(name, swapped, WIDTH, WIDTH) for name in "qkv")
    q, k, v = (op.Transpose(op.Reshape(each, rows), perm=[1, 0, 2]) for each in (q, k, v))  # [B * H, S, D]
    apart = op.Concat(op.Shape(x, end=1), [heads], op.Shape(x, start=1, end=2), [SIZE], axis=0)
    if not flat:
        q, k, v = (op.Reshape(each, apart) for each in (q, k, v))
    scores = op.MatMul(op.Mul(q, np.float32(SIZE**-0.5)), op.Transpose(k, perm=[0, 2, 1] if flat else [0, 1, 3, 2]))
    if mask != "none":
        off = op.Where(op.Cast(keep, to=ir.DataType.BOOL.value), np.float32(0), np.float32(-1e30))
        off = op.Unsqueeze(off, [1, 2])
        if flat or mask == "scores":
            length = op.Shape(x, start=1, end=2)
            off = op.Expand(off, op.Concat(op.Shape(x, end=1), [heads], length if mask == "scores" else [1], length, axis=0))
        scores = op.Add(scores, op.Reshape(off, op.Concat([-1], op.Shape(off, start=2), axis=0)) if flat else off)
    context = op.MatMul(op.Softmax(scores, axis=-1), v)
    context = op.Transpose(op.Reshape(context, apart) if flat else context, perm=[2, 0, 1, 3])
    merged = op.Reshape(context, op.Concat(op.Shape(x, start=1, end=2), op.Shape(x, end=1), [WIDTH], axis=0))
    out = draft.linear("out", merged, WIDTH, WIDTH)
    if swap_first:
        y = op.Transpose(draft.norm("norm", op.Add(swapped, out)), perm=[1, 0, 2])
    else:
        y = draft.norm("norm", op.Add(x, op.Transpose(out, perm=[1, 0, 2])))
    return draft.model({"y": (y, [batch, tokens, WIDTH])})


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("swap_first", [False, True])
@pytest.mark.parametrize("mask", ["none", "keys", "scores"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_attention_on_tokens_first_in_every_form(packed: bool, flat: bool, mask: str, swap_first: bool, static: bool) -> None:
    before = hand_written(packed, flat, mask, swap_first, static)
    (layer,) = ffc.find_blocks(before).layers
    assert layer.cuttable is not None and list(layer.attention.roles) == ["q", "k", "v", "attn_out"]  # type: ignore[union-attr]
    model = fused(before)
    assert count(model, "Attention", "AttentionMasked") == 1
    assert count(model, "AddNorm") == 1 and count(model, "Linear") == 4 and count(model, "Transpose", "Softmax") == 0
    random = np.random.default_rng(0)
    feeds: list[tuple[Feeds, np.ndarray]] = []
    for batch, length in ((2, 5),) if static else ((2, 5), (3, 1), (1, 4), (4, 4)):
        for keep in masks(batch, length).values():
            feeds.append(({"x": random.standard_normal((batch, length, WIDTH)).astype(np.float32), "keep": keep}, keep))
    one, other = Stock(before), Stock(model)
    assert all(difference(one(given), other(given), keep) < 1e-5 for given, keep in feeds)
    check_pruned(model, feeds, 1, 0)


def test_what_mixes_tokens_stops_the_swap() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "seq", 4)
    swapped = draft.op.Transpose(x, perm=[1, 0, 2])
    y = draft.op.Transpose(draft.op.CumSum(swapped, np.int64(0)), perm=[1, 0, 2])
    before = draft.model({"y": (y, ["batch", "seq", 4])})
    after = fused(before)
    assert count(after, "Transpose") == 2
    given = {"x": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)}
    assert difference(Stock(before)(given), Stock(after)(given)) < 1e-6
