"""A BERT of TensorFlow 1 is fused whole, pruned and quantised, equal on every mask, whatever of its shapes is fixed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from tests.fixtures.tensorflow1 import LAYERS, Form, bert
from tests.graphs import LIBRARY, VOCABULARY, Stock, count, difference, masks, run_pass, run_passes

FORMS = [Form(10, 7), Form(11), Form(11, 7), Form(12, 7, 1), Form(13, 7, 2), Form(13)]


def feeds(mask: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(mask.size)
    return {
        "input_ids": random.integers(0, VOCABULARY, mask.shape, np.int32),
        "input_mask": mask.astype(np.int32),
        "segment_ids": random.integers(0, 2, mask.shape, np.int32),
    }


def sizes(form: Form) -> list[tuple[int, int]]:
    return list(dict.fromkeys((form.batch or batch, form.tokens or tokens) for batch, tokens in ((1, 1), (2, 7), (3, 24))))


def apart(before: ir.Model, after: ir.Model, form: Form) -> float:
    one, other = Stock(before), Stock(after)
    given = [feeds(mask) for size in sizes(form) for mask in masks(*size).values()]
    return max(difference(one(each), other(each)) for each in given)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_block_becomes_a_call_and_outputs_stay_equal(form: Form) -> None:
    model = bert(form)
    after = run_passes(model, "opset", "clean", "fuse")
    calls = Counter(node.op_type for node in after.graph if node.domain == "ffc")
    products = {"Linear": 5 * LAYERS + 2, "LinearGelu": LAYERS}
    assert calls == {"AttentionMasked": LAYERS, "AddNorm": 2 * LAYERS, "Embed": 1, **products}
    assert count(after, "MatMul", "OneHot", "Reciprocal", "ReduceMean") == 0
    assert apart(model, after, form) < 1e-5


def test_cleaning_it_twice_changes_nothing_more() -> None:
    once = run_passes(bert(Form(11)), "opset", "clean")
    assert run_pass(LIBRARY["clean"](), once).count == 0


@pytest.mark.parametrize("form", [Form(11, 7), Form(11)], ids=str)
def test_it_is_pruned_and_quantised(form: Form, tmp_path: Path) -> None:
    result = ffc.compile(bert(form), "prune{by=norm heads=2 ffn=10},fuse,int8", out=tmp_path / "out.onnx")
    assert result.report.verdict is not None
    assert count(result.model, "Attention") == LAYERS
    assert count(result.model, "MatMulIntegerToFloat") == 6 * LAYERS + 2


@pytest.mark.parametrize("form", [Form(11, 7), Form(11)], ids=str)
def test_tokens_that_the_classifier_does_not_read_are_dropped(form: Form) -> None:
    model = bert(form)
    del model.graph.outputs[0]
    after = run_passes(model, "opset", "clean", "fuse")
    assert run_pass(LIBRARY["deadtokens"](), after).done["layers"] == 1
    assert apart(model, after, form) < 1e-5
