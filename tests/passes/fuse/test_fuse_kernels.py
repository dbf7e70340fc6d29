"""Graphs that onnxruntime or its tools optimised before: float kernels are read as blocks, others are left alone, all stay right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import ffc
from tests.graphs import (
    LIBRARY,
    Draft,
    Stock,
    count,
    difference,
    encoder,
    feeds,
    masks,
    run_pass,
    run_passes,
    run_stock,
)
from tests.kernels import needs_quantize_linear

WIDTH, HEADS, UNITS, VOCABULARY, POSITIONS = 12, 3, 20, 30, 24
FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64


def fused(model: ir.Model) -> ir.Model:
    return run_passes(model, "opset", "clean", "fuse")


def calls(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == "ffc")


def kernels(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == "com.microsoft")


def finish(draft: Draft, outputs: Any) -> ir.Model:
    model = draft.model(outputs)
    model.opset_imports["com.microsoft"] = 1
    return model


# An encoder as onnxruntime.transformers.optimizer writes it


@dataclass(frozen=True)
class Optimised:
    """How an optimised encoder is written.

    Attributes:
        mask: What Attention is told of padding: "ones" [B, S], "lengths" counted by EmbedLayerNormalization, or "none".
        attention: The operator: "Attention", or "MultiHeadAttention" with its bias.
        gelu: The operator of the activation.
        types: Whether tokens have types.
        places: Whether positions are given.
        bias: Whether SkipLayerNormalization adds the bias of the product before it.
        low: ``mask_filter_value``.
    """

    mask: str = "ones"
    attention: str = "Attention"
    gelu: str = "BiasGelu"
    types: bool = True
    places: bool = False
    bias: bool = True
    low: float | None = None


def optimised(form: Optimised, layers: int = 2) -> ir.Model:
    """Return an encoder with inputs ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 [batch, seq]."""
    draft = Draft()
    op = draft.op
    ids, mask, types = (
        draft.input(name, "batch", "seq", dtype=INT64) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    ids, mask, types = (op.Cast(value, to=INT32.value) for value in (ids, mask, types))
    word, place = draft.normal("word", VOCABULARY, WIDTH), draft.normal("position", POSITIONS, WIDTH)
    kinds = draft.normal("type", 2, WIDTH) if form.types else None
    gamma, beta = draft.normal("gamma", WIDTH, mean=1.0), draft.normal("beta", WIDTH)
    counted = mask if form.mask == "lengths" else None
    places = op.Cast(op.Sub(op.CumSum(op.Add(op.Mul(ids, np.int32(0)), np.int32(1)), np.int64(1)), np.int32(1)), to=INT32.value)
    x, lengths = op.ms.EmbedLayerNormalization(
        ids, types if form.types else None, word, place, kinds, gamma, beta, counted, places if form.places else None, outputs=2, epsilon=1e-5
    )
    padding = {"ones": mask, "lengths": lengths, "none": None}[form.mask]
    for layer in range(layers):
        x = _optimised_layer(draft, f"layer{layer}", x, padding, form)
    return finish(draft, {"last_hidden_state": (op.Identity(x), ["batch", "seq", WIDTH])})


def _optimised_layer(draft: Draft, name: str, x: Any, mask: Any, form: Optimised) -> Any:
    op = draft.op

    def parameters(norm: str) -> tuple[Any, Any]:
        return draft.normal(f"{name}.{norm}.gamma", WIDTH, mean=1.0), draft.normal(f"{name}.{norm}.beta", WIDTH)

    weight, bias = draft.normal(f"{name}.qkv", WIDTH, 3 * WIDTH), draft.normal(f"{name}.qkv.bias", 3 * WIDTH)
    given: dict[str, Any] = {"num_heads": HEADS, "mask_filter_value": form.low}
    if form.attention == "Attention":
        context = op.ms.Attention(x, weight, bias, mask, **given)
    else:
        q, k, v = (op.MatMul(x, draft.normal(f"{name}.{role}", WIDTH, WIDTH)) for role in "qkv")
        context = op.ms.MultiHeadAttention(q, k, v, bias, mask, **given)
    x = _skip_norm(draft, f"{name}.out", form, context, x, WIDTH, parameters("norm1"))
    wide = op.MatMul(x, draft.normal(f"{name}.ffn_in", WIDTH, UNITS))
    wide_bias = draft.normal(f"{name}.ffn_in.bias", UNITS)
    wide = getattr(op.ms, form.gelu)(wide, wide_bias) if form.gelu != "Gelu" else op.ms.Gelu(op.Add(wide, wide_bias))
    return _skip_norm(draft, f"{name}.ffn_out", form, wide, x, UNITS, parameters("norm2"))


def _skip_norm(draft: Draft, name: str, form: Optimised, x: Any, skip: Any, inner: int, parameters: tuple[Any, Any]) -> Any:
    op = draft.op
    product, bias = op.MatMul(x, draft.normal(name, inner, WIDTH)), draft.normal(f"{name}.bias", WIDTH)
    if form.bias:
        return op.ms.SkipLayerNormalization(product, skip, *parameters, bias, epsilon=1e-5)
    return op.ms.SkipLayerNormalization(op.Add(product, bias), skip, *parameters, epsilon=1e-5)


FORMS = [
    Optimised(),
    Optimised(mask="lengths"),
    Optimised(mask="none", gelu="FastGelu"),
    Optimised(attention="MultiHeadAttention", gelu="Gelu"),
    Optimised(attention="MultiHeadAttention", mask="lengths", low=-5.0),
    Optimised(bias=False),
    Optimised(types=False, places=True, low=-3.0),
    Optimised(types=False, mask="lengths"),
    Optimised(places=True, mask="none"),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_optimised_encoder_becomes_calls_and_stays_equal_on_every_mask(form: Optimised) -> None:
    model = optimised(form)
    after = fused(model)
    assert not kernels(after)
    found = calls(after)
    assert found["AttentionMasked" if form.mask != "none" else "Attention"] == 2
    assert found["LinearGelu"] == 2
    assert found["AddNorm"] + found["Embed"] + found["Norm"] == 5
    before, result = Stock(model), Stock(after)
    for batch, length in ((1, 1), (2, 5), (3, 9)):
        for mask in masks(batch, length).values():
            inputs = feeds(mask)
            # At every token: what the kernels compute for padding is kept too, since nothing says it is padding.
            assert difference(before(inputs), result(inputs)) < 1e-5


@pytest.mark.parametrize("passes", ["fuse", "fuse,int8"])
def test_a_whole_compile_takes_an_optimised_encoder(passes: str, tmp_path: Path) -> None:
    path = tmp_path / "optimised.onnx"
    ffc.save(optimised(Optimised()), path)
    result = ffc.compile(path, passes, out=tmp_path / "out.onnx")
    assert result.report.verdict is not None and result.report.verdict.cosine > 0.99
    assert count(result.model, "Attention") == 2
    assert not {node.op_type for node in result.model.graph if node.domain} & {"Attention", "SkipLayerNormalization", "BiasGelu"}


def test_an_optimised_encoder_compiles_to_a_portable_one() -> None:
    result = ffc.compile(optimised(Optimised()), "fuse", target="portable")
    assert not any(node.domain for node in result.model.graph)


def test_kernels_that_are_not_read_are_refused_politely_by_the_portable_target() -> None:
    with pytest.raises(ffc.CannotApplyError, match=r"com\.microsoft\.\w+ .* is no standard operator"):
        ffc.compile(optimised(Optimised()), "clean", target="portable")


# Kernels one by one, in the forms of their schemas


def attention_kernel(
    batch: int | str, tokens: int | str, *, mask: str = "none", added: str = "none", sizes: tuple[int, int, int] = (12, 12, 12), **attributes: Any
) -> ir.Model:  # fmt: skip
    """Return a model of one ``Attention``; `mask` and `added` say which inputs there are, by their axes."""
    draft = Draft()
    x = draft.input("x", batch, tokens, WIDTH)
    shapes: dict[str, tuple[int | str, ...]] = {
        "B": (batch,), "2B": (6,), "BS": (batch, tokens), "BSS": (batch, tokens, tokens),
        "B1SS": (batch, 1, tokens, tokens), "1HSS": (1, HEADS, tokens, tokens), "BHSS": (batch, HEADS, tokens, tokens),
    }  # fmt: skip
    padding = None if mask == "none" else draft.input("mask", *shapes[mask], dtype=INT32)
    bias = None if added == "none" else draft.input("added", *shapes[added])
    weight, vector = draft.normal("w", WIDTH, sum(sizes)), draft.normal("b", sum(sizes))
    if sizes != (12, 12, 12):
        attributes["qkv_hidden_sizes"] = list(sizes)
    y = draft.op.ms.Attention(x, weight, vector, padding, None, bias, num_heads=HEADS, **attributes)
    return finish(draft, {"y": (y, [batch, tokens, sizes[2]])})


def random_feeds(model: ir.Model, batch: int, tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(seed), {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.name is not None
        shape = [dim if isinstance(dim, int) else {"batch": batch, "seq": tokens}[str(dim)] for dim in value.shape]
        ones = len(shape) > 1
        integers = random.integers(0, 2, shape, np.int32) if ones else random.integers(1, tokens + 1, shape, np.int32)
        found[value.name] = integers if value.dtype == INT32 else random.standard_normal(shape).astype(np.float32)
    return found


READ: list[dict[str, Any]] = [
    {},
    {"mask": "BS"},
    {"mask": "B"},
    {"mask": "BSS"},
    {"added": "B1SS"},
    {"added": "1HSS", "mask": "BS"},
    {"added": "BHSS", "mask": "B"},
    {"mask": "BS", "mask_filter_value": -2.0, "scale": 0.3},
    {"mask": "BS", "unidirectional": 0, "do_rotary": 0, "scale": 0.0},
    {"sizes": (12, 12, 24)},
    {"sizes": (6, 6, 12), "mask": "BS"},
]


@pytest.mark.parametrize("form", READ, ids=str)
def test_attention_of_onnxruntime_is_read(form: dict[str, Any]) -> None:
    model = attention_kernel("batch", "seq", **form)
    after = fused(model)
    assert not kernels(after)
    assert calls(after)["Attention"] + calls(after)["AttentionMasked"] == 1
    for batch, tokens in ((1, 1), (2, 5), (3, 4)):
        inputs = random_feeds(model, batch, tokens)
        assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


LEFT: list[tuple[dict[str, Any], str]] = [
    ({"unidirectional": 1}, "its attribute unidirectional is set"),
    ({"mask": "2B"}, "its mask of 1 axes is of a form that is not read"),
]


@pytest.mark.parametrize(("form", "why"), LEFT, ids=str)
def test_attention_of_onnxruntime_in_other_forms_is_left_alone_with_the_reason(form: dict[str, Any], why: str) -> None:
    model = run_passes(attention_kernel("batch", "seq", **form), "opset", "clean")
    after = model.clone()
    log = run_pass(LIBRARY["fuse"](), after)
    assert kernels(after) == {"Attention": 1}
    assert any(why in miss.why for miss in log.misses)
    inputs = random_feeds(model, 3, 4)
    assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-6


def skip_norm_model(*, extra: int = 0, beta: bool = True, bias: bool = False, skip: tuple[int | str, ...] = ("batch", "seq", WIDTH)) -> ir.Model:
    """Return a model of one ``SkipLayerNormalization``; `extra` is the further output that is one of the model too."""
    draft = Draft()
    x, other = draft.input("x", "batch", "seq", WIDTH), draft.input("skip", *skip)
    shift, vector = draft.normal("beta", WIDTH) if beta else None, draft.normal("bias", WIDTH) if bias else None
    found = draft.op.ms.SkipLayerNormalization(x, other, draft.normal("gamma", WIDTH, mean=1.0), shift, vector, outputs=4, epsilon=1e-3)
    outputs = {"y": (found[0], ["batch", "seq", WIDTH])}
    if extra:
        outputs["sum"] = (found[extra], ["batch", "seq", WIDTH])
    return finish(draft, outputs)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({}, "AddNorm"),
        ({"bias": True}, "AddNorm"),
        ({"beta": False, "bias": True}, "AddNorm"),
        ({"extra": 3}, "Norm"),
        ({"extra": 3, "bias": True}, "Norm"),
        ({"skip": (1, "seq", WIDTH)}, "Norm"),
    ],
    ids=str,
)
def test_skip_layer_normalization_is_read(form: dict[str, Any], expected: str) -> None:
    model = skip_norm_model(**form)
    after = fused(model)
    assert not kernels(after) and calls(after) == {expected: 1}
    for batch, tokens in ((1, 1), (2, 5)):
        inputs = random_feeds(model, batch, tokens)
        assert difference(run_stock(model, inputs), run_stock(after, inputs)) < 1e-5


# Real ones


def saved_by_onnxruntime(model: ir.Model, level: ort.GraphOptimizationLevel, path: Path) -> Path:
    options = ort.SessionOptions()
    options.graph_optimization_level, options.optimized_model_filepath, options.log_severity_level = level, str(path), 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return path


LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("opset", [20, 22])
def test_what_a_session_saved_at_any_level_is_fused_whole(level: str, opset: int, tmp_path: Path) -> None:
    saved = ffc.load(saved_by_onnxruntime(encoder(layers=2, opset=opset), LEVELS[level], tmp_path / "saved.onnx"))
    after = fused(saved)
    found = calls(after)
    assert (found["AttentionMasked"], found["LinearGelu"], found["AddNorm"], found["Embed"]) == (2, 2, 4, 1)
    before, result = Stock(encoder(layers=2, opset=opset)), Stock(after)
    for mask in masks(3, 7).values():
        inputs = feeds(mask)
        assert difference(before(inputs), result(inputs), mask) < 1e-4


# Quantised before


class Rows(CalibrationDataReader):
    """A few rows for a static quantiser to see."""

    def __init__(self) -> None:
        self._rows = [feeds(mask, seed=seed) for seed in range(2) for mask in masks(2, 6).values()]

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return self._rows.pop() if self._rows else None


def quantised(kind: str, folder: Path) -> Path:
    """Quantise a small encoder with onnxruntime's own tools and return the file."""
    plain, path = folder / "plain.onnx", folder / f"{kind}.onnx"
    ffc.save(encoder(layers=1, pooler=False), plain)
    if kind == "dynamic":
        quantize_dynamic(plain, path, weight_type=QuantType.QInt8)
    elif kind == "fused dynamic":
        saved = saved_by_onnxruntime(ffc.load(quantised("dynamic", folder)), LEVELS["extended"], path)
        assert kernels(ffc.load(saved))["DynamicQuantizeMatMul"]
    else:
        form = QuantFormat.QDQ if kind == "qdq" else QuantFormat.QOperator
        quantize_static(plain, path, Rows(), quant_format=form, op_types_to_quantize=["MatMul"])
    return path


@pytest.mark.parametrize("passes", ["fuse", "int8", "fuse,int8"])
@pytest.mark.parametrize(
    "kind", ["dynamic", "fused dynamic", *(pytest.param(kind, marks=needs_quantize_linear) for kind in ("qdq", "operators"))]
)
def test_a_model_quantised_before_is_left_alone_with_the_reason(kind: str, passes: str, tmp_path: Path) -> None:
    path = quantised(kind, tmp_path)
    result = ffc.compile(path, passes, out=tmp_path / "out.onnx")
    steps = [step for step in result.report.steps if step.text in passes]
    assert len(steps) == len(passes.split(","))
    for step in steps:
        assert not step.changes
        assert len(step.skipped) == 1 and "it is quantised already (" in step.skipped[0]
    for mask in masks(2, 6).values():
        inputs = feeds(mask)
        assert difference(run_stock(path, inputs), run_stock(tmp_path / "out.onnx", inputs)) == 0
