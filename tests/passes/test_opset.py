"""The pass `opset` brings models to opset 23 with equal outputs, and refuses what it cannot convert or what is random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import ffc
from tests import encoders
from tests.graphs import Draft, count, difference, encoder, feeds, masks, run_passes, run_stock
from tests.kernels import needs_opset_24


@pytest.mark.parametrize("opset", [20, 21, 22, 23])
def test_outputs_stay_equal_on_the_way_to_23(opset: int) -> None:
    model = encoder(opset=opset)
    after = run_passes(model, "opset")
    assert after.opset_imports[""] == 23
    inputs = feeds(masks(3, 9)["holed"])
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-6


@pytest.mark.parametrize("in_memory", [True, False])
def test_standard_operators_may_be_imported_by_their_long_name(tmp_path: Path, in_memory: bool) -> None:
    model = encoder(opset=20)
    model.opset_imports["ai.onnx"] = model.opset_imports.pop("")
    path = tmp_path / "m.onnx"
    ir.save(model, path)
    after = ffc.compile(model if in_memory else path, "opset").model
    assert after.opset_imports == {"": 23}
    assert ("ai.onnx" in model.opset_imports) and ("" not in model.opset_imports)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_real_export_is_converted(kind: encoders.Kind, exported: Callable[..., Path]) -> None:
    path = exported(kind)
    after = run_passes(ffc.load(path), "opset")
    inputs = feeds(masks(3, 9)["left"], vocabulary=encoders.VOCABULARY, types=kind == "bert")
    assert after.opset_imports[""] == 23
    assert difference(run_stock(path, inputs), run_stock(after, inputs)) < 1e-6


def test_constants_become_initializers() -> None:
    model = encoder()
    assert count(model, "Constant") > 10
    assert count(run_passes(model, "opset"), "Constant") == 0


def test_functions_of_others_are_inlined() -> None:
    draft = Draft()
    x = draft.input("x", 2, 3)
    call = ir.Node("mine", "Twice", [x], num_outputs=1)
    draft.op.nodes.append(call)
    model = draft.model({"y": (call.outputs[0], [2, 3])})
    inner = Draft()
    a = ir.Value(name="a")
    b = inner.op.Add(a, a)
    b.name = "b"
    body = ir.Graph([a], [b], nodes=inner.op.nodes, opset_imports={"": 23}, name="Twice")
    function = ir.Function("mine", "Twice", graph=body, attributes=[])
    model.functions[function.identifier()] = function
    model.opset_imports["mine"] = 1
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    after = run_passes(model, "opset")
    assert (count(after, "Twice"), count(after, "Add"), len(after.functions)) == (0, 1, 0)
    assert np.array_equal(run_stock(after, {"x": array})["y"], 2 * array)


@needs_opset_24
def test_a_newer_opset_is_taken_at_its_word_where_23_knows_all_of_it() -> None:
    model = encoder(opset=23)
    model.opset_imports[""] = 24
    after = run_passes(model, "opset")
    assert after.opset_imports[""] == 23
    inputs = feeds(masks(2, 7)["holed"])
    assert difference(run_stock(model, inputs), run_stock(after, inputs), inputs["attention_mask"]) == 0


def layered(op_type: str, opset: int, *inputs: Any, dtype: ir.DataType = ir.DataType.FLOAT, **attributes: Any) -> ir.Model:
    """Return a layer, so that there is something to fuse, and one operator beside it."""
    draft = Draft()
    ids = draft.input("ids", "batch", "seq", dtype=ir.DataType.INT64)
    x = draft.norm("norm", draft.linear("word", draft.op.Gather(draft.normal("table", 11, 8), ids), 8, 8), 8)
    y = draft.op.node(op_type, draft.op.Cast(x, to=dtype.value), *inputs, **attributes)
    return draft.model({"y": (draft.op.Cast(y, to=1), ["batch", "seq", 8])}, opset=opset)


@needs_opset_24
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (layered("Swish", 24), "has no such operator"),
        (layered("Cast", 24, to=1, round_mode="up"), "does not know its round_mode"),
        (layered("BitShift", 28, np.int16(2), dtype=ir.DataType.INT16, direction="LEFT"), "onnxruntime refuses the model"),
    ],
    ids=["operator", "attribute", "type"],
)
def test_what_is_newer_than_23_stays_at_its_opset_and_is_compiled_there(model: ir.Model, why: str) -> None:
    found = model.opset_imports[""]
    result = ffc.compile(model, "fuse")
    assert result.model.opset_imports[""] == found
    steps = {step.text: step for step in result.report.steps}
    assert any(why in skipped for skipped in steps["opset"].skipped)
    assert {"linear", "norm"} <= steps["fuse"].changes.keys()
    assert result.report.oldest_onnxruntime != "1.23"
    ids = {"ids": np.arange(6).reshape(2, 3)}
    assert difference(run_stock(model, ids), run_stock(result.model, ids)) < 1e-5


X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


def of_one_operator(op_type: str, opset: int, *shape: int | str, constants: Any = (), **attributes: Any) -> ir.Model:
    draft = Draft()
    node = draft.op.node(op_type, draft.input("x", *shape), *constants, **attributes)
    return draft.model({"y": (node, [f"n{axis}" for axis in range(4)])}, opset=opset)


def assert_converted(model: ir.Model, x: np.ndarray = X, *passes: str) -> ir.Model:
    after = run_passes(model, "opset", *passes)
    assert after.opset_imports[""] == 23
    assert difference(run_stock(model, {"x": x}), run_stock(after, {"x": x})) < 1e-6
    return after


@pytest.mark.parametrize("opset", [7, 12])
@pytest.mark.parametrize("axis", [None, 2, 3])
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_means_what_it_meant_up_to_opset_12_and_is_written_plainly_where_it_can_be(
    name: str, axis: int | None, opset: int
) -> None:
    given = {} if axis is None else {"axis": axis}
    dims: tuple[int | str, ...] = ("batch", 3, "n2", 5)
    after = assert_converted(of_one_operator(name, opset, *dims, **given), X, "clean")
    assert count(after, "Reshape", "Flatten") == (0 if axis == 3 else 2)


@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 1, 1), 1), ((2, 1, 5, 1), 1), ((1, 1, 1, 6), 0)])
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
def test_axes_of_size_1_do_not_matter(name: str, shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    after = assert_converted(of_one_operator(name, 11, *shape, axis=axis), x, "clean")
    assert [node.op_type for node in after.graph] == [name]


def test_hardmax_within_a_branch_is_converted_too() -> None:
    draft = Draft()
    x = draft.input("x", 2, 3, 4, 5)
    branches = {}
    for name, op_type in (("then_branch", "Hardmax"), ("else_branch", "Relu")):
        inner = Draft()
        value = inner.op.node(op_type, x, **({"axis": 1} if op_type == "Hardmax" else {}))
        value.name, value.type, value.shape = f"{name}.out", ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3, 4, 5])
        branches[name] = ir.Graph([], [value], nodes=inner.op.nodes, name=name)
    above = draft.op.Greater(draft.op.ReduceMax(x, keepdims=0), np.float32(-99))
    model = draft.model({"y": (draft.op.If(above, **branches), [2, 3, 4, 5])}, opset=11)
    after = run_passes(model, "opset")
    assert difference(run_stock(model, {"x": X}), run_stock(after, {"x": X})) == 0


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 1.3, 2.7), (1, 1, 0.3, 0.7)])
@pytest.mark.parametrize("opset", [9, 10])
def test_resize_means_what_it_meant_up_to_opset_10(opset: int, scales: tuple[float, ...], mode: str) -> None:
    if opset == 9 and min(scales) < 1:
        pytest.skip("Upsample only makes larger")
    name, x = "Upsample" if opset == 9 else "Resize", np.random.default_rng(0).standard_normal((1, 2, 11, 13))
    model = of_one_operator(name, opset, 1, 2, 11, 13, constants=[np.asarray(scales, np.float32)], mode=mode)
    assert_converted(model, x.astype(np.float32))


def test_scan_along_the_rows_of_a_batch_is_refused() -> None:
    scan = """
        <ir_version: 3, opset_import: ["" : 8]> g (float[1,2] start, float[1,3,2] x) => (float[1,2] y, float[1,3,2] z) {
            y, z = Scan ("", start, x) <num_scan_inputs: int = 1, body: graph = b (float[2] sum, float[2] next) => (float[2] now, float[2] out)
            { now = Add (sum, next) out = Identity (now) }>
        }"""
    with pytest.raises(ffc.CannotApplyError, match=r"Scan .*of opset 8 goes through each row of a batch"):
        ffc.compile(ir.from_proto(onnx.parser.parse_model(scan)), "opset")


def test_a_model_of_other_domains_alone_need_not_import_standard_operators(tmp_path: Path) -> None:
    binarizer = """
        <ir_version: 6, opset_import: ["ai.onnx.ml" : 1]> g (float[n,3] x) => (float[n,3] y)
        { y = ai.onnx.ml.Binarizer <threshold: float = 1.0> (x) }"""
    onnx.save(onnx.parser.parse_model(binarizer), tmp_path / "m.onnx")
    after = ffc.compile(tmp_path / "m.onnx", "fuse").model
    assert after.opset_imports == {"ai.onnx.ml": 1, "": 23}
    assert np.array_equal(run_stock(after, {"x": X[0, 0, :3, :3]})["y"], X[0, 0, :3, :3] > 1)


def dropout(training: bool | None) -> ir.Model:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    mode = draft.input("mode", dtype=ir.DataType.BOOL) if training is None else np.bool_(training)
    return draft.model({"y": (draft.op.Relu(draft.op.Dropout(x, 0.5, mode)), ["batch", 4])})


@pytest.mark.parametrize("training", [True, None])
def test_live_dropout_is_refused(training: bool | None) -> None:
    with pytest.raises(ffc.CannotApplyError, match=r"Dropout .* draws random numbers; export the model in evaluation mode"):
        run_passes(dropout(training), "opset")


def test_dropout_that_is_off_is_let_through() -> None:
    x = np.ones((2, 4), np.float32)
    assert np.array_equal(run_stock(run_passes(dropout(False), "opset"), {"x": x})["y"], x)
    assert count(run_passes(dropout(False), "opset", "clean"), "Dropout") == 0


@pytest.mark.parametrize("name", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_operators_that_draw_are_refused(name: str) -> None:
    draft = Draft()
    result = draft.op.node(name, draft.input("x", "batch", 4))
    with pytest.raises(ffc.CannotApplyError, match=f"{name} .*draws random numbers"):
        run_passes(draft.model({"y": (result, ["batch", 4])}), "opset")
