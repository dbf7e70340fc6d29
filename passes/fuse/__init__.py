"""Replace the blocks of an encoder by calls of the ``ffc`` functions that stand for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor, Match, Rule, Sample, rules
from ffc.graph.blocks.attention_call import AttentionCalls
from ffc.graph.blocks.prequantised import reason_to_leave
from ffc.graph.dialect.trace import Program

from . import onnxruntime, survey


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


# GELU in the forms that exporters write


_INNER: dict[str, Program] = {
    # the normal distribution, as 1 + erf(x / sqrt 2)
    "erf-div": lambda op, x: op.Erf(op.Div(x, 1.4142135381698608)),
    "erf-mul": lambda op, x: op.Erf(op.Mul(x, 0.7071067690849304)),
    # and by its approximation, 1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))
    "tanh-pow": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044714998453855515))),
    "tanh-cube": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044714998453855515))),
    "tanh-cube-right": lambda op, x: _tanh(op, op.Add(x, op.Mul(op.Mul(x, op.Mul(x, x)), 0.044714998453855515))),
    "tanh-factored": lambda op, x: op.Tanh(
        op.Mul(op.Mul(x, 0.7978845834732056), op.Add(op.Mul(op.Mul(x, 0.044714998453855515), x), 1.0))
    ),
}

_HALF: dict[str, Program] = {
    "half-last": lambda op, x, y: op.Mul(op.Mul(x, y), 0.5),
    "half-first": lambda op, x, y: op.Mul(op.Mul(x, 0.5), y),
    "half-inside": lambda op, x, y: op.Mul(x, op.Mul(y, 0.5)),
}


def _tanh(op: Any, x: Any) -> Any:
    return op.Tanh(op.Mul(x, 0.7978845834732056))


def _gelu_form(inner: Program, half: Program) -> Program:
    def form(op: Any, x: Any) -> Any:
        return half(op, x, op.Add(inner(op, x), 1.0))

    return form


def _gelu(op: Any, x: Any) -> Any:
    return op.Gelu(x)


def _gelu_tanh(op: Any, x: Any) -> Any:
    return op.Gelu(x, approximate="tanh")


def _one_input(random: np.random.Generator) -> Iterator[Sample]:
    for shape in ((5,), (2, 3, 8)):
        yield Sample({"x": 3 * _normal(random, *shape)})


# Norms


def _norm_chain(op: Any, x: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, [-1]))
    variance = op.ReduceMean(op.Pow(centred, 2.0), [-1])
    return op.Add(op.Mul(op.Div(centred, op.Sqrt(op.Add(variance, epsilon))), gamma), beta)


def _norm_chain_square(op: Any, x: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, [-1]))
    variance = op.ReduceMean(op.Mul(centred, centred), [-1])
    return op.Add(op.Mul(op.Div(centred, op.Sqrt(op.Add(variance, epsilon))), gamma), beta)


def _layer_norm(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float, axis: int) -> Any:
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon, axis=axis)


def _layer_norm_no_bias(op: Any, x: Any, gamma: Any, *, epsilon: float, axis: int) -> Any:
    return op.LayerNormalization(x, gamma, epsilon=epsilon, axis=axis)


def _no_bias(match: Match) -> Mapping[str, Any]:
    return {"beta": np.zeros_like(match.array("gamma"))}


def _norm(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    return op.ffc.Norm(x, gamma, beta, epsilon=epsilon)


def _norm_of_sum(op: Any, x: Any, skip: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    return op.ffc.Norm(op.Add(x, skip), gamma, beta, epsilon=epsilon)


def _add_norm(op: Any, x: Any, skip: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    return op.ffc.AddNorm(x, skip, gamma, beta, epsilon=epsilon)


def _epsilon(match: Match) -> Mapping[str, Any]:
    return {"epsilon": float(match.array("epsilon").reshape(-1)[0])}


def _small_epsilon(match: Match) -> str | None:
    array = match.array("epsilon")
    return None if array.size == 1 and 0 < float(array.reshape(-1)[0]) < 1e-2 else "epsilon is not one small number"


def _over_last_axis(match: Match) -> str | None:
    if match.array("gamma").dtype != np.float32:
        return "it is not computed in float32"
    shape = match.editor.shapes.of(match.values["x"])
    vectors = [match.array(name) for name in ("gamma", "beta") if name in match.values]
    if shape is None or any(vector.shape != shape[-1:] for vector in vectors):
        return "gamma and beta are not as wide as the last axis"
    axis = match.attributes["axis"].as_int() if "axis" in match.attributes else -1
    return None if axis in (-1, len(shape) - 1) else f"it is taken over axis {axis} and those after it"


def _norm_samples(random: np.random.Generator) -> Iterator[Sample]:
    for width in (4, 33):
        gamma, beta = _normal(random, width), _normal(random, width)
        x = _normal(random, 2, 3, width)
        for axis in (-1, 2):
            yield Sample({"x": x}, {"gamma": gamma, "beta": beta}, attributes={"epsilon": 1e-5, "axis": axis})


def _norm_no_bias_samples(random: np.random.Generator) -> Iterator[Sample]:
    for sample in _norm_samples(random):
        yield Sample(sample.inputs, {"gamma": sample.constants["gamma"]}, sample.attributes)


def _norm_chain_samples(random: np.random.Generator) -> Iterator[Sample]:
    for width in (4, 33):
        constants = {"gamma": _normal(random, width), "beta": _normal(random, width)}
        yield Sample({"x": _normal(random, 2, 3, width)}, {**constants, "epsilon": np.full((), 1e-6, np.float32)})
        yield Sample(
            {"x": _normal(random, 2, 3, width)}, {**constants, "epsilon": np.full((), 0.5, np.float32)}, matches=False
        )


def _add_norm_samples(random: np.random.Generator) -> Iterator[Sample]:
    constants = {"gamma": _normal(random, 6), "beta": _normal(random, 6)}
    x, skip, attributes = _normal(random, 2, 3, 6), _normal(random, 2, 3, 6), {"epsilon": 1e-12}
    yield Sample({"x": x, "skip": skip}, constants, attributes)
    yield Sample({"x": x, "skip": skip[:, :1]}, constants, attributes, matches=False)


def _equal_shapes(match: Match) -> str | None:
    shapes = match.editor.shapes
    one, other = shapes.of(match.values["x"]), shapes.of(match.values["skip"])
    return None if one is not None and one == other else "the two summands differ in shape"


# Embeddings


def _lookups(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    total = op.Add(op.Add(op.Gather(word, ids), op.Gather(type_table, types)), op.Gather(position, positions))
    return op.ffc.Norm(total, gamma, beta, epsilon=epsilon)


def _embed(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    return op.ffc.Embed(ids, types, positions, word, type_table, position, gamma, beta, epsilon=epsilon)


def _tables(match: Match) -> str | None:
    flat = [name for name in ("word", "type_table", "position") if match.array(name).ndim != 2]
    return f"{flat[0]} is not a table of rows" if flat else None


def _embed_samples(random: np.random.Generator) -> Iterator[Sample]:
    sizes = {"word": 11, "type_table": 2, "position": 16}
    tables = {name: _normal(random, rows, 6) for name, rows in sizes.items()}
    constants = {**tables, "gamma": _normal(random, 6), "beta": _normal(random, 6)}
    for batch, tokens in ((1, 4), (3, 7)):
        ids = {"ids": random.integers(0, 11, (batch, tokens)), "types": random.integers(0, 2, (batch, tokens))}
        yield Sample({**ids, "positions": np.arange(tokens)[None]}, constants, {"epsilon": 1e-12})


# Products


def _matmul_add(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Add(op.MatMul(x, w), b)


def _gemm(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Gemm(x, w, b)


def _gemm_transposed(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Gemm(x, w, b, transB=1)


def _gemm_no_bias(op: Any, x: Any, w: Any) -> Any:
    return op.Gemm(x, w, transB=1)


def _linear(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.ffc.Linear(x, w, b)


def _linear_then_relu(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.Relu(op.ffc.Linear(x, w, b))


def _linear_relu(op: Any, x: Any, w: Any, b: Any) -> Any:
    return op.ffc.LinearRelu(x, w, b)


def _linear_then_gelu(op: Any, x: Any, w: Any, b: Any, *, approximate: str) -> Any:
    return op.Gelu(op.ffc.Linear(x, w, b), approximate=approximate)


def _linear_gelu(op: Any, x: Any, w: Any, b: Any, *, approximate: str) -> Any:
    return op.ffc.LinearGelu(x, w, b, approximate=approximate)


def _is_float(match: Match) -> str | None:
    return None if match.array("w").dtype == np.float32 else "its weight is not float32"


def _bias_fits(match: Match) -> str | None:
    width = match.array("w").shape[1]
    return None if match.array("b").shape == (width,) else f"what is added is not a bias of {width} numbers"


def _transposed(match: Match) -> Mapping[str, Any]:
    w = match.array("w")
    bias = {} if "b" in match.values else {"b": np.zeros(w.shape[0], w.dtype)}
    return {"w": np.ascontiguousarray(w.T), **bias}


def _bias_fits_transposed(match: Match) -> str | None:
    width = match.array("w").shape[0]
    return None if match.array("b").shape == (width,) else f"what is added is not a bias of {width} numbers"


def _product_samples(random: np.random.Generator) -> Iterator[Sample]:
    for inner, outer in ((4, 5), (9, 3)):
        constants = {"w": _normal(random, inner, outer), "b": _normal(random, outer)}
        yield Sample({"x": _normal(random, 2, 3, inner)}, constants)
        column = {**constants, "b": _normal(random, outer, 1)}
        yield Sample({"x": _normal(random, 2, outer, inner)}, column, matches=False)
        yield Sample({"x": _normal(random, 2, 3, inner), "w": constants["w"]}, {"b": constants["b"]}, matches=False)


def _activated_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield Sample({"x": _normal(random, 2, 3, 4)}, {"w": _normal(random, 4, 5), "b": _normal(random, 5)})


def _gelu_samples(random: np.random.Generator) -> Iterator[Sample]:
    for sample in _activated_samples(random):
        for form in ("none", "tanh"):
            yield Sample(sample.inputs, sample.constants, {"approximate": form})


def _gemm_samples(random: np.random.Generator) -> Iterator[Sample]:
    for inner, outer in ((4, 5), (9, 3)):
        constants = {"w": _normal(random, inner, outer), "b": _normal(random, outer)}
        yield Sample({"x": _normal(random, 3, inner)}, constants)
        yield Sample({"x": _normal(random, 3, inner)}, {**constants, "b": _normal(random, 3, outer)}, matches=False)


def _gemm_transposed_samples(random: np.random.Generator) -> Iterator[Sample]:
    for sample in _gemm_samples(random):
        flipped = {**sample.constants, "w": np.ascontiguousarray(sample.constants["w"].T)}
        yield Sample(sample.inputs, flipped, matches=sample.matches)


def _gemm_no_bias_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield Sample({"x": _normal(random, 3, 4)}, {"w": _normal(random, 5, 4)})


_WEIGHT = (rules.is_constant("w"), rules.rank("w", 2), _is_float)
_PARAMETERS = rules.is_constant("gamma", "beta")
_LINEAR = (*_WEIGHT, rules.is_constant("b"), _bias_fits)
_EMBED = (rules.is_constant("word", "type_table", "position", "gamma", "beta"), _tables)

RULES = (
    # x/2 * (1 + erf(x / sqrt 2)), or its approximation by tanh
    *(
        Rule(f"gelu-{inner}-{half}", _gelu_form(program, around), _gelu_tanh if "tanh" in inner else _gelu, _one_input)
        for inner, program in _INNER.items()
        for half, around in _HALF.items()
    ),
    # (x - mean) / sqrt(variance + epsilon) * gamma + beta
    Rule(
        "norm-chain", _norm_chain, _norm, _norm_chain_samples, bind=_epsilon,
        where=(rules.is_constant("gamma", "beta", "epsilon"), _small_epsilon, _over_last_axis),
    ),
    Rule(
        "norm-chain-square", _norm_chain_square, _norm, _norm_chain_samples, bind=_epsilon,
        where=(rules.is_constant("gamma", "beta", "epsilon"), _small_epsilon, _over_last_axis),
    ),
    Rule("norm", _layer_norm, _norm, _norm_samples, where=(_PARAMETERS, _over_last_axis)),
    Rule(
        "norm-no-bias", _layer_norm_no_bias, _norm, _norm_no_bias_samples, bind=_no_bias,
        where=(rules.is_constant("gamma"), _over_last_axis),
    ),
    # norm(word[ids] + types[..] + positions[..]), before add-norm, which would take the last sum
    Rule("embed", _lookups, _embed, _embed_samples, where=_EMBED),
    # norm(x + skip)
    Rule("add-norm", _norm_of_sum, _add_norm, _add_norm_samples, where=(_PARAMETERS, _equal_shapes)),
    # x @ w + b
    Rule("linear", _matmul_add, _linear, _product_samples, where=_LINEAR),
    Rule("linear-gemm", _gemm, _linear, _gemm_samples, where=_LINEAR),
    Rule(
        "linear-gemm-transposed", _gemm_transposed, _linear, _gemm_transposed_samples, bind=_transposed,
        where=(*_WEIGHT, rules.is_constant("b"), _bias_fits_transposed),
    ),
    Rule("linear-gemm-no-bias", _gemm_no_bias, _linear, _gemm_no_bias_samples, bind=_transposed, where=_WEIGHT),
    # relu(x @ w + b), gelu(x @ w + b)
    Rule("linear-relu", _linear_then_relu, _linear_relu, _activated_samples, where=_LINEAR),
    Rule("linear-gelu", _linear_then_gelu, _linear_gelu, _gelu_samples, where=_LINEAR),
)  # fmt: skip


@dataclass(frozen=True)
class Fuse(ffc.Pass):
    """Recognise the blocks of an encoder and replace them by calls of ``ffc`` functions.

    1. Attention, found by its structure (`ffc.find_blocks`) whatever an exporter wrote around it, becomes
       ``Attention`` or ``AttentionMasked`` on queries, keys and values; a fused QKV product is split into three.
    2. GELU in its forms, layer norms, residual additions, embeddings and products with their activation are
       recognised by the rules of its table.
    3. Float operators that onnxruntime or its tools fused before (``Attention``, ``MultiHeadAttention``,
       ``SkipLayerNormalization``, ``EmbedLayerNormalization``, ``BiasGelu``, ``FastGelu``, ``FusedMatMul``) are read
       as the same blocks; those of int8 and half precision stay.

    The mask stays what the model computes, so padding on the right, on the left, or with holes means what it meant.
    Outputs stay equal.
    """

    name = "fuse"
    needs = ("clean",)
    rules = (*onnxruntime.RULES, *RULES)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        reason = reason_to_leave(model)
        if reason:
            log.missed("the model", reason)
            return
        onnxruntime.read_kernels(model, log)
        blocks = ffc.find_blocks(model)
        calls = AttentionCalls(Editor(model))
        for layer in blocks.layers:
            attention = layer.attention
            if attention is None or attention.node.domain:
                continue
            if calls.editor.shapes.dtype(attention.context) != ir.DataType.FLOAT:
                log.missed(f"attention of layer {layer.index}", "it is not computed in float32")
                continue
            calls.put(attention)
            log.did("attention")
        for miss in blocks.unmatched:
            log.missed(miss.where, miss.why)
        rules.apply(RULES, model, log)

    def survey(self, tried: ffc.Tried) -> ffc.Survey:
        """See `ffc.Pass.survey`: every block with the call that it became."""
        return ffc.Survey(survey.findings(self.rules, tried), tried.refused)
