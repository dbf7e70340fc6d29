"""Other encoders of transformers: attention fused where it is one, the rest left alone with a reason, and never wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from tests.coverage import matrix, others, tables
from tests.graphs import Stock, count, difference, masks

TITLE = "other encoders"
HEADING = ("encoder", "exporter", "attentions", "fused", "heads", "units", "equal", "why not")
QUICK = {
    "ALBERT", "BEiT", "CANINE", "DeBERTa-v2", "ESM, rotary", "EuroBERT, grouped keys", "MobileBERT", "ModernBERT",
    "NomicBERT", "RoFormer", "SqueezeBERT", "T5 encoder", "ViT", "XLM-RoBERTa",
}  # fmt: skip
"""One of each kind; the others are like one of them."""


def parameters() -> list[object]:
    """Return all types, those that are not `QUICK` marked slow."""
    return [
        pytest.param(other, marks=[] if other.name in QUICK else [pytest.mark.slow], id=other.name)
        for other in others.OTHERS
    ]


@pytest.mark.parametrize("other", parameters())
def test_attention_is_fused_or_left_alone_with_a_reason(
    other: others.Other, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = others.export(other, tmp_path)
    before = ffc.load(path)
    result = ffc.compile(path, "fuse")
    step = matrix.step(result, "fuse")
    blocks = ffc.find_blocks(before)
    worst = apart(other, path, result)
    row = (
        other.name,
        other.exporter,
        str(count(before, "Softmax", "Attention")),
        str(step.changes.get("attention", 0)),
        str(sum(layer.cuttable is not None for layer in blocks.layers)),
        str(sum(layer.ffn is not None for layer in blocks.layers)),
        f"{worst:.0e}",
        "; ".join(step.skipped)[:90],
    )
    record_property(tables.named(TITLE), dict(zip(HEADING, row, strict=True)))
    assert worst <= 1e-4
    assert step.changes.get("attention", 0) == other.attentions
    assert step.cost.macs <= result.report.before.macs  # no product is computed twice
    left = count(result.model, "Softmax")
    assert left <= len(step.skipped)  # each with its reason


def apart(other: others.Other, path: Path, result: ffc.Result) -> float:
    """Return the largest difference relative to the scale of the output, at real tokens, in onnxruntime alone."""
    one, two = Stock(path), Stock(result.model)
    found = []
    for batch, length in _sizes(ffc.load(path)):
        for mask in masks(batch, length).values() if "attention_mask" in other.inputs else [np.ones((batch, length))]:
            given = feeds(other, mask)
            found.append(difference(one(given), two(given), mask if mask.min() == 0 else None))
    return float(np.max(found))  # which is no number if one is none


def _sizes(model: ir.Model) -> list[tuple[int, int]]:
    """Return batch sizes and lengths, those for which the exporter did not fix them."""
    batch, length, *_ = [*(model.graph.inputs[0].shape or ()), "length"]
    sizes = [(1, 7), (3, 12)]
    if isinstance(batch, int):
        sizes = [(batch, size[1]) for size in sizes]
    if isinstance(length, int) and model.graph.inputs[0].name == "input_ids":
        sizes = [(size[0], length) for size in sizes]
    return list(dict.fromkeys(sizes))


def feeds(other: others.Other, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return inputs of an encoder for a mask [batch, length]."""
    drawn = np.random.default_rng(mask.size)
    batch = len(mask)
    known = {
        "input_ids": lambda: drawn.integers(5, 100, mask.shape),
        "attention_mask": lambda: mask.astype(np.int64),
        "bbox": lambda: np.sort(drawn.integers(0, 40, (*mask.shape, 4)), axis=-1),
        "pixel_values": lambda: drawn.standard_normal((batch, 3, 32, 32)).astype(np.float32),
        "input_values": lambda: drawn.standard_normal((batch, 400)).astype(np.float32),
        "input_features": lambda: drawn.standard_normal((batch, 8, 40)).astype(np.float32),
    }
    return {name: known[name]() for name in other.inputs}


def test_three_quarters_of_all_types_are_fused() -> None:
    whole = [other for other in others.OTHERS if other.attentions]
    assert len(others.OTHERS) >= 12
    assert len(whole) >= 0.75 * len(others.OTHERS)
