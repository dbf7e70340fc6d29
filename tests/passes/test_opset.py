"""The pass `opset` brings models to opset 23 with equal outputs, and refuses what it cannot convert or what is random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from tests import encoders
from tests.graphs import Draft, count, difference, encoder, feeds, masks, run_passes, run_stock


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


def test_a_newer_opset_is_taken_at_its_word_where_23_knows_all_of_it() -> None:
    model = encoder(opset=23)
    model.opset_imports[""] = 24
    after = run_passes(model, "opset")
    assert after.opset_imports[""] == 23
    inputs = feeds(masks(2, 7)["holed"])
    assert difference(run_stock(model, inputs), run_stock(after, inputs), inputs["attention_mask"]) == 0


@pytest.mark.parametrize(
    ("op_type", "attributes", "reason"),
    [
        ("Swish", {}, "for Swish .* opset 23 has no such operator"),
        ("Cast", {"to": 1, "round_mode": "up"}, "for Cast .* opset 23 does not know its round_mode"),
    ],
)
def test_what_is_newer_than_23_is_refused(op_type: str, attributes: dict[str, Any], reason: str) -> None:
    draft = Draft()
    result = draft.op.node(op_type, draft.input("x", "batch", 4), **attributes)
    model = draft.model({"y": (result, ["batch", 4])}, opset=24)
    with pytest.raises(ffc.CannotApplyError, match=f"opset 24, and {reason}; export it with opset_version=23"):
        run_passes(model, "opset")


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
