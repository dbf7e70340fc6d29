"""Rules for embeddings: the norm of a sum of looked-up rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ffc import Match, Op, Sample, Tensor, ops, rule
from ffc.compiler.rules import Condition, integers, is_constant, normal

__all__ = ["RULES"]


def _are_tables(*names: str) -> Condition:
    def holds(match: Match) -> str | None:
        flat = [name for name in names if match.array(name).ndim != 2]
        return f"{flat[0]} is not a table of rows" if flat else None

    return holds


def _normed(op: Op, words: Tensor, types: Tensor, places: Tensor, gamma: Tensor, beta: Tensor, epsilon: Any) -> Tensor:
    return op.ffc.Norm(op.Add(op.Add(words, types), places), gamma, beta, epsilon=epsilon)


def _rows(batch: int, tokens: int, constants: Mapping[str, Any], *, matches: bool = True, **inputs: Any) -> Sample:
    ids = {"ids": integers(0, 11, batch, tokens), "types": integers(0, 2, batch, tokens)}
    tables = {"word": normal(11, 6), "type_table": normal(2, 6), "gamma": normal(6), "beta": normal(6)}
    return Sample({**ids, **inputs}, {**tables, **constants}, {"epsilon": 1e-12}, matches)


_PARAMETERS = is_constant("word", "type_table", "position", "gamma", "beta")


# norm(word[ids] + types[..] + positions[..])
@rule(
    "embed", ops.Embed, where=(_PARAMETERS, _are_tables("word", "type_table", "position")),
    samples=tuple(
        _rows(*size, {"position": normal(16, 6)}, positions=np.arange(size[1])[None]) for size in ((1, 4), (3, 7))
    ),
)  # fmt: skip
def _embed(
    op: Op, ids: Tensor, types: Tensor, positions: Tensor, word: Tensor, type_table: Tensor, position: Tensor,
    gamma: Tensor, beta: Tensor, *, epsilon: float,
) -> Tensor:  # fmt: skip
    places = op.Gather(position, positions)
    return _normed(op, op.Gather(word, ids), op.Gather(type_table, types), places, gamma, beta, epsilon)


# Positions without ids: the first rows of their table, as a Slice takes them or already taken


def _first_rows(match: Match) -> str | None:
    found = {node.op_type: match.editor.shapes.of(node.outputs[0]) for node in match.nodes.values()}
    rows, places = found["Slice"], found["Reshape"]
    if rows is None or len(rows) != 2 or rows[1:] != match.array("position").shape[1:] or match.array("starts").any():
        return "what is taken are not the first rows of a table"
    return None if places == (1, *rows) else "its rows are not laid out as tokens"


def _counted(match: Match) -> Mapping[str, Any]:
    return {"numbers": np.arange(len(match.array("position")))[:, None]}


def _embed_numbers(
    op: Op, ids: Tensor, types: Tensor, word: Tensor, type_table: Tensor, position: Tensor, gamma: Tensor, beta: Tensor,
    numbers: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, *, epsilon: float,
) -> Tensor:  # fmt: skip
    positions = op.Reshape(op.Slice(numbers, starts, ends, axes), [1, -1])
    return op.ffc.Embed(ids, types, positions, word, type_table, position, gamma, beta, epsilon=epsilon)


def _sliced(*, starts: tuple[int, ...], ends: tuple[int, ...], matches: bool = True) -> Sample:
    bounds = {"starts": list(starts), "ends": list(ends), "axes": list(range(len(ends)))}
    return _rows(2, 5, {"position": normal(16, 6), "target": [1, 5, 6], **bounds}, matches=matches)


@rule(
    "embed-first-rows", _embed_numbers, bind=_counted,
    where=(_PARAMETERS, is_constant("starts"), _are_tables("word", "type_table", "position"), _first_rows),
    samples=(
        _sliced(starts=(0, 0), ends=(5, 6)),
        _sliced(starts=(0,), ends=(5,)),
        _sliced(starts=(1, 0), ends=(6, 6), matches=False),
    ),
)  # fmt: skip
def _embed_first(
    op: Op, ids: Tensor, types: Tensor, word: Tensor, type_table: Tensor, position: Tensor, gamma: Tensor, beta: Tensor,
    starts: Tensor, ends: Tensor, axes: Tensor, target: Tensor, *, epsilon: float,
) -> Tensor:  # fmt: skip
    places = op.Reshape(op.Slice(position, starts, ends, axes), target)
    return _normed(op, op.Gather(word, ids), op.Gather(type_table, types), places, gamma, beta, epsilon)


def _one_for_each_token(match: Match) -> str | None:
    rows, ids = match.array("position").shape, match.editor.shapes.of(match.values["ids"])
    laid_out = ids is not None and len(ids) == 2 and rows[-2:-1] == ids[1:] and rows[:-2] in ((), (1,))
    return None if laid_out else "what is added is not one row for each token"


def _numbered(match: Match) -> Mapping[str, Any]:
    rows = match.array("position")
    return {"position": rows.reshape(rows.shape[-2:]), "positions": np.arange(rows.shape[-2])[None]}


@rule(
    "embed-fixed-length", ops.Embed, bind=_numbered,
    where=(_PARAMETERS, _are_tables("word", "type_table"), _one_for_each_token),
    samples=(
        _rows(2, 5, {"position": normal(1, 5, 6)}),
        _rows(1, 4, {"position": normal(4, 6)}),
        _rows(2, 5, {"position": normal(2, 5, 6)}, matches=False),
        _rows(2, 5, {"position": normal(6)}, matches=False),
    ),
)  # fmt: skip
def _embed_fixed(
    op: Op, ids: Tensor, types: Tensor, word: Tensor, type_table: Tensor, position: Tensor, gamma: Tensor, beta: Tensor,
    *, epsilon: float,
) -> Tensor:  # fmt: skip
    return _normed(op, op.Gather(word, ids), op.Gather(type_table, types), position, gamma, beta, epsilon)


RULES = (_embed, _embed_first, _embed_fixed)
