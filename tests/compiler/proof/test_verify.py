"""A step that breaks its promise is caught, whatever it broke, and a step that keeps it is not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.proof.probes import Probe, make
from ffc.compiler.proof.probing.counted import Counted
from ffc.compiler.proof.verify import Prover, measure
from ffc.errors import CannotApplyError, GateError, InputError
from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.trace import Op
from tests.graphs import POSITIONS, Draft, encoder, feeds


@dataclass(frozen=True)
class Change(ffc.Pass):
    """Does to the model what a test says."""

    name = "change"
    needs = ("clean",)
    how: ClassVar[Callable[[ir.Model], None]]

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        type(self).how(model)
        log.did("change")


def compile_with(how: Callable[[ir.Model], None], **options: Any) -> ffc.Result:
    kind = type("Kind", (Change,), {"how": staticmethod(how)})
    return ffc.compile(encoder(), [kind()], **options)


def set_weight(model: ir.Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    value = model.graph.initializers[name]
    array = constant(value)
    assert array is not None
    value.const_value = ir.Tensor(change(array.copy()), name=name)


def replace_mask(model: ir.Model, make: Callable[[Op, ir.Value], ir.Value]) -> None:
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    (use,) = mask.uses()
    editor = Editor(model)
    editor.replace_input(use.node, use.idx, make(editor.at(use.node, "kept"), mask))


def by_length(op: Op, mask: ir.Value) -> ir.Value:
    """Keep as many tokens from the left as the mask has ones: right for padding on the right, wrong for all else."""
    length = op.ReduceSum(mask, [1], keepdims=1)
    place = op.CumSum(op.ConstantOfShape(op.Shape(mask), value=np.ones(1, np.int64)), np.int64(1))
    return op.Cast(op.LessOrEqual(place, length), to=ir.DataType.INT64.value)


def all_ones(op: Op, mask: ir.Value) -> ir.Value:
    return op.Max(mask, np.int64(1))


BROKEN: dict[str, tuple[Callable[[ir.Model], None], str]] = {
    "a bias set to zero": (lambda m: set_weight(m, "layer0.q.bias", np.zeros_like), "output"),
    "one weight changed": (lambda m: set_weight(m, "layer0.ffn_out.weight", lambda w: w + (w == w.max())), "output"),
    "a mask ignored": (lambda m: replace_mask(m, all_ones), "probe '(right-padded|left-padded|holed)"),
    "right padding assumed": (lambda m: replace_mask(m, by_length), "probe '(left-padded|holed)"),
    "not a number": (lambda m: set_weight(m, "layer0.v.bias", lambda b: b * np.float32(np.nan)), "differ by inf"),
}


@pytest.mark.parametrize(("how", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_pass_is_caught_and_nothing_is_written(how: Callable[[ir.Model], None], message: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(GateError, match=f"pass 'change'.*{message}"):
        compile_with(how, out=out)
    assert not list(tmp_path.iterdir())


def test_a_pass_that_changes_nothing_of_the_outputs_is_let_through() -> None:
    result = compile_with(lambda m: set_weight(m, "layer0.q.bias", lambda b: b * np.float32(1 + 1e-7)))
    step = next(step for step in result.report.steps if step.text == "change")
    assert step.verdict is not None
    assert step.verdict.difference < 1e-5


def test_rows_of_the_users_own_catch_what_probes_do_not() -> None:
    def forget_late_positions(model: ir.Model) -> None:
        def change(table: np.ndarray) -> np.ndarray:
            table[POSITIONS - 2 :] = 0
            return table

        set_weight(model, "position", change)

    data = feeds(np.ones((2, POSITIONS), np.int64))
    assert compile_with(forget_late_positions).report.verdict is not None
    with pytest.raises(GateError, match="probe 'data row 0'"):
        compile_with(forget_late_positions, data=data)


def test_a_model_that_differs_from_itself_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    noise = draft.op.Add(x, draft.op.RandomNormalLike(x))
    with pytest.raises(InputError, match="differs from itself: output 'y'"):
        ffc.compile(draft.model({"y": (noise, ["batch", 4])}, opset=20), "clean")


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    with pytest.raises(InputError, match="output 'y' of the model is not finite"):
        ffc.compile(draft.model({"y": (draft.op.Sqrt(draft.op.Sub(draft.op.Neg(draft.op.Abs(x)), 1.0)), ["batch", 4])}), "clean")


def causal(layers: int) -> ir.Model:
    """Return a causal model whose mask is minus infinity, x [batch, seq, 4]; from two layers on padding on the left is no number."""
    draft = Draft()
    op = draft.op
    x, mask = draft.input("x", "batch", "seq", 4), draft.input("mask", "batch", "seq", dtype=ir.DataType.INT64)
    places = op.Range(np.int64(0), op.Squeeze(op.Shape(x, start=1, end=2), [0]), np.int64(1))
    past = op.LessOrEqual(op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1]))
    seen = op.And(op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL.value), [1]), past)
    for _ in range(layers):
        scores = op.Where(seen, op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])), np.float32(-np.inf))
        x = op.MatMul(op.Softmax(scores, axis=-1), x)
    return draft.model({"y": (x, ["batch", "seq", 4])})


def test_a_probe_that_hides_more_than_a_model_can_take_is_left_out() -> None:
    model = causal(2)
    kept = {probe.name.split(" ")[0] for probe in Prover(model, make(model)).probes}
    assert {"full", "right-padded"} <= kept
    assert "left-padded" not in kept
    assert ffc.compile(model, "fuse").report.alone == ""


def heads(kind: str) -> ir.Model:
    """Return a model of ids and a mask with scores of tokens or their largest."""
    draft = Draft()
    op = draft.op
    ids, mask = (draft.input(name, "batch", "seq", dtype=ir.DataType.INT64) for name in ("input_ids", "attention_mask"))
    x = op.MatMul(op.Gather(draft.normal("word", 30, 8), ids, axis=0), draft.normal("head", 8, 5))
    if kind == "labels":
        return draft.model({"y": (op.ArgMax(x, axis=-1, keepdims=0), ["batch", "seq"])}, dtype=ir.DataType.INT64)
    scores = op.ReduceMax(x, [-1], keepdims=0)
    return draft.model({"y": (op.Where(op.Cast(mask, to=9), scores, np.float32(-np.inf)), ["batch", "seq"])})


@pytest.mark.parametrize("kind", ["labels", "scores"])
def test_models_that_give_labels_or_scores_of_tokens_are_proved(kind: str) -> None:
    model = heads(kind)
    prover = Prover(model, make(model))
    moved = heads(kind)
    set_weight(moved, "head", lambda w: w * np.float32(1 + 1e-7))
    assert prover.judge(ffc.Equal(), prover.source, prover.run(moved), "p").difference < 1e-6
    set_weight(moved, "head", lambda w: w[:, ::-1].copy() if kind == "labels" else w * np.float32(1.1))
    with pytest.raises(GateError, match="p: outputs differ"):
        prover.judge(ffc.Equal(), prover.source, prover.run(moved), "p")
    with pytest.raises(GateError, match=r"p: mean cosine 0\.\d+") if kind == "labels" else nullcontext():
        prover.judge(ffc.Budget(cosine=0.9), prover.source, prover.run(moved), "p")


def test_a_model_that_gives_no_numbers_for_a_row_masked_throughout_is_proved() -> None:
    draft = Draft()
    op = draft.op
    x, mask = draft.input("x", "batch", "seq", 4), draft.input("attention_mask", "batch", "seq", dtype=ir.DataType.INT64)
    across = op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL.value), [1])
    scores = op.Where(across, op.MatMul(x, op.Transpose(x, perm=[0, 2, 1])), np.float32(-np.inf))
    result = op.MatMul(op.Add(op.MatMul(op.Softmax(scores, axis=-1), x), 0.0), draft.normal("w", 4, 4))
    model = draft.model({"y": (result, ["batch", "seq", 4])})
    prover = Prover(model, make(model))
    nothing = [np.isnan(outputs["y"]).any() for outputs in prover.source]
    assert any(nothing) and not all(nothing)
    assert ffc.compile(model, "clean").report.verdict is not None


def test_a_model_of_anything_but_tensors_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    model = draft.model({"q": (draft.op.SequenceConstruct(x), [])})
    model.graph.outputs[0].type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    model.graph.outputs[0].shape = None
    with pytest.raises(InputError, match="output 'q' is a sequence; only tensors can be proved"):
        ffc.compile(model, "clean")


def test_a_model_that_takes_none_of_the_probes_is_refused() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "seq")
    wrong = draft.op.Reshape(x, [7, 11, 13])
    with pytest.raises(InputError, match="runs on none of the inputs"):
        ffc.compile(draft.model({"y": (wrong, [7, 11, 13])}), "clean")


def test_a_budget_that_is_not_kept_is_an_error_that_says_what_was_measured(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"mean cosine 0\.\d+ is below the budget of 0\.999999"):
        ffc.compile(encoder(), "fuse,int8{cosine=0.999999}", out=tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


# Measuring


def probe(mask: np.ndarray | None) -> Probe:
    return Probe("p", {}, mask)


def verdict(before: np.ndarray, after: np.ndarray, mask: np.ndarray | None = None) -> Any:
    return verdict_on(probe(mask), before, after)


def verdict_on(probe: Probe, before: np.ndarray, after: np.ndarray) -> Any:
    return measure([probe], [{"y": before}], [{"y": after}], "none")


def test_differences_are_relative_to_the_scale_of_the_output() -> None:
    before = np.array([[[100.0, 1.0]]], np.float32)
    assert verdict(before, before + np.float32(1)).difference == pytest.approx(0.01)


def test_padding_does_not_count_but_must_be_finite() -> None:
    mask = np.array([[True, True, False]])
    before = np.ones((1, 3, 2), np.float32)
    after = before.copy()
    after[0, 2] = 50
    assert verdict(before, after, mask).difference == 0
    assert verdict(before, after).difference == 49
    after[0, 2] = np.nan
    assert verdict(before, after, mask).difference == np.inf


def test_a_row_masked_throughout_does_not_count_in_outputs_per_row() -> None:
    mask = np.array([[True, False], [False, False]])
    before, after = np.ones((2, 5), np.float32), np.ones((2, 5), np.float32)
    after[1] = 3
    assert verdict(before, after, mask).difference == 0
    after[0] = 3
    assert verdict(before, after, mask).difference == 2


def test_agreement_is_the_share_of_rows_whose_largest_stays() -> None:
    before = np.eye(4, dtype=np.float32)
    after = before[[0, 1, 2, 0]]
    found = verdict(before, after)
    assert found.agreement == pytest.approx(0.75)
    assert found.cosine == pytest.approx(0.75)


@pytest.mark.parametrize(
    "after",
    [np.ones((2, 4), np.float32), np.ones((2, 3), np.float64), np.full((2, 3), np.inf, np.float32)],
    ids=["another shape", "another type", "infinite"],
)
def test_what_cannot_be_compared_is_infinitely_far(after: np.ndarray) -> None:
    assert verdict(np.ones((2, 3), np.float32), after).difference == np.inf


def test_a_missing_output_is_infinitely_far() -> None:
    assert measure([probe(None)], [{"y": np.ones(2)}], [{}], "none").difference == np.inf


def test_outputs_that_are_integers_must_be_the_same() -> None:
    ids = np.arange(6).reshape(2, 3)
    assert verdict(ids, ids).difference == 0
    assert verdict(ids, ids + 1).difference == 1
    large = np.zeros(1_000_000, np.int64)
    other = large.copy()
    other[7] = 1
    assert verdict(large, other).difference == 1


def test_entries_that_are_integers_agree_or_do_not() -> None:
    mask = np.array([[True, True, True, True, False], [False] * 5])
    tokens = Probe("p", {}, mask, counts={"y": Counted(mask, 1)})
    before, after = np.zeros((2, 5), np.int64), np.ones((2, 5), np.int64)
    after[0, :3] = 0
    found = verdict_on(tokens, before, after)
    assert (found.difference, found.cosine, found.agreement) == (1, 0.75, 0.75)
    after[0, 3] = 0
    found = verdict_on(tokens, before, after)
    assert (found.difference, found.cosine, found.agreement) == (0, 1, 1)
    assert verdict_on(Probe("p", {}, mask), before > 0, after > 0).difference == 1


def test_scores_of_tokens_count_at_real_tokens_and_agree_by_row() -> None:
    mask = np.array([[True, True, False], [True, True, False]])
    tokens = Probe("p", {}, mask, counts={"y": Counted(mask, 1)})
    before = np.array([[1, 2, -np.inf], [4, 3, -np.inf]], np.float32)
    after = np.array([[1, 2, 9], [3, 4, 9]], np.float32)
    found = verdict_on(tokens, before, after)
    assert found.difference == 0.25
    assert found.agreement == 0.5
    assert found.cosine == pytest.approx((1 + 24 / 25) / 2)


def test_attention_counts_where_real_tokens_ask() -> None:
    mask = np.array([[True, True, False]])
    before = np.ones((1, 2, 3, 3), np.float32)
    after = before.copy()
    after[:, :, 2] = 5
    assert verdict_on(Probe("p", {}, mask, counts={"y": Counted(mask, 2)}), before, after).difference == 0
    after[:, :, 1, 2] = 5
    assert verdict_on(Probe("p", {}, mask, counts={"y": Counted(mask, 2)}), before, after).difference == 4


def test_an_output_that_has_as_many_entries_as_there_are_tokens_or_rows_counts_throughout() -> None:
    mask = np.array([[True, True, False], [False] * 3])
    before = np.ones((2, 3, 4), np.float32)
    after = before.copy()
    after[0, 2] = 2
    assert verdict_on(Probe("p", {}, mask), before, after).difference == 0
    assert verdict_on(Probe("p", {}, mask, counts={"y": Counted(mask, 0)}), before, after).difference == 1
    after = before.copy()
    after[1] = 2
    assert verdict_on(Probe("p", {}, mask, counts={"y": Counted(mask, 0)}), before, after).difference == 0
    assert verdict_on(Probe("p", {}, mask, counts={"y": Counted(None)}), before, after).difference == 1


def test_tokens_on_the_last_axis_are_scored_as_rows_of_what_is_before_it() -> None:
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    array = np.random.default_rng(0).standard_normal((2, 3, 4))
    found = Counted(mask, 2).scores(array, 0.0)
    assert np.array_equal(found, np.concatenate([array[0, :, :3].T, array[1, :, :1].T]))


def test_what_was_no_number_need_not_become_one() -> None:
    mask = np.array([[True, False], [False, False]])
    before = np.ones((2, 2, 3), np.float32)
    before[1] = np.nan
    assert verdict(before, before.copy(), mask).difference == 0
    assert verdict(before, np.nan_to_num(before), mask).difference == 0
    after = before.copy()
    after[0, 1, 0] = np.nan
    assert verdict(before, after, mask).difference == np.inf


def test_outputs_that_are_new_or_in_another_order_are_infinitely_far() -> None:
    one, other = np.ones(2), np.zeros(2)
    for after in ({"a": one, "b": other, "c": one}, {"b": other, "a": one}, {"a": one}):
        found = measure([probe(None)], [{"a": one, "b": other}], [after], "none")
        assert found.difference == np.inf
        assert "output" in found.worst


def test_no_budget_covers_what_cannot_be_compared() -> None:
    model = encoder()
    prover = Prover(model, make(model))
    after = [dict(outputs) for outputs in prover.source]
    after[0]["pooler"] = after[0]["pooler"] * np.float32(np.nan)
    with pytest.raises(GateError, match=r"p: outputs cannot be compared on output 'pooler' of probe 'full 1x8', which is no longer finite"):
        prover.judge(ffc.Budget(cosine=0.1), prover.source, after, "p")


def test_the_worst_probe_is_named() -> None:
    model = encoder()
    prover = Prover(model, make(model))
    after = [{name: array.copy() for name, array in outputs.items()} for outputs in prover.source]
    after[2]["pooler"] += 1
    found = measure(prover.probes, prover.source, after, "none")
    assert found.worst == f"output 'pooler' of probe '{prover.probes[2].name}'"
    assert found.probes == len(prover.probes)


def test_a_model_that_onnxruntime_refuses_after_a_pass_is_an_error_of_that_pass() -> None:
    def break_it(model: ir.Model) -> None:
        node = next(node for node in model.graph if node.op_type == "Tanh")
        node.op_type = "Nonsense"

    with pytest.raises(CannotApplyError, match=r"pass 'change'.*Nonsense"):
        compile_with(break_it)
