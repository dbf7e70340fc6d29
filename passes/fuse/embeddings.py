"""The rule for embeddings: the norm of a sum of looked-up rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ffc import Match, Op, Sample, Tensor, ops, rule
from ffc.compiler.rules import integers, is_constant, normal

__all__ = ["RULES"]


def _tables(match: Match) -> str | None:
    flat = [name for name in ("word", "type_table", "position") if match.array(name).ndim != 2]
    return f"{flat[0]} is not a table of rows" if flat else None


def _rows(batch: int, tokens: int) -> Sample:
    ids = {"ids": integers(0, 11, batch, tokens), "types": integers(0, 2, batch, tokens)}
    tables = {"word": normal(11, 6), "type_table": normal(2, 6), "position": normal(16, 6)}
    parameters: dict[str, Any] = {"gamma": normal(6), "beta": normal(6)}
    return Sample({**ids, "positions": np.arange(tokens)[None]}, {**tables, **parameters}, {"epsilon": 1e-12})


# norm(word[ids] + types[..] + positions[..])
@rule(
    "embed", ops.Embed, samples=(_rows(1, 4), _rows(3, 7)),
    where=(is_constant("word", "type_table", "position", "gamma", "beta"), _tables),
)  # fmt: skip
def _embed(
    op: Op, ids: Tensor, types: Tensor, positions: Tensor, word: Tensor, type_table: Tensor, position: Tensor,
    gamma: Tensor, beta: Tensor, *, epsilon: float,
) -> Tensor:  # fmt: skip
    total = op.Add(op.Add(op.Gather(word, ids), op.Gather(type_table, types)), op.Gather(position, positions))
    return op.ffc.Norm(total, gamma, beta, epsilon=epsilon)


RULES = (_embed,)
