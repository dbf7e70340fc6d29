"""The pass `widen`: what computes in half precision or bfloat16 computes in float32 on a CPU, and then all else applies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.graph import files
from ffc.graph.dialect.trace import OPSET
from ffc.graph.dialect.widen import computes_in_half, holds_half, in_float32, runnable
from ffc.pruning.planning import make_plan
from ffc.settings.amount import Amount
from tests.graphs import LIBRARY, Draft, Stock, count, difference, encoder, feeds, masks, run_pass, run_passes
from tests.halves import BRAIN, FLOAT, HALF, as_half

TYPES = pytest.mark.parametrize("dtype", [HALF, BRAIN], ids=["half", "bfloat16"])


def names(result: ffc.Result) -> list[tuple[str, str | None]]:
    return [(step.text, step.needed_by) for step in result.report.steps]


def readable(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in outputs.items()}


@TYPES
def test_a_model_in_half_is_fused_and_quantised_and_keeps_its_types(dtype: ir.DataType) -> None:
    before = as_half(encoder(layers=2), dtype)
    result = ffc.compile(before, "fuse,int8")
    assert names(result)[0] == ("widen", "opset")
    steps = {step.text: step for step in result.report.steps}
    assert steps["fuse"].changes["attention"] == 2
    assert steps["fuse"].changes["linear-gelu"] == 2
    assert steps["int8"].changes == {role: 2 for role in ("q", "k", "v", "attn_out", "ffn_in", "ffn_out")} | {"head": 1}
    assert [value.dtype for value in result.model.graph.outputs] == [dtype, dtype]
    assert not computes_in_half(result.model)
    assert steps["widen"].verdict is not None and steps["widen"].verdict.difference > 1e-5  # half is no float32
    said = [note for note in steps["widen"].notes if "bfloat16" in note]
    assert bool(said) == (dtype == BRAIN)


@TYPES
def test_a_model_in_half_is_pruned_by_a_plan_and_quantised(dtype: ir.DataType, tmp_path: Path) -> None:
    path, plan = tmp_path / "model.onnx", tmp_path / "plan.json"
    ir.save(as_half(encoder(layers=2), dtype), path)
    make_plan(path, Amount(heads=1, ffn=0.5), by="norm").save(plan)
    steps = {step.text.partition("{")[0]: step for step in ffc.compile(path, f"prune{{plan={plan}}},int8").report.steps}
    assert steps["prune"].changes == {"heads": 4, "units": 20}
    assert steps["prune"].verdict is not None and steps["prune"].verdict.difference < 1e-5
    assert steps["int8"].verdict is not None and steps["int8"].verdict.cosine > 0.99


@TYPES
def test_the_result_is_nearer_to_what_the_model_means_than_the_model(dtype: ir.DataType) -> None:
    before = as_half(encoder(layers=2), dtype)
    after = in_float32(ffc.compile(before, "fuse").model)  # what it gives before that is rounded
    meant, rounded, result = Stock(in_float32(before)), Stock(runnable(before)), Stock(after)
    for mask in masks(3, 9).values():
        given = feeds(mask)
        expected = meant(given)
        off = difference(expected, readable(rounded(given)), mask)
        assert difference(expected, result(given), mask) < 1e-5 < 1e-4 < off


def test_models_in_float32_see_nothing_of_it() -> None:
    assert all(step.text != "widen" for step in ffc.compile(encoder(), "fuse").report.steps)
    log = run_pass(LIBRARY["widen"](), encoder())
    assert not log.count and [miss.why for miss in log.misses] == ["it computes nothing in half precision or bfloat16"]


@pytest.mark.parametrize(("passes", "target"), [("fuse", "cuda"), ("fuse,fp16", "cuda"), ("fuse,lower{target=cuda}", "cpu")])
def test_a_model_in_half_stays_so_for_cuda_and_is_brought_to_the_opset(passes: str, target: str) -> None:
    result = ffc.compile(as_half(encoder(opset=20)), passes, target=target)
    assert names(result)[0] == ("opset", "every compile")
    assert result.report.steps[0].verdict is not None and result.report.steps[0].verdict.difference < 1e-6
    assert computes_in_half(result.model)


@pytest.mark.parametrize(
    ("passes", "chain"),
    [
        ("widen", ["widen", "opset", "lower"]),
        ("widen,fuse", ["widen", "opset", "clean", "fuse", "lower"]),
        ("opset,clean", ["widen", "opset", "clean", "lower"]),
        ("fuse,fp16", ["widen", "opset", "clean", "fuse", "fp16", "lower"]),
    ],
)
def test_it_runs_once_and_before_all(passes: str, chain: list[str]) -> None:
    assert [name.partition("{")[0] for name, _ in names(ffc.compile(as_half(encoder()), passes))] == chain


def test_explain_knows_it() -> None:
    found = ffc.explain(as_half(encoder()), "fuse")
    assert found.before == ["widen", "opset", "clean"] and found.changes["attention"] == 1


def test_what_is_farther_off_than_half_explains_is_refused() -> None:
    with pytest.raises(ffc.GateError, match=r"pass 'widen': outputs differ by .*, and rounding explains 1e-07 "):
        ffc.compile(as_half(encoder()), "widen{noise=1e-7}")


def test_numbers_beyond_half_are_no_longer_lost() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4, dtype=HALF)
    y = draft.op.Mul(draft.op.Div(draft.op.Mul(x, np.float16(60000)), np.float16(60000)), np.float16(1))
    model = draft.model({"y": (y, ["batch", 4])}, dtype=HALF)
    run_pass(LIBRARY["widen"](), model)
    given = {"x": np.float16([[1, 2, 3, -4]])}
    assert np.array_equal(Stock(model)(given)["y"], given["x"])


@pytest.mark.parametrize("lowest", [-65504.0, -np.inf])
def test_masks_of_half_hide_when_widened(lowest: float) -> None:
    draft = Draft()
    op = draft.op
    x, keep = draft.input("x", "batch", "seq", 8, dtype=HALF), draft.input("keep", "batch", "seq", dtype=ir.DataType.INT64)
    q, k, v = (op.MatMul(x, draft.weight(name, draft.random.standard_normal((8, 8)).astype(np.float16))) for name in "qkv")
    off = op.Unsqueeze(op.Where(op.Cast(keep, to=ir.DataType.BOOL.value), np.float16(0), np.float16(lowest)), [1])
    y = op.MatMul(op.Softmax(op.Add(op.MatMul(q, op.Transpose(k, perm=[0, 2, 1])), off), axis=-1), v)
    model = draft.model({"y": (y, ["batch", "seq", 8])}, dtype=HALF)
    after = Stock(ffc.compile(model, "fuse").model)
    random = np.random.default_rng(0)
    mask = np.ones((2, 6), np.int64)
    mask[:, 4:] = 0
    first = random.standard_normal((2, 6, 8)).astype(np.float16)
    second = first.copy()
    second[:, 4:] = random.standard_normal((2, 2, 8))
    one, other = (after({"x": array, "keep": mask})["y"][:, :4] for array in (first, second))
    assert np.array_equal(one, other)
    assert difference(readable(Stock(model)({"x": first, "keep": mask})), readable(after({"x": first, "keep": mask})), mask) < 0.02


def mixed() -> ir.Model:
    """Return a model with all that may hold half: a constant node, types as attributes, an If, a function, inner casts."""
    draft = Draft()
    op = draft.op
    x, flag = draft.input("x", "batch", 4, dtype=HALF), draft.input("flag", dtype=ir.DataType.BOOL)
    y = op.Add(x, op.Constant(value=ir.Tensor(np.float16([1.5, -2, 0.25, 3]))))
    wide = op.Cast(y, to=FLOAT.value)
    norm = op.LayerNormalization(wide, draft.normal("gamma", 4), draft.normal("beta", 4))
    y = op.CastLike(op.Cast(norm, to=HALF.value), y)
    ones = op.ConstantOfShape(op.Shape(y), value=ir.Tensor(np.float16([2])))
    y = op.Add(op.Mul(y, ones), op.EyeLike(y, dtype=HALF.value))
    y = _if(op, flag, y)
    function, call = _function(y)
    op.nodes.append(call)
    z = op.MatMul(call.outputs[0], draft.weight("w", np.float16([[1, 2], [0.5, 0], [3, 1], [0, 1]])))
    model = draft.model({"y": (call.outputs[0], ["batch", 4]), "z": (z, ["batch", 2])}, dtype=HALF)
    model.functions[function.identifier()] = function
    model.opset_imports["mine"] = 1
    return model


def _if(op: Any, flag: ir.Value, y: ir.Value) -> ir.Value:
    branches = []
    for factor in (0.5, 3.0):
        constant = ir.node("Constant", [], {"value": ir.Tensor(np.float16(factor))})
        product = ir.node("Mul", [y, constant.outputs[0]])
        product.outputs[0].type, product.outputs[0].shape = ir.TensorType(HALF), ir.Shape(["batch", 4])
        product.outputs[0].name, constant.outputs[0].name = f"scaled{factor}", f"factor{factor}"
        branches.append(ir.Graph([], [product.outputs[0]], nodes=[constant, product], name=f"by{factor}"))
    found: ir.Value = op.If(flag, then_branch=branches[0], else_branch=branches[1])
    return found


def _function(y: ir.Value) -> tuple[ir.Function, ir.Node]:
    x = ir.Value(name="x")
    up = ir.node("Cast", [x], {"to": FLOAT.value})
    root = ir.node("Tanh", [up.outputs[0]])
    down = ir.Node("", "Cast", [root.outputs[0]], [ir.RefAttr("to", "type", ir.AttributeType.INT)])
    graph = ir.Graph([x], [down.outputs[0]], nodes=[up, root, down], opset_imports={"": OPSET})
    function = ir.Function("mine", "Root", graph=graph, attributes=[ir.Attr("type", ir.AttributeType.INT, None)])
    call = ir.node("Root", [y], {"type": HALF.value}, domain="mine")
    return function, call


def test_all_that_may_hold_half_is_widened() -> None:
    before = mixed()
    after = run_passes(before, "widen")
    assert computes_in_half(before) and not computes_in_half(after) and holds_half(after)
    assert count(after, "Root") == 0
    one, other = Stock(before), Stock(after)
    for flag in (True, False):
        given = {"x": np.float16([[1, 2, 3, -4], [0.1, 0.2, 0, 5]]), "flag": np.array(flag)}
        expected, found = one(given), other(given)
        assert all(found[name].dtype == np.float16 for name in expected)
        assert difference(readable(expected), readable(found)) < 0.005
    assert run_pass(LIBRARY["widen"](), after).count == 0


def test_an_output_that_is_read_further_or_is_an_input_or_a_weight_keeps_its_type() -> None:
    draft = Draft()
    x, w = draft.input("x", "batch", 4, dtype=HALF), draft.weight("w", np.float16([1, 2, 3, 4]))
    y = draft.op.Add(x, w)
    z = draft.op.Mul(y, y)
    model = draft.model({"y": (y, ["batch", 4]), "z": (z, ["batch", 4])}, dtype=HALF)
    model.graph.outputs.extend([x, w])
    run_pass(LIBRARY["widen"](), model)
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [(name, HALF) for name in ("y", "z", "x", "w")]
    given = {"x": np.float16([[0.5, 1, 2, 3]])}
    found = Stock(model)(given)
    assert np.array_equal(found["y"], given["x"] + np.float16([1, 2, 3, 4])) and np.array_equal(found["z"], found["y"] ** 2)
    assert np.array_equal(found["x"], given["x"]) and np.array_equal(found["w"], np.float16([1, 2, 3, 4]))


def test_weights_in_half_that_are_cast_before_use_become_plain_weights() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 300)
    w = draft.weight("w", (0.1 * draft.random.standard_normal((300, 200))).astype(np.float16))
    model = draft.model({"y": (draft.op.MatMul(x, draft.op.Cast(w, to=FLOAT.value)), ["batch", 200])})
    assert {step.text: step.changes for step in ffc.compile(model, "fuse,int8").report.steps}["int8"] == {"other": 1}


@TYPES
def test_weights_in_another_file_are_widened(dtype: ir.DataType, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ir.save(as_half(encoder(), dtype), path, external_data="model.data", size_threshold_bytes=16)
    result = ffc.compile(path, "fuse", out=tmp_path / "out.onnx")
    assert result.report.steps[0].changes["weights"] > 0
    written = files.load(tmp_path / "out.onnx")
    assert [value.dtype for value in written.graph.outputs] == [dtype, dtype]


def test_gelu_is_known_by_its_constants_in_half() -> None:
    draft = Draft()
    op, x = draft.op, draft.input("x", "batch", 4, dtype=HALF)
    exact = op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, np.float16(2**0.5))), np.float16(1))), np.float16(0.5))
    cube = op.Add(x, op.Mul(op.Pow(x, np.float16(3)), np.float16(0.044715)))
    rough = op.Mul(op.Mul(x, np.float16(0.5)), op.Add(op.Tanh(op.Mul(cube, np.float16((2 / np.pi) ** 0.5))), np.float16(1)))
    model = draft.model({"y": (exact, ["batch", 4]), "z": (rough, ["batch", 4])}, dtype=HALF)
    assert count(ffc.compile(model, "fuse").model, "Gelu", "BiasGelu", "FastGelu") == 2
