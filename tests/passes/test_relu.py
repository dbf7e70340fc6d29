"""The pass `relu` takes ReLU for every GELU, within a budget against the model before or against what was trained with ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc import cli
from tests.graphs import LIBRARY, Draft, Stock, count, difference, encoder, feeds, masks, run_pass, run_passes

GELUS = ("BiasGelu", "FastGelu", "Gelu", "LinearGelu", "QuickGelu")


def trained(*, seed: int = 0, pooler: bool = True) -> ir.Model:
    """Return the small encoder as it would be had it been trained with ReLU."""
    model = encoder(seed=seed, pooler=pooler)
    for node in model.graph:
        if node.op_type == "Gelu":
            node.op_type = "Relu"
    return model


def saved(model: ir.Model, path: Path) -> Path:
    ffc.save(model, path)
    return path


def rows(model: ir.Model, path: Path, name: str = "logits", **changes: Any) -> Path:
    """Write rows for `model` with its first output as `name`; `changes` replace arrays, or drop them where None."""
    inputs = feeds(masks(20, 6)["right"])
    arrays: dict[str, Any] = {**inputs, name: next(iter(Stock(model)(inputs).values())), **changes}
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


def forms(op: Any, draft: Draft, x: Any) -> Sequence[Any]:
    """Return GELU of `x` [batch, 4] in every form, the fifth and sixth with a bias."""
    bias, weight = draft.normal("bias", 4), draft.normal("weight", 4, 4)
    halved = op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Div(x, 1.4142135381698608)), 1.0))
    alone = [op.Gelu(x), op.Gelu(x, approximate="tanh"), halved, op.ms.Gelu(x)]
    biased = [op.ms.BiasGelu(x, bias), op.ms.FastGelu(x, bias)]
    return [*alone, *biased, op.ms.FastGelu(x), op.ms.QuickGelu(x), op.Gelu(op.Add(op.MatMul(x, weight), bias))]


def test_every_form_of_gelu_becomes_relu() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 4)
    values = forms(draft.op, draft, x)
    model = draft.model({f"y{index}": (value, ["batch", 4]) for index, value in enumerate(values)})
    model.opset_imports["com.microsoft"] = 1
    arrays = {value.name: value.const_value.numpy() for value in draft.weights if value.const_value is not None}
    inputs = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    after = run_passes(model, "opset", "clean", "fuse", "relu")
    assert count(after, *GELUS) == 0
    found, biased = Stock(after)(inputs), inputs["x"] + arrays["bias"]
    product = inputs["x"] @ arrays["weight"] + arrays["bias"]
    expected = [*[inputs["x"]] * 4, biased, biased, inputs["x"], inputs["x"], product]
    for index, array in enumerate(expected):
        assert np.allclose(found[f"y{index}"], np.maximum(array, 0), atol=1e-6), index


def test_calls_of_products_become_calls_of_products() -> None:
    model = run_passes(encoder(layers=2), "opset", "clean", "fuse")
    log = run_pass(LIBRARY["relu"](), model)
    assert (count(model, "LinearRelu"), count(model, *GELUS)) == (2, 0)
    assert log.done == {"GELU": 2}


def test_it_reports_how_far_outputs_moved_and_refuses_beyond_its_budget(tmp_path: Path) -> None:
    report = ffc.compile(encoder(), "relu{cosine=0}").report
    (step,) = (step for step in report.steps if step.text.startswith("relu"))
    assert step.verdict is not None
    assert 0.5 < step.verdict.cosine < 0.9999
    with pytest.raises(ffc.GateError, match=r"pass 'relu': mean cosine 0\.\d+ is below the budget of 0.9999 on .*; train"):
        ffc.compile(encoder(), "relu{cosine=0.9999}", out=tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_refusal_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(encoder(), tmp_path / "model.onnx")
    assert cli.main(["compile", str(path), "--passes", "relu{cosine=0.9999}", "-o", str(tmp_path / "out.onnx")]) == 1
    assert "below the budget of 0.9999" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_that_was_trained_with_relu_is_what_the_result_is_held_against(tmp_path: Path) -> None:
    path = saved(trained(), tmp_path / "relu.onnx")
    result = ffc.compile(encoder(), f"relu{{trained={path} cosine=0.999999}},fuse")
    (step,) = (step for step in result.report.steps if step.text.startswith("relu"))
    assert step.verdict is not None
    assert (step.verdict.difference < 1e-5, step.verdict.contract) == (True, "cosine ≥ 0.999999 against relu.onnx")
    for mask in masks(3, 7).values():
        inputs = feeds(mask)
        assert difference(Stock(path)(inputs), Stock(result.model)(inputs), mask) < 1e-5


def test_outputs_of_the_trained_model_may_come_in_another_order(tmp_path: Path) -> None:
    other = trained()
    other.graph.outputs.reverse()
    ffc.compile(encoder(), f"relu{{trained={saved(other, tmp_path / 'relu.onnx')} cosine=0.999999}}")


def test_a_trained_model_with_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(trained(seed=1), tmp_path / "relu.onnx")
    with pytest.raises(ffc.GateError, match=r"pass 'relu': mean cosine .* below the budget of 0.95 against relu.onnx on"):
        ffc.compile(encoder(), f"relu{{trained={path}}}")


def test_a_trained_model_with_other_outputs_is_refused(tmp_path: Path) -> None:
    path = saved(trained(pooler=False), tmp_path / "relu.onnx")
    with pytest.raises(ffc.InputError, match=r"has the outputs last_hidden_state, this model has last_hidden_state, pooler"):
        ffc.compile(encoder(), f"relu{{trained={path}}}")


@pytest.mark.parametrize("name", ["logits", "last_hidden_state"])
def test_rows_with_logits_are_what_the_result_is_held_against(name: str, tmp_path: Path) -> None:
    path = rows(trained(pooler=False), tmp_path / "rows.npz", name)
    report = ffc.compile(encoder(pooler=False), f"relu{{trained={path} cosine=0.999999}}").report
    (step,) = (step for step in report.steps if step.text.startswith("relu"))
    assert step.verdict is not None
    assert (step.verdict.probes, step.verdict.difference < 1e-5) == (2, True), "20 rows are two batches"
    assert step.verdict.contract == "cosine ≥ 0.999999 against rows.npz"


def test_rows_may_hold_one_of_several_outputs(tmp_path: Path) -> None:
    path = rows(trained(), tmp_path / "rows.npz", "last_hidden_state")
    ffc.compile(encoder(), f"relu{{trained={path} cosine=0.999999}}")


def test_rows_of_another_model_are_refused(tmp_path: Path) -> None:
    path = rows(trained(seed=1, pooler=False), tmp_path / "rows.npz")
    with pytest.raises(ffc.GateError, match=r"below the budget of 0.95 against rows.npz on output 'last_hidden_state' of probe"):
        ffc.compile(encoder(pooler=False), f"relu{{trained={path}}}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": None}, r"has no array of outputs, 'logits' or one of last_hidden_state; it has input_ids, attention_mask"),
        ({"attention_mask": None}, r"the data has no array 'attention_mask', which the model takes"),
        ({"logits": np.zeros((20, 3), np.float32)}, r"the array 'last_hidden_state' is \[20, 3\], the model gives \[20, 6, 12\]"),
        ({"logits": np.zeros((19, 6, 12), np.float32)}, r"is \[19, 6, 12\], the model gives \[20, 6, 12\] on these rows"),
        ({"logits": np.full((20, 6, 12), np.nan)}, r"the array 'last_hidden_state' must hold finite numbers"),
        ({"logits": np.full((20, 6, 12), "a")}, r"the array 'last_hidden_state' must hold finite numbers"),
        ({"input_ids": np.zeros((3, 6), np.int64)}, r"arrays differ in rows, or have none: .*; give as many of each"),
    ],
)
def test_rows_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = rows(trained(pooler=False), tmp_path / "rows.npz", **changes)
    with pytest.raises(ffc.InputError, match=message) as caught:
        ffc.compile(encoder(pooler=False), f"relu{{trained={path}}}")
    assert "\n" not in str(caught.value)


def test_logits_of_a_model_with_several_outputs_must_be_named(tmp_path: Path) -> None:
    path = rows(trained(), tmp_path / "rows.npz")
    with pytest.raises(ffc.InputError, match=r"has 'logits', and the model gives last_hidden_state, pooler; name the array"):
        ffc.compile(encoder(), f"relu{{trained={path}}}")


@pytest.mark.parametrize("name", ["missing.npz", "missing.onnx", "broken.npz", "broken.onnx"])
def test_a_file_that_is_missing_or_broken_is_named(name: str, tmp_path: Path) -> None:
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"neither")
    with pytest.raises(ffc.InputError, match=name) as caught:
        ffc.compile(encoder(), f"relu{{trained={tmp_path / name}}}")
    assert "\n" not in str(caught.value)


def test_a_model_without_gelu_is_left_alone_with_the_reason() -> None:
    (step,) = (step for step in ffc.compile(trained(), "relu").report.steps if step.text.startswith("relu"))
    assert (step.changes, step.verdict) == ({}, None)
    assert step.skipped == ["feed-forward network of layer 0: its activation is Relu"]


@pytest.mark.parametrize("rounding", ["int8", "fp16"])
def test_it_is_refused_after_numbers_were_rounded(rounding: str) -> None:
    with pytest.raises(ffc.CannotApplyError, match=f"'relu' comes after '{rounding}' in the pipeline; put it before"):
        ffc.compile(encoder(), f"{rounding},relu")


@pytest.mark.parametrize("rounding", ["int8", "fp16"])
def test_what_rounds_after_it_is_held_against_the_model_with_relu(rounding: str) -> None:
    result = ffc.compile(encoder(), f"relu{{cosine=0.5}},{rounding}")
    assert count(result.model, *GELUS) == 0
    for mask in masks(3, 7).values():
        inputs = feeds(mask)
        assert difference(Stock(trained())(inputs), Stock(result.model)(inputs), mask) < 0.1
