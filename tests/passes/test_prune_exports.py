"""The pass `prune` on real exports, and on encoders whose queries, keys and values come from one product."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import LiftConstantsToInitializersPass

import ffc
from ffc.graph.blocks.finder import find
from ffc.graph.dialect.trace import OPSET, Op
from ffc.graph.execute import Runner
from ffc.graph.tidy import tidy
from ffc.pruning import LayerPlan, Plan, make_plan, stamp
from ffc.settings.amount import Amount
from tests import encoders
from tests.graph.blocks.test_feed_forward import gated_model
from tests.graph.blocks.test_finder import Form, attention_model
from tests.passes.test_prune import HEADS, UNEVEN, UNITS, WIDTH, masked_by_hand, zero_rows

EXPORTS: dict[str, tuple[encoders.Kind, dict[str, Any]]] = {
    "biases merged into one": ("bert", {"zero_biases": True}),
    "three layers and a head": ("roberta", {"layers": 3, "head": True}),
}


@pytest.mark.parametrize(("kind", "options"), EXPORTS.values(), ids=EXPORTS)
def test_real_exports_are_cut_and_proved(
    kind: encoders.Kind, options: dict[str, Any], exported: Callable[..., Path], tmp_path: Path
) -> None:
    prune_evenly_and_unevenly(exported(kind, **options), tmp_path)


def test_minilm_is_cut_and_proved(minilm: Path, tmp_path: Path) -> None:
    prune_evenly_and_unevenly(minilm, tmp_path)


def prune_evenly_and_unevenly(path: Path, folder: Path) -> None:
    """Prune by a uniform plan and by one that keeps other heads and units, and other numbers of them, in each layer."""
    plan = make_plan(path, Amount(heads=0.5, ffn=0.3), by="norm")
    uneven = [
        kept.model_copy(
            update={
                "heads": tuple(head for head in range(kept.of_heads or 0) if (head + index) % (2 + index % 3)),
                "units": tuple(range(index, kept.of_units or 0, 3 + index)),
            }
        )
        for index, kept in enumerate(plan.layers)
    ]
    assert len({len(kept.heads or ()) for kept in uneven}) > 1
    for number, layers in enumerate([plan.layers, tuple(uneven)]):
        Plan(layers=layers).save(folder / f"{number}.json")
        result = ffc.compile(path, f"prune{{plan={folder / f'{number}.json'}}}", target="portable")
        step = next(step for step in result.report.steps if step.text.startswith("prune"))
        assert step.changes["heads"] == sum((kept.of_heads or 0) - len(kept.heads or ()) for kept in layers)
        assert step.verdict is not None and step.verdict.difference < 1e-5
        assert not [node for node in result.model.graph if node.domain]
        whole = result.report.verdict
        assert whole is not None and whole.difference > 1e-2  # it does differ from the model before


def test_real_exports_are_cut_by_the_plan_beside_them(exported: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(exported("bert", zero_biases=True), tmp_path / "model.onnx"))
    made = path.with_name(f"{path.stem}.plan.json")
    make_plan(path, Amount(heads=1, ffn=None), by="norm").save(made)
    result = ffc.compile(path, "prune", target="portable")
    (step,) = (step for step in result.report.steps if step.changes == {"heads": 6})
    assert f"as {made} says" in step.notes[0]


def fused_qkv(path: Path, by_head: bool) -> Path:
    """Save a model in standard operators whose queries, keys and values come from one product.

    Args:
        path: Where to save it.
        by_head: Whether the product's columns are ordered head by head (as GPT-NeoX has it) or role by role.
    """
    random = np.random.default_rng(9)

    def weight(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32) * 0.5

    ids = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", "tokens"]))
    op = Op()
    x = op.LayerNormalization(op.Gather(weight(30, WIDTH), ids), weight(WIDTH), weight(WIDTH))
    for _ in range(2):
        fused = op.Add(op.MatMul(x, weight(WIDTH, 3 * WIDTH)), weight(3 * WIDTH))
        if by_head:
            parts = op.Split(op.Reshape(fused, [0, 0, HEADS, 3, -1]), [1, 1, 1], axis=3, outputs=3)
            q, k, v = (op.Transpose(op.Squeeze(part, [3]), perm=[0, 2, 1, 3]) for part in parts)
        else:
            parts = op.Split(fused, [WIDTH] * 3, axis=2, outputs=3)
            q, k, v = (op.Transpose(op.Reshape(part, [0, 0, HEADS, -1]), perm=[0, 2, 1, 3]) for part in parts)
        scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), np.float32(0.5))
        context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
        context = op.Reshape(context, [0, 0, WIDTH])
        x = op.Add(op.Add(op.MatMul(context, weight(WIDTH, WIDTH)), weight(WIDTH)), x)
        x = op.LayerNormalization(x, weight(WIDTH), weight(WIDTH))
        wide = op.Gelu(op.Add(op.MatMul(x, weight(WIDTH, UNITS)), weight(UNITS)))
        x = op.Add(op.Add(op.MatMul(wide, weight(UNITS, WIDTH)), weight(WIDTH)), x)
        x = op.LayerNormalization(x, weight(WIDTH), weight(WIDTH))
    x.name, x.type, x.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "tokens", WIDTH])
    model = ir.Model(ir.Graph([ids], [x], nodes=op.nodes, opset_imports={"": OPSET}, name="g"), ir_version=10)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ffc.save(tidy(model), path)
    return path


@pytest.mark.parametrize("by_head", [False, True])
def test_a_plan_made_on_a_fused_product_meets_its_parts(by_head: bool, tmp_path: Path) -> None:
    path = fused_qkv(tmp_path / "m.onnx", by_head)
    plan = stamp(UNEVEN, find(ffc.load(path)))
    plan.save(tmp_path / "p.json")
    result = ffc.compile(path, f"prune{{plan={tmp_path / 'p.json'}}}", target="portable")
    step = next(step for step in result.report.steps if step.text.startswith("prune"))
    assert step.changes == {"heads": 5, "units": 9}
    assert step.verdict is not None and step.verdict.difference < 1e-5
    masked = masked_by_hand(ffc.load(path), plan)
    feeds = {"input_ids": np.arange(14).reshape(2, 7)}
    np.testing.assert_allclose(Runner(result.model).run(feeds)["y"], Runner(masked).run(feeds)["y"], atol=1e-5)


@pytest.mark.parametrize("order", ["gate last", "gate first"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gated_network_loses_columns_of_both_halves(fused: bool, order: str, tmp_path: Path) -> None:
    model, kept = gated_model(fused=fused, order=order), (0, 3, 4, 11, 19)
    stamp(Plan(layers=(LayerPlan(units=kept, of_units=20),)), find(model)).save(tmp_path / "p.json")
    result = ffc.compile(model, f"prune{{plan={tmp_path / 'p.json'}}}", target="portable")
    step = next(step for step in result.report.steps if step.text.startswith("prune"))
    assert step.changes == {"units": 15}
    widths = sorted(v.shape.numpy() for v in result.model.graph.initializers.values() if v.shape and len(v.shape) == 2)
    assert widths == [(5, 12), (12, 5), (12, 5)]
    x = {"x": np.random.default_rng(0).standard_normal((2, 7, 12)).astype(np.float32)}
    masked = model.clone()
    ffn = find(masked).layers[0].ffn
    assert ffn is not None
    zero_rows(masked, ffn.ffn_out.node, [unit for unit in range(20) if unit not in kept])
    np.testing.assert_allclose(Runner(result.model).run(x)["y"], Runner(masked).run(x)["y"], atol=1e-5)


def test_heads_that_rotary_positions_stand_before_are_refused_with_the_reason() -> None:
    model = attention_model(Form(fault="rotary"))
    with pytest.raises(ffc.CannotApplyError, match=r"heads=0\.5 .*none that could be found \(.*Add .* stands before"):
        ffc.compile(model, "prune{by=norm heads=0.5}")
