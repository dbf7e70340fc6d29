"""Rules that let products read [batch, tokens, width] where an exporter makes one axis of batch and tokens first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ffc.compiler import rules
from ffc.compiler.rules import Match, Rule, Sample
from ffc.graph.dialect.edit import is_output
from ffc.graph.shapes.dim import Dim

__all__ = ["RULES"]


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


# Products of [batch * tokens, width]


def _flat_matmul(op: Any, x: Any, rows: Any, w: Any, target: Any) -> Any:
    return op.Reshape(op.MatMul(op.Reshape(x, rows), w), target)


def _matmul(op: Any, x: Any, tokens: Any, w: Any, target: Any) -> Any:
    return op.Reshape(op.MatMul(op.Reshape(x, tokens), w), target)


def _flat_matmul_bias(op: Any, x: Any, rows: Any, w: Any, b: Any, target: Any) -> Any:
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, rows), w), b), target)


def _flat_gemm(op: Any, x: Any, rows: Any, w: Any, b: Any, target: Any) -> Any:
    return op.Reshape(op.Gemm(op.Reshape(x, rows), w, b), target)


def _flat_gemm_transposed(op: Any, x: Any, rows: Any, w: Any, b: Any, target: Any) -> Any:
    return op.Reshape(op.Gemm(op.Reshape(x, rows), w, b, transB=1), target)


def _matmul_bias(op: Any, x: Any, tokens: Any, w: Any, b: Any, target: Any) -> Any:
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, tokens), w), b), target)


def _flat_gemm_no_bias(op: Any, x: Any, rows: Any, w: Any, target: Any, *, beta: float) -> Any:
    return op.Reshape(op.Gemm(op.Reshape(x, rows), w, beta=beta), target)


def _flat_gemm_no_bias_transposed(op: Any, x: Any, rows: Any, w: Any, target: Any, *, beta: float) -> Any:
    return op.Reshape(op.Gemm(op.Reshape(x, rows), w, beta=beta, transB=1), target)


def _keeps_tokens(match: Match) -> str | None:
    """What is read and what is written begin with the same two axes, and the rest of what is read is the width."""
    inner = [node for node in match.nodes.values() if node is not match.root and node.op_type != "Reshape"]
    if any(is_output(node.outputs[0]) or len(node.outputs[0].uses()) > 1 for node in inner):
        return "the product is read elsewhere before it is reshaped"
    shapes = match.editor.shapes
    (flat,) = (node for node in match.nodes.values() if node is not match.root and node.op_type == "Reshape")
    before, rows = shapes.of(match.values["x"]), shapes.of(flat.outputs[0])
    after = shapes.of(match.root.outputs[0])
    if before is None or after is None or rows is None or len(rows) != 2 or len(before) < 3 or before[:2] != after[:2]:
        return "it is not known to keep batch and tokens apart"
    if not _is_product(before[2:], rows[1]) or _width(match) != rows[1]:
        return "more than batch and tokens is flattened"
    return None if _has_no_copies(match, "target") else "its target copies axes of what is flattened"


def _is_product(dims: Sequence[Dim], width: Dim) -> bool:
    return all(isinstance(dim, int) for dim in dims) and math.prod(dim for dim in dims if isinstance(dim, int)) == width


def _width(match: Match) -> int:
    product = next(node for node in match.nodes.values() if node.op_type in ("MatMul", "Gemm"))
    transposed = "transB" in product.attributes and product.attributes["transB"].as_int()
    return int(match.array("w").shape[1 if transposed else 0])


def _has_no_copies(match: Match, name: str) -> bool:
    """Whether the target of a Reshape is known to hold no 0, which would copy an axis of what it is applied to."""
    ints = match.editor.shapes.ints(match.values[name])
    return ints is not None and 0 not in ints


def _tokens(match: Match) -> Mapping[str, Any]:
    return {"tokens": [0, 0, _width(match)]}


def _tokens_transposed(match: Match) -> Mapping[str, Any]:
    return {**_tokens(match), "w": np.ascontiguousarray(match.array("w").T)}


def _samples(random: np.random.Generator, *, bias: bool = True, transposed: bool = False) -> Iterator[Sample]:
    inner, outer = 6, 8
    w = _normal(random, outer, inner) if transposed else _normal(random, inner, outer)
    constants = {"rows": np.array([-1, inner]), "w": w} | ({"b": _normal(random, outer)} if bias else {})
    for shape, target, matches in (
        ((2, 3, inner), [2, 3, 2, 4], True),
        ((2, 3, 1, 2, 3), [2, 3, outer], True),
        ((2, 3, inner), [3, 2, outer], False),
        ((6, inner), [2, 3, outer], False),
    ):
        yield Sample({"x": _normal(random, *shape)}, {**constants, "target": np.array(target)}, {}, matches)


def _unbiased_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(random, bias=False)


def _transposed_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(random, transposed=True)


def _scaled_samples(random: np.random.Generator, *, transposed: bool = False) -> Iterator[Sample]:
    for sample in _samples(random, bias=False, transposed=transposed):
        yield Sample(sample.inputs, sample.constants, {"beta": 0.0}, sample.matches)


def _scaled_transposed_samples(random: np.random.Generator) -> Iterator[Sample]:
    yield from _scaled_samples(random, transposed=True)


# What comes after them


def _squeezed(op: Any, x: Any, target: Any, axes: Any) -> Any:
    return op.Squeeze(op.Reshape(x, target), axes)


def _reshaped(op: Any, x: Any, target: Any) -> Any:
    return op.Reshape(x, target)


def _begins_alike(match: Match) -> str | None:
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or before[:2] != after[:2] or len(after) < 3:
        return "it is not known to keep batch and tokens apart"
    return None if all(isinstance(dim, int) for dim in after[2:]) else "its sizes are not known"


def _final(match: Match) -> Mapping[str, Any]:
    after = match.editor.shapes.of(match.root.outputs[0])
    assert after is not None
    return {"target": [0, 0, *(int(dim) for dim in after[2:] if isinstance(dim, int))]}


def _squeezed_samples(random: np.random.Generator) -> Iterator[Sample]:
    constants = {"target": np.array([2, 3, 2, 4, 1]), "axes": np.array([4])}
    yield Sample({"x": _normal(random, 2, 3, 8)}, constants)
    yield Sample({"x": _normal(random, 6, 8)}, constants, matches=False)


def _bias_of_heads(op: Any, x: Any, w: Any, target: Any, b: Any) -> Any:
    return op.Add(op.Reshape(op.MatMul(x, w), target), b)


def _biased(op: Any, x: Any, w: Any, b: Any, target: Any) -> Any:
    return op.Reshape(op.Add(op.MatMul(x, w), b), target)


def _is_bias(match: Match) -> str | None:
    b, width = match.array("b"), match.array("w").shape[1]
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or b.size != width or after[len(before) - 1 :] != b.shape:
        return "what is added is no bias of the product"
    return None if after[: len(before) - 1] == before[:-1] else "it is not known to keep batch and tokens apart"


def _flat_bias(match: Match) -> Mapping[str, Any]:
    return {"b": match.array("b").reshape(-1)}


def _bias_samples(random: np.random.Generator) -> Iterator[Sample]:
    constants = {"w": _normal(random, 6, 8), "target": np.array([2, 3, 2, 4])}
    yield Sample({"x": _normal(random, 2, 3, 6)}, {**constants, "b": _normal(random, 2, 4)})
    yield Sample({"x": _normal(random, 2, 3, 6)}, {**constants, "b": _normal(random, 2, 1)}, matches=False)
    yield Sample({"x": _normal(random, 2, 3, 6)}, {**constants, "b": _normal(random, 4)}, matches=False)


_WEIGHT = (rules.is_constant("w"), rules.rank("w", 2), _keeps_tokens)

RULES = (
    # reshape(reshape(x, [B*S, I]) @ w, [B, S, ...]): the same without the first reshape, what reads it being shared
    Rule("flat-matmul", _flat_matmul, _matmul, _unbiased_samples, bind=_tokens, where=_WEIGHT, shared=True),
    Rule("flat-matmul-bias", _flat_matmul_bias, _matmul_bias, _samples, bind=_tokens, where=_WEIGHT, shared=True),
    Rule("flat-gemm", _flat_gemm, _matmul_bias, _samples, bind=_tokens, where=_WEIGHT, shared=True),
    Rule(
        "flat-gemm-transposed", _flat_gemm_transposed, _matmul_bias, _transposed_samples,
        bind=_tokens_transposed, where=_WEIGHT, shared=True,
    ),
    Rule("flat-gemm-no-bias", _flat_gemm_no_bias, _matmul, _scaled_samples, bind=_tokens, where=_WEIGHT, shared=True),
    Rule(
        "flat-gemm-no-bias-transposed", _flat_gemm_no_bias_transposed, _matmul, _scaled_transposed_samples,
        bind=_tokens_transposed, where=_WEIGHT, shared=True,
    ),
    # squeeze(reshape(x)) is another reshape
    Rule("squeezed", _squeezed, _reshaped, _squeezed_samples, bind=_final, where=(_begins_alike,)),
    # reshape(x @ w, [B, S, H, D]) + b [H, D]
    Rule(
        "bias-of-heads", _bias_of_heads, _biased, _bias_samples, bind=_flat_bias,
        where=(rules.is_constant("w", "b"), rules.rank("w", 2), _is_bias),
    ),
)  # fmt: skip
"""Rank 3 is what finding blocks, pruning and lowering expect; the numbers are the same row by row."""
