"""Replace the blocks of an encoder by calls of the ``ffc`` functions that stand for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

import ffc
from ffc import Editor, Match, Rule, Sample, rules
from ffc.graph.blocks import Attention, Product

LOWEST = float(np.finfo(np.float32).min)


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


# GELU in the forms that exporters write


def _erf_half_last(op: Any, x: Any) -> Any:
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, 1.4142135381698608)), 1.0)), 0.5)


def _erf_half_first(op: Any, x: Any) -> Any:
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Div(x, 1.4142135381698608)), 1.0))


def _erf_factor(op: Any, x: Any) -> Any:
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, 0.7071067690849304)), 1.0))


def _erf_half_inside(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Mul(op.Add(op.Erf(op.Div(x, 1.4142135381698608)), 1.0), 0.5))


def _tanh_pow(op: Any, x: Any) -> Any:
    inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044714998453855515)), 0.7978845834732056)
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))


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


def _layer_norm(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon)


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
    if shape is None or match.array("gamma").shape != shape[-1:] or match.array("beta").shape != shape[-1:]:
        return "gamma and beta are not as wide as the last axis"
    return None


def _norm_samples(random: np.random.Generator) -> Iterator[Sample]:
    for width in (4, 33):
        gamma, beta = _normal(random, width), _normal(random, width)
        x, y = _normal(random, 2, 3, width), {"epsilon": 1e-5}
        yield Sample({"x": x}, {"gamma": gamma, "beta": beta}, attributes=y)


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
    # x/2 * (1 + erf(x / sqrt 2))
    Rule("gelu-erf-half-last", _erf_half_last, _gelu, _one_input),
    Rule("gelu-erf-half-first", _erf_half_first, _gelu, _one_input),
    Rule("gelu-erf-factor", _erf_factor, _gelu, _one_input),
    Rule("gelu-erf-half-inside", _erf_half_inside, _gelu, _one_input),
    # x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
    Rule("gelu-tanh", _tanh_pow, _gelu_tanh, _one_input),
    # (x - mean) / sqrt(variance + epsilon) * gamma + beta
    Rule(
        "norm-chain", _norm_chain, _norm, _norm_chain_samples, bind=_epsilon,
        where=(rules.is_constant("gamma", "beta", "epsilon"), _small_epsilon, _over_last_axis),
    ),
    Rule("norm", _layer_norm, _norm, _norm_samples, where=(_PARAMETERS, _over_last_axis)),
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
       ``Attention`` or ``AttentionMasked`` on its three products; a fused QKV product is split into three.
    2. GELU in its forms, layer norms, residual additions, embeddings and products with their activation are
       recognised by the rules of its table.

    The mask stays what the model computes, so padding on the right, on the left, or with holes means what it meant.
    Outputs stay equal.
    """

    name = "fuse"
    needs = ("clean",)
    rules = RULES

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        blocks = ffc.find_blocks(model)
        editor, masks = Editor(model), dict[tuple[ir.Value, ...], ir.Value]()
        for layer in blocks.layers:
            attention = layer.attention
            if attention is None or attention.core.domain:
                continue
            if editor.shapes.dtype(attention.q.out) != ir.DataType.FLOAT:
                log.missed(f"attention of layer {layer.index}", "it is not computed in float32")
                continue
            _fuse_attention(attention, editor, masks)
            log.did("attention")
        for miss in blocks.unmatched:
            log.missed(miss.where, miss.why)
        rules.apply(RULES, model, log)


def _fuse_attention(attention: Attention, editor: Editor, known: dict[tuple[ir.Value, ...], ir.Value]) -> None:
    """Put a call in the place of all between products and output projection; `known` are masks made so far."""
    inputs = [_separate(product, editor) for product in (attention.q, attention.k, attention.v)]
    attributes = {"heads": attention.heads, "scale": attention.scale}
    if not attention.masks:
        editor.call("Attention", inputs, attributes, replaces=attention.context, rule="attention")
        return
    if attention.masks not in known:
        known[attention.masks] = _mask(attention, editor)
    inputs.append(known[attention.masks])
    editor.call("AttentionMasked", inputs, attributes, replaces=attention.context, rule="attention")


def _separate(product: Product, editor: Editor) -> ir.Value:
    """Return the output of `product`; where it feeds several roles, that of a new product of its own columns alone."""
    if product.columns is None:
        return product.out
    bias = product.vector()
    weight = np.ascontiguousarray(product.matrix())
    node = product.out.producer()
    assert node is not None
    bias = np.zeros(weight.shape[1], weight.dtype) if bias is None else bias
    hint = f"{product.name}.{product.role}"
    return editor.add("ffc", "Linear", [product.x, weight, bias], before=node, hint=hint)


def _mask(attention: Attention, editor: Editor) -> ir.Value:
    """Return the sum of the masks: finite floats, spelled out over both token axes."""
    before = attention.context.producer()
    assert before is not None
    name = attention.masks[0].name or "mask"
    total, *others = (_as_float(mask, editor, before) for mask in attention.masks)
    for mask in others:
        total = editor.add("", "Add", [total, mask], before=before, hint=f"{name}.sum")
    if attention.guarded:
        total = editor.add("", "Max", [total, LOWEST], before=before, hint=f"{name}.finite")
    shape = editor.shapes.of(attention.masks[0])
    if not others and shape is not None and len(shape) == 4 and shape[2] == shape[3] != 1:
        return total
    # Broadcast to [its batch, its heads, S, S], S read off the input of the queries.
    tokens = editor.add("", "Shape", [attention.q.x], {"start": 1, "end": 2}, before=before, hint=f"{name}.tokens")
    target = editor.add("", "Concat", [[1, 1], tokens, tokens], {"axis": 0}, before=before, hint=f"{name}.target")
    return editor.add("", "Expand", [total, target], before=before, hint=f"{name}.expanded")


def _as_float(mask: ir.Value, editor: Editor, before: ir.Node) -> ir.Value:
    if editor.shapes.dtype(mask) != ir.DataType.BOOL:
        return mask
    return editor.add("", "Where", [mask, 0.0, LOWEST], before=before, hint=f"{mask.name}.float")
