"""The pass `fp16` computes products and attention in half, keeps what is sensitive to range in float32, and names what overflows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler import syntax
from ffc.compiler.proof import stage
from ffc.compiler.proof.verify import Prover
from ffc.graph.execute import CPU, CUDA, cuda_at_hand
from ffc.graph.shapes.inference import infer
from tests import encoders
from tests.graphs import LIBRARY, WIDTH, Draft, Stock, count, difference, encoder, feeds, masks, run_pass, run_passes

STAGES = ("opset", "clean", "fuse")
TARGETS = ("cpu", "cuda", "portable")
HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT

TOLERANCE = 8 * 2.0**-10
"""Of the scale of an output: a few roundings to half, one of which is at most 2^-11 of its number."""


def converted(options: str = "", *, model: ir.Model | None = None) -> tuple[ir.Model, ffc.Log]:
    fused = run_passes(encoder() if model is None else model, *STAGES)
    (item,) = syntax.parse(f"fp16{{{options}}}", LIBRARY)
    return fused, run_pass(item, fused)


def interface(model: ir.Model) -> list[tuple[str | None, ir.DataType | None]]:
    return [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)]


def step_of(report: Any, name: str) -> Any:
    (found,) = (step for step in report.steps if step.text.split("{")[0] == name)
    return found


def test_golden(golden_graph: Callable[[str, ir.Model], None]) -> None:
    golden_graph("fp16", converted()[0])


def test_products_attention_and_tables_become_half_and_norms_do_not() -> None:
    model, log = converted(model=encoder(layers=2))
    assert log.done == {
        "q": 2, "k": 2, "v": 2, "attn_out": 2, "ffn_in": 2, "ffn_out": 2, "head": 1, "attention": 2, "embedding tables": 3
    }  # fmt: skip
    shapes = infer(model)
    for node in model.graph:
        if node.domain != "ffc":
            continue
        half = "Linear" in node.op_type or "Half" in node.op_type
        weights = [value for value in node.inputs if value is not None and value.is_initializer()]
        assert {value.dtype for value in weights if len(value.shape or ()) == 2} <= {HALF}
        assert not half or any(shapes.dtype(value) == HALF for value in node.inputs if value is not None)
        if "Norm" in node.op_type:
            assert {shapes.dtype(value) for value in [*node.inputs, *node.outputs] if value is not None} == {SINGLE}
    (mask,) = {node.inputs[3] for node in model.graph if node.op_type == "AttentionMaskedHalf"}
    assert mask is not None
    assert shapes.dtype(mask) == SINGLE


def test_half_flows_from_call_to_call_without_casts() -> None:
    model, _ = converted(model=encoder(layers=2, pooler=False))
    to_half = [n for n in model.graph if n.op_type == "Cast" and n.attributes["to"].value == HALF.value]
    # one for q, k and v, and one for the feed-forward network of each layer
    assert len(to_half) == 4


@pytest.mark.parametrize("target", TARGETS)
def test_result_is_equal_within_rounding_on_every_mask_and_keeps_its_types(target: str) -> None:
    model = encoder(layers=2)
    result = ffc.compile(model, "fuse,fp16", target=target)
    assert interface(model) == interface(result.model)
    assert any(value.dtype == HALF for value in result.model.graph.initializers.values())
    before, after = Stock(model), Stock(result.model)
    for length in (1, 5, 17):
        for mask in masks(3, length).values():
            inputs = feeds(mask)
            assert difference(before(inputs), after(inputs), mask) < TOLERANCE


@pytest.mark.parametrize("target", TARGETS)
def test_a_row_masked_throughout_is_finite_and_leaves_others_alone(target: str) -> None:
    model = encoder(layers=2, pooler=False)
    after = ffc.compile(model, "fp16", target=target).model
    mask = masks(3, 6)["full"]
    mask[1] = 0
    inputs = feeds(mask)
    assert difference(Stock(model)(inputs), Stock(after)(inputs), mask) < TOLERANCE


def test_portable_is_of_standard_operators_alone() -> None:
    result = ffc.compile(encoder(), "fp16", target="portable")
    assert {node.domain for node in result.model.graph} == {""}


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ("q", {"q"}),
        ("attention", {"attention"}),
        ("embeddings", {"embedding tables"}),
        ("ffn_in,head", {"ffn_in", "head"}),
        ("NAME", {"ffn_out"}),
    ],
)
def test_what_is_to_be_skipped_stays_float32(skip: str, left: set[str]) -> None:
    fused = run_passes(encoder(), *STAGES)
    name = next(product.name for product in ffc.find_blocks(fused).products if product.role == "ffn_out")
    _, everything = converted()
    _, log = converted(f"skip={skip.replace('NAME', name)}")
    assert everything.done.keys() - log.done.keys() == left
    assert all("as asked" in miss.why for miss in log.misses)
    assert log.misses


def test_an_unknown_name_is_a_usage_error_with_the_nearest_one() -> None:
    with pytest.raises(ffc.UsageError, match=r"skip=atention names no part and no product .* did you mean 'attention'"):
        converted("skip=atention")


def wide(factor: float) -> ir.Model:
    """Return a feed-forward network whose hidden numbers are some times `factor`, of either sign, and whose outputs are small."""
    draft = Draft()
    op, x = draft.op, draft.input("x", "batch", WIDTH)
    up = np.where(np.arange(8) % 2, factor, -factor) * np.ones((WIDTH, 1))
    down = np.full((8, 4), 1e-3 / factor, np.float32)
    hidden = op.Relu(op.Add(op.MatMul(x, draft.weight("in", up.astype(np.float32))), draft.normal("b1", 8)))
    out = op.Add(op.MatMul(hidden, draft.weight("out", down)), draft.normal("b2", 4))
    return draft.model({"y": (out, ["batch", 4])})


def test_an_activation_that_half_cannot_hold_is_named_and_can_be_skipped() -> None:
    model = wide(30_000.0)
    with pytest.raises(ffc.GateError, match=r"pass 'fp16': '(\w+)' reaches .* half ends at 65504; fp16{skip=\1,y} keeps") as caught:
        ffc.compile(model, "fp16")
    assert caught.value.exit_code == 1
    name = str(caught.value).split("'")[3]
    assert name in {product.name for product in ffc.find_blocks(run_passes(model, *STAGES)).products}
    result = ffc.compile(model, f"fp16{{skip={name},y}}")
    assert [why.split(":")[0] for why in step_of(result.report, "fp16").skipped] == [f"other {name}", "other y"]


def scaled_input(factor: float) -> ir.Model:
    """Return a product that scales back what was scaled by `factor` before it, so that its result is in range."""
    draft = Draft()
    x = draft.op.Mul(draft.input("x", "batch", 4), factor)
    return draft.model({"y": (draft.op.MatMul(x, draft.weight("w", np.full((4, 3), 1 / factor, np.float32))), ["batch", 3])})


def test_an_input_that_half_cannot_hold_is_named_with_what_reads_it() -> None:
    with pytest.raises(ffc.GateError, match=r"which they read, reaches .* half ends at 65504; fp16{skip=y}"):
        ffc.compile(scaled_input(1e6), "fp16")
    assert step_of(ffc.compile(scaled_input(1e6), "fp16{skip=y}").report, "fp16").changes == {}


def test_a_weight_that_half_cannot_hold_stays_float32_and_is_named() -> None:
    step = step_of(ffc.compile(scaled_input(1e-6), "fp16").report, "fp16")
    assert step.changes == {}
    assert step.skipped == ["other y: left in float32: its weight w holds 1e+06, and half ends at 65504"]


def test_a_weight_that_is_shared_with_what_stays_float32_is_copied() -> None:
    """As a tied head has it: the table of words is the weight of the last product too."""
    draft = Draft()
    ids, table = draft.input("ids", "batch", "seq", dtype=ir.DataType.INT64), draft.normal("table", 7, 4)
    x = draft.op.Gather(table, ids)
    model = draft.model({"y": (draft.op.MatMul(x, draft.op.Transpose(table, perm=[1, 0])), ["batch", "seq", 7])})
    before, inputs = Stock(model), {"ids": np.arange(6).reshape(2, 3)}
    for skip in ("embeddings", "other,head"):
        result = ffc.compile(model, f"fp16{{skip={skip}}}")
        assert {HALF, SINGLE} <= {value.dtype for value in result.model.graph.initializers.values()}
        assert difference(before(inputs), Stock(result.model)(inputs)) < TOLERANCE


@pytest.mark.parametrize("passes", ["fuse,int8,fp16", "int8{embeddings=true},fp16", "fp16,fp16", "fp16,fuse", "fp16,clean", "fp16,opset"])
@pytest.mark.parametrize("target", TARGETS)
def test_any_order_gives_a_right_model(passes: str, target: str) -> None:
    result = ffc.compile(encoder(), passes, target=target)
    assert result.report.verdict is not None
    assert result.report.verdict.cosine > 0.999


def test_int8_after_it_leaves_what_is_half_and_says_so() -> None:
    step = step_of(ffc.compile(encoder(), "fp16,int8").report, "int8")
    assert (step.changes, len(step.skipped)) == ({}, 7)
    assert all(why.endswith("its weight is float16, not float32") for why in step.skipped)


@pytest.mark.parametrize("passes", ["prune{by=norm heads=2 ffn=11}", "relu", "deadtokens"])
def test_what_works_on_structure_is_refused_after_it(passes: str) -> None:
    with pytest.raises(ffc.CannotApplyError, match="comes after 'fp16' in the pipeline; put it before"):
        ffc.compile(encoder(), f"fp16,{passes}")


def test_budget_is_refused_and_later_steps_are_held_to_it() -> None:
    with pytest.raises(ffc.GateError, match=r"pass 'fp16': mean cosine .* is below the budget of 1 on .*; fp16\{skip=...\} leaves"):
        ffc.compile(encoder(), "fp16{cosine=1}")


def test_the_report_says_that_it_was_not_run_on_cuda() -> None:
    notes = [note for step in ffc.compile(encoder(), "fp16", target="cuda").report.steps for note in step.notes]
    assert any("no CUDA provider here" in note for note in notes) != cuda_at_hand()


def test_where_a_cuda_provider_is_at_hand_it_is_run_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU provider plays the CUDA provider, which this test does not ask for."""
    asked: list[str] = []
    run = Prover.run

    def record(self: Prover, model: ir.Model, provider: str = CPU) -> Any:
        asked.append(provider)
        return run(self, model)

    monkeypatch.setattr(stage, "cuda_at_hand", lambda: True)
    monkeypatch.setattr(Prover, "run", record)
    ffc.compile(encoder(), "fuse", target="cuda")
    assert asked.count(CUDA) == 1
    asked.clear()
    ffc.compile(encoder(), "fuse,fp16")
    assert asked.count(CUDA) == 2, "after fp16 and after lower"


@pytest.mark.skipif(not cuda_at_hand(), reason="no CUDA provider")
@pytest.mark.parametrize("passes", ["fuse", "fuse,fp16"])
def test_compiles_for_cuda_and_holds_there(passes: str) -> None:
    assert ffc.compile(encoder(layers=2), passes, target="cuda").report.verdict is not None


@pytest.mark.parametrize("target", TARGETS)
def test_a_real_export_stays_within_the_budget_on_every_mask(target: str, exported: Callable[..., Path], tmp_path: Path) -> None:
    path, out = exported("bert"), tmp_path / "out.onnx"
    result = ffc.compile(path, "fuse,fp16", out=out, target=target)
    assert count(result.model, "MultiHeadAttention") == (2 if target == "cuda" else 0)
    before, after = Stock(path), Stock(out)
    for mask in masks(3, 9).values():
        inputs = feeds(mask, vocabulary=encoders.VOCABULARY)
        assert difference(before(inputs), after(inputs), mask) < TOLERANCE
    assert out.stat().st_size < 0.55 * path.stat().st_size


def test_minilm_in_half_keeps_its_meaning(minilm: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    verdict = ffc.compile(minilm, "fuse,fp16", out=out).report.verdict
    assert verdict is not None
    assert verdict.cosine > 0.99999
    assert out.stat().st_size < 0.51 * minilm.stat().st_size
