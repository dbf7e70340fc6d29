"""Rules that let products read [batch, tokens, width] where an exporter makes one axis of batch and tokens first.

Rank 3 is what finding blocks, pruning and lowering expect; the numbers are the same row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ffc import Match, Op, Sample, Tensor, rule
from ffc.compiler.rules import is_constant, normal, rank
from ffc.graph.shapes.dim import Dim

__all__ = ["RULES"]


def _says_every_size(match: Match) -> str | None:
    return None if _has_no_copies(match, "target") else "its target may hold a 0"


# Exporters set it to be safe, and it means nothing where there is no 0.
@rule(
    "reshape-without-zero", lambda op, x, target: op.Reshape(x, target), where=(_says_every_size,),
    samples=(
        Sample({"x": normal(2, 6)}, {"target": [-1, 3]}),
        Sample({"x": normal(0, 6)}, {"target": [3, 0]}, matches=False),
    ),
)  # fmt: skip
def _without_zero(op: Op, x: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(x, target, allowzero=1)


# Products of [batch * tokens, width]: reshape(reshape(x, [B*S, I]) @ w, [B, S, ...]) is the same without the first
# reshape. What reads it may be shared.


def _matmul(op: Op, x: Tensor, tokens: Tensor, w: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(op.MatMul(op.Reshape(x, tokens), w), target)


def _matmul_bias(op: Op, x: Tensor, tokens: Tensor, w: Tensor, b: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, tokens), w), b), target)


def _keeps_tokens(match: Match) -> str | None:
    """What is read and what is written begin with the same two axes, and the rest of what is read is the width."""
    inner = [node for node in match.nodes.values() if node is not match.root and node.op_type != "Reshape"]
    if any(node.outputs[0].is_graph_output() or len(node.outputs[0].uses()) > 1 for node in inner):
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
    return int(match.array("w").shape[0])


def _has_no_copies(match: Match, name: str) -> bool:
    """Whether the target of a Reshape is known to hold no 0, which would copy an axis of what it is applied to."""
    ints = match.editor.shapes.ints(match.values[name])
    return ints is not None and 0 not in ints


def _tokens(match: Match) -> Mapping[str, Any]:
    return {"tokens": [0, 0, _width(match)]}


_WEIGHT = (is_constant("w"), rank("w", 2), _keeps_tokens)


def _products(*, bias: bool) -> tuple[Sample, ...]:
    inner, outer = 6, 8
    constants = {"rows": [-1, inner], "w": normal(inner, outer)} | ({"b": normal(outer)} if bias else {})
    return tuple(
        Sample({"x": normal(*shape)}, {**constants, "target": target}, matches=matches)
        for shape, target, matches in (
            ((2, 3, inner), [2, 3, 2, 4], True),
            ((2, 3, 1, 2, 3), [2, 3, outer], True),
            ((2, 3, inner), [3, 2, outer], False),
            ((6, inner), [2, 3, outer], False),
        )
    )


@rule("flat-matmul", _matmul, where=_WEIGHT, bind=_tokens, shared=True, samples=_products(bias=False))
def _flat_matmul(op: Op, x: Tensor, rows: Tensor, w: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(op.MatMul(op.Reshape(x, rows), w), target)


@rule("flat-matmul-bias", _matmul_bias, where=_WEIGHT, bind=_tokens, shared=True, samples=_products(bias=True))
def _flat_matmul_bias(op: Op, x: Tensor, rows: Tensor, w: Tensor, b: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, rows), w), b), target)


# What comes after them


def _begins_alike(match: Match) -> str | None:
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or before[:2] != after[:2] or len(after) < 3:
        return "it is not known to keep batch and tokens apart"
    return None if all(isinstance(dim, int) for dim in after[2:]) else "its sizes are not known"


def _final(match: Match) -> Mapping[str, Any]:
    after = match.editor.shapes.of(match.root.outputs[0])
    assert after is not None
    return {"target": [0, 0, *(int(dim) for dim in after[2:] if isinstance(dim, int))]}


_SIZES = {"target": [2, 3, 2, 4, 1], "axes": [4]}


# squeeze(reshape(x)) is another reshape
@rule(
    "squeezed", lambda op, x, target: op.Reshape(x, target), where=(_begins_alike,), bind=_final,
    samples=(Sample({"x": normal(2, 3, 8)}, _SIZES), Sample({"x": normal(6, 8)}, _SIZES, matches=False)),
)  # fmt: skip
def _squeezed(op: Op, x: Tensor, target: Tensor, axes: Tensor) -> Tensor:
    return op.Squeeze(op.Reshape(x, target), axes)


def _is_bias(match: Match) -> str | None:
    b, width = match.array("b"), match.array("w").shape[1]
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or b.size != width or after[len(before) - 1 :] != b.shape:
        return "what is added is no bias of the product"
    return None if after[: len(before) - 1] == before[:-1] else "it is not known to keep batch and tokens apart"


def _heads(*b: int, matches: bool = True) -> Sample:
    constants = {"w": normal(6, 8), "target": [2, 3, 2, 4], "b": normal(*b)}
    return Sample({"x": normal(2, 3, 6)}, constants, matches=matches)


# reshape(x @ w, [B, S, H, D]) + b [H, D]
@rule(
    "bias-of-heads", lambda op, x, w, b, target: op.Reshape(op.Add(op.MatMul(x, w), b), target),
    where=(is_constant("w", "b"), rank("w", 2), _is_bias), bind=lambda match: {"b": match.array("b").reshape(-1)},
    samples=(_heads(2, 4), _heads(2, 1, matches=False), _heads(4, matches=False)),
)  # fmt: skip
def _bias_of_heads(op: Op, x: Tensor, w: Tensor, target: Tensor, b: Tensor) -> Tensor:
    return op.Add(op.Reshape(op.MatMul(x, w), target), b)


RULES = (_without_zero, _flat_matmul, _flat_matmul_bias, _squeezed, _bias_of_heads)
