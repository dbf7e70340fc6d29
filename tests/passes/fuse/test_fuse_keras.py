"""A BERT born in Keras and exported by tf2onnx is fused whole, pruned and quantised, equal on every mask.

The fixture comes from ``tests/fixtures/keras_bert.py``, which says how to make it anew.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

import ffc
from tests.checkout import ROOT
from tests.graphs import Stock, count, difference, masks, run_passes

KERAS = ROOT / "tests" / "fixtures" / "keras_bert.onnx"


def inputs(mask: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "token_ids": random.integers(0, 30, mask.shape, np.int32),
        "segment_ids": random.integers(0, 2, mask.shape, np.int32),
        "padding_mask": mask.astype(np.int32),
    }


def fused() -> ir.Model:
    return run_passes(ffc.load(KERAS), "opset", "clean", "fuse")


def test_every_block_becomes_a_call() -> None:
    after = fused()
    calls = Counter(node.op_type for node in after.graph if node.domain == "ffc")
    assert calls["AttentionMasked"] == 2
    assert calls["LinearGelu"] == 2
    assert calls["Linear"] == 2 * 5 + 1  # and the pooler
    assert calls["Norm"] + calls["AddNorm"] == 5
    assert count(after, "Softmax", "MatMul", "Gemm", "GlobalAveragePool", "Erf") == 0


def test_outputs_stay_equal_on_every_mask() -> None:
    before, after = Stock(KERAS), Stock(fused())
    for batch, length in ((1, 1), (2, 7), (3, 24)):
        for mask in masks(batch, length).values():
            feeds = inputs(mask)
            # The pooler reads the first token, which is no token where padding stands on the left.
            one, other = ({"h": found["sequence_output"]} for found in (before(feeds), after(feeds)))
            assert difference(one, other, mask) < 1e-5


def test_it_is_pruned_and_quantised(tmp_path: Path) -> None:
    result = ffc.compile(KERAS, "prune{by=norm heads=2 ffn=10},fuse,int8", out=tmp_path / "out.onnx")
    assert result.report.verdict is not None
    assert count(result.model, "Attention") == 2
    assert count(result.model, "MatMulIntegerToFloat") == 2 * 6 + 1
    before, after = Stock(KERAS), Stock(tmp_path / "out.onnx")
    feeds = inputs(masks(2, 6)["right"])
    assert before(feeds).keys() == after(feeds).keys()
