"""Encoders that onnxruntime's tools quantised are taken back to floats, and then fused and quantised as any other."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

import ffc
from ffc.graph.blocks.prequantised import rounded_nodes
from tests.graphs import Draft, Stock, difference, encoder, feeds, masks, run_passes
from tests.kernels import needs_quantize_linear

INT8, UINT8 = QuantType.QInt8, QuantType.QUInt8

DYNAMIC: Mapping[str, Mapping[str, Any]] = {
    "int8": {"weight_type": INT8},
    "int8 by column": {"weight_type": INT8, "per_channel": True},
    "uint8": {"weight_type": UINT8},
    "uint8 by column": {"weight_type": UINT8, "per_channel": True},
    "reduced range": {"weight_type": INT8, "per_channel": True, "reduce_range": True},
}
STATIC: Mapping[str, Mapping[str, Any]] = {
    "pairs": {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": UINT8},
    "pairs, int8": {"quant_format": QuantFormat.QDQ, "activation_type": INT8},
    "pairs, products": {"quant_format": QuantFormat.QDQ, "op_types_to_quantize": ["MatMul", "Gemm"]},
    "operators": {"quant_format": QuantFormat.QOperator, "activation_type": UINT8},
}
_STATIC = [pytest.param(kind, marks=needs_quantize_linear) for kind in (*STATIC, "saved pairs", "saved operators")]
KINDS = [*DYNAMIC, "4 bits", "saved int8", "saved uint8", *_STATIC]
"""How a model was quantised; onnxruntime's optimizer has been over those that were saved."""


class Rows(CalibrationDataReader):
    """A few rows for a static quantiser to see, padding among them."""

    def __init__(self) -> None:
        self._rows = [feeds(mask, seed=seed) for seed in range(4) for mask in masks(3, 7).values()]

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return self._rows.pop() if self._rows else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantised")


def plain(folder: Path) -> Path:
    """Write the small encoder, with a mask that a step can hold, and return its path."""
    path = folder / "plain.onnx"
    if not path.exists():
        model = encoder()
        for value in model.graph.initializers.values():
            array = value.const_value.numpy() if value.const_value is not None else np.zeros(1)
            if array.size == 1 and array.min() < -1e30:
                value.const_value = ir.Tensor(np.array(-30, np.float32).reshape(array.shape), name=value.name)
        for node in model.graph:
            for attribute in node.attributes.values():
                if attribute.name == "value" and float(np.min(attribute.as_tensor().numpy())) < -1e30:
                    node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(np.array(-30, np.float32)))
        ffc.save(model, path)
    return path


def quantised(kind: str, folder: Path) -> Path:
    """Quantise the small encoder with onnxruntime's own tools, once for all tests, and return the file."""
    path = folder / f"{kind}.onnx"
    if path.exists():
        return path
    if kind in DYNAMIC:
        quantize_dynamic(plain(folder), path, **DYNAMIC[kind])
    elif kind in STATIC:
        quantize_static(plain(folder), path, Rows(), **STATIC[kind])
    elif kind == "4 bits":
        made = MatMulNBitsQuantizer(str(plain(folder)), block_size=16, is_symmetric=False)
        made.process()
        made.model.save_model_to_file(str(path))
    else:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(str(quantised(kind.removeprefix("saved "), folder)), options, providers=["CPUExecutionProvider"])
    return path


@functools.cache
def dequantised(path: Path) -> ir.Model:
    """Return the model of a file after the passes up to `fuse`, not proved."""
    return run_passes(ffc.load(path), "opset", "dequantize", "clean", "fuse")


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_is_whole_again(kind: str, folder: Path) -> None:
    path = quantised(kind, folder)
    assert list(rounded_nodes(ffc.load(path))), "nothing to take back"
    result = ffc.compile(path, "dequantize,fuse,int8")
    fused, int8 = (step.changes for step in result.report.steps if step.text in ("fuse", "int8"))
    assert fused.items() >= {"attention": 1, "linear-gelu": 1, "embed": 1}.items()
    assert int8 == {"q": 1, "k": 1, "v": 1, "attn_out": 1, "ffn_in": 1, "ffn_out": 1, "head": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_nearer_to_what_was_quantised_than_it_came(kind: str, folder: Path) -> None:
    path = quantised(kind, folder)
    assert not list(rounded_nodes(dequantised(path)))
    original, came, result = Stock(plain(folder)), Stock(path), Stock(dequantised(path))
    away: dict[str, list[float]] = {"came": [], "now": []}
    for mask in masks(3, 7).values():
        inputs = feeds(mask, seed=99)
        wanted = original(inputs)
        away["came"].append(difference(wanted, came(inputs), mask))
        away["now"].append(difference(wanted, result(inputs), mask))
    assert max(away["now"]) <= 1.05 * max(away["came"]) + 1e-6


def test_weights_are_what_the_file_says(folder: Path) -> None:
    path = quantised("uint8 by column", folder)
    graph = ffc.load(path).graph
    product = next(node for node in graph if node.op_type == "MatMulInteger")
    stored, zero = (value.const_value.numpy().astype(np.float32) for value in (product.inputs[1], product.inputs[3]))
    scale = graph.initializers[product.inputs[1].name.replace("_quantized", "_scale")].const_value.numpy()
    weights = [v.const_value.numpy() for v in run_passes(ffc.load(path), "opset", "dequantize").graph.initializers.values()]
    assert any(array.shape == stored.shape and np.array_equal(array, (stored - zero) * scale) for array in weights)


def test_int8_keeps_the_steps_of_weights(folder: Path) -> None:
    path = quantised("reduced range", folder)  # half of the range, so that they fit on every processor
    wanted = {tensor.tobytes() for value in ffc.load(path).graph.initializers.values() if (tensor := stored(value)) is not None}
    result = ffc.compile(path, "dequantize,fuse,int8")
    found = [tensor for value in result.model.graph.initializers.values() if (tensor := stored(value)) is not None]
    assert len(found) == 7
    assert all(tensor.tobytes() in wanted for tensor in found)
    taken, step = (step for step in result.report.steps if step.text in ("dequantize", "int8"))
    assert "3 embedding tables are floats now; int8 stores them as int8 again" in taken.notes
    assert "weights were on steps already: 100% of their columns keep them, exactly" in step.notes


def stored(value: ir.Value) -> np.ndarray | None:
    """Return the weight of a product that is stored as int8."""
    array = value.const_value.numpy() if value.const_value is not None else np.zeros(0)
    return array if array.dtype == np.int8 and array.ndim == 2 and array.size else None


@needs_quantize_linear
def test_a_mask_that_was_calibrated_without_padding_hides_again(folder: Path) -> None:
    class Unpadded(Rows):
        def __init__(self) -> None:
            self._rows = [feeds(masks(1, 7)["full"], seed=seed) for seed in range(4)]

    path = folder / "unpadded.onnx"
    quantize_static(plain(folder), path, Unpadded(), quant_format=QuantFormat.QDQ, activation_type=UINT8)
    result = ffc.compile(path, "dequantize,fuse")
    step = next(step for step in result.report.steps if step.text == "dequantize")
    assert any("as if no token was hidden" in note for note in step.notes)
    mask = masks(3, 7)["right"]
    inputs = feeds(mask)
    assert difference(Stock(plain(folder))(inputs), Stock(result.model)(inputs), mask) < 0.3


@needs_quantize_linear
def test_the_report_says_which_is_nearer_to_the_float32_model(folder: Path) -> None:
    options = {"dequantize.float32": str(plain(folder))}
    result = ffc.compile(quantised("pairs", folder), "dequantize", sets=options)
    notes = [note for step in result.report.steps for note in step.notes]
    assert any(note.startswith("mean cosine with plain.onnx on made inputs: 0.") and note.endswith("this one is nearer") for note in notes)
    rows = {name: array for name, array in feeds(masks(4, 6)["right"]).items()}
    result = ffc.compile(quantised("pairs", folder), "dequantize", sets=options, data=rows)
    assert any("on the rows given" in note for step in result.report.steps for note in step.notes)


def test_a_float32_model_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    ffc.save(encoder(pooler=False), other)
    with pytest.raises(ffc.InputError, match="has the outputs last_hidden_state, this model has last_hidden_state, pooler"):
        ffc.compile(quantised("int8", folder), "dequantize", sets={"dequantize.float32": str(other)})


def test_the_budget_holds_against_the_model_as_it_came(folder: Path) -> None:
    with pytest.raises(ffc.GateError, match=r"pass 'dequantize': mean cosine 0\.\d+ is below the budget of 1 .*; dequantize\{cosine=...\}"):
        ffc.compile(quantised("int8", folder), "dequantize{cosine=1}")


@pytest.mark.parametrize("passes", ["fuse", "int8"])
def test_other_passes_say_what_to_write(passes: str, folder: Path) -> None:
    result = ffc.compile(quantised("int8", folder), passes)
    step = next(step for step in result.report.steps if step.text == passes)
    assert not step.changes
    assert "put dequantize before" in step.skipped[0]


def test_a_model_in_floats_is_left_as_it_is() -> None:
    result = ffc.compile(encoder(), "dequantize,fuse")
    step = next(step for step in result.report.steps if step.text == "dequantize")
    assert not step.changes
    assert step.skipped == ["the model: nothing in it is quantised"]


def test_it_comes_before_int8() -> None:
    with pytest.raises(ffc.CannotApplyError, match="'dequantize' comes after 'int8'"):
        ffc.compile(encoder(), "int8,dequantize")


@needs_quantize_linear
def test_what_stays_is_named_with_the_reason() -> None:
    draft = Draft()
    x = draft.input("x", "batch", 8)
    rounded = draft.op.QuantizeLinear(x, np.float32(0.5), np.uint8(3))
    result = ffc.compile(draft.model({"y": (draft.op.DequantizeLinear(rounded, np.float32(0.25), np.uint8(3)), ["batch", 8])}), "dequantize")
    step = next(step for step in result.report.steps if step.text == "dequantize")
    assert not step.changes
    assert any("it is read by another scale than it was rounded by" in line for line in step.skipped)
    assert any("2 operators are quantised still" in note for note in step.notes)
