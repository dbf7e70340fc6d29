"""Rules for what exporters write around masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ffc import Match, Op, Rule, Sample, Tensor, rule
from ffc.compiler.rules import flags, is_scalar, normal, nothing_for_one_query
from ffc.graph.blocks.masks import HIDDEN, is_of_products, is_same_for_all_queries
from ffc.graph.dialect.trace import Program

__all__ = ["RULES"]

_LOWEST = float(np.finfo(np.float32).min)


def _is_low(match: Match) -> str | None:
    return None if match.number("low") < 0 else "what masks is not negative"


def _no_query_alone(match: Match) -> str | None:
    """Where minus infinity masks, the guard gives 0 to a query that sees nothing; that must stay."""
    low = match.number("low")
    # Beside the lowest float, numbers down to HIDDEN vanish; no sum of both is minus infinity.
    if not is_of_products(match.values["scores"], min(HIDDEN, _LOWEST - max(low, _LOWEST)), whole=True):
        return "another mask may be in its scores"
    if np.isfinite(low) or is_same_for_all_queries(match.values["keep"], match.editor.shapes):
        return None
    return "a query may see nothing where others see something, and then gets 0"


def _finite(match: Match) -> Mapping[str, Any]:
    low = match.array("low")
    return {"low": np.maximum(low, np.finfo(low.dtype).min), "zero": np.zeros((), low.dtype)}


def _guards(batch: int, heads: int, tokens: int, low: float) -> tuple[Sample, ...]:
    scores = normal(batch, heads, tokens, tokens)
    inputs = {"scores": scores, "keep": flags(batch, 1, 1, tokens, share=0.7)}
    some = {"scores": scores, "keep": nothing_for_one_query(batch, 1, tokens)}
    return (
        Sample(inputs, {"low": low}),
        Sample(some, {"low": low}, matches=np.isfinite(low)),
        Sample(inputs, {"low": np.nan}, matches=False),
        Sample(inputs, {"low": np.full((1, 1, 1, tokens), low, np.float32)}, matches=False),
    )


def _added(op: Op, scores: Tensor, keep: Tensor, low: Tensor) -> Tensor:
    return op.Softmax(op.Add(scores, op.Where(keep, 0.0, low)), axis=-1)


def _filled(op: Op, scores: Tensor, keep: Tensor, low: Tensor) -> Tensor:
    return op.Softmax(op.Where(keep, scores, low), axis=-1)


def _guarded(name: str, softmax: Program, rewrite: Program) -> Rule:
    """Where(IsNaN(p), 0, p) around p, a Softmax of masked scores: with a mask made finite no NaN can arise."""

    def match(op: Op, scores: Tensor, keep: Tensor, low: Tensor) -> Tensor:
        probabilities = softmax(op, scores, keep, low)
        return op.Where(op.IsNaN(probabilities), 0.0, probabilities)

    samples = (*_guards(1, 1, 3, -np.inf), *_guards(2, 4, 7, _LOWEST))
    where = (is_scalar("low"), _is_low, _no_query_alone)
    return rule(name, rewrite, where=where, bind=_finite, shared=True, samples=samples)(match)


def _added_finite(op: Op, scores: Tensor, keep: Tensor, low: Tensor, zero: Tensor) -> Tensor:
    return op.Softmax(op.Add(scores, op.Where(keep, zero, low)), axis=-1)


_GUARDS = (_guarded("nan-guard", _added, _added_finite), _guarded("nan-guard-filled", _filled, _filled))


def _whole_mask(match: Match) -> str | None:
    shapes = match.editor.shapes
    sizes = [shapes.ints(match.values[name]) for name in ("batch", "length")]
    mask = shapes.of(match.values["mask"])
    if mask is None or len(mask) != 2 or sizes != [mask[:1], mask[1:]]:
        return "not all of the mask is looked up"
    return None


# mask[row, token] for every row and token: the mask itself
@rule(
    "mask-lookup", lambda op, mask: op.Unsqueeze(mask, [1, 2]), where=(_whole_mask,), shared=True,
    samples=(
        Sample({"mask": flags(1, 3)}, {"batch": 1, "length": 3}),
        Sample({"mask": flags(2, 5)}, {"batch": 2, "length": 5}),
        Sample({"mask": flags(2, 5)}, {"batch": 2, "length": 4}, matches=False),
    ),
)  # fmt: skip
def _looked_up(op: Op, mask: Tensor, batch: Tensor, length: Tensor) -> Tensor:
    rows = op.Unsqueeze(op.Unsqueeze(op.Range(0, batch, 1), [1, 2]), [3])
    tokens = op.Unsqueeze(op.Unsqueeze(op.Range(0, length, 1), [0, 1]), [2])
    shape = op.Shape(op.Max(rows, tokens))
    places = [op.Unsqueeze(op.Expand(positions, shape), [-1]) for positions in (rows, tokens)]
    return op.GatherND(mask, op.Concat(*places, axis=-1))


# keep, and the position is not negative: it never is; only the broadcast over positions stays
@rule(
    "position-not-negative",
    lambda op, keep, length: op.Expand(keep, op.Concat([1, 1], op.Reshape(length, [1]), [1], axis=0)),
    shared=True,
    samples=tuple(
        Sample({"keep": flags(batch, 1, 1, length), "length": length}) for batch, length in ((1, 3), (2, 5))
    ),
)  # fmt: skip
def _not_negative(op: Op, keep: Tensor, length: Tensor) -> Tensor:
    positions = op.Unsqueeze(op.Unsqueeze(op.Range(0, length, 1), [0, 1]), [3])
    return op.And(op.GreaterOrEqual(positions, 0), keep)


RULES = (*_GUARDS, _looked_up, _not_negative)
