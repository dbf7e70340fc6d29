"""Rows of text as batches of inputs that a model runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probes import understood
from ffc.compiler.proof.probing.text_inputs import TextInputs, text_inputs
from ffc.errors import CannotApplyError, InputError
from ffc.graph.dialect.widen import runnable
from ffc.graph.execute import Runner
from ffc.rows import text_rows, tokenizer
from ffc.rows.records import Record
from ffc.rows.text_rows import TextRows
from ffc.rows.tokenizer import Tokenizer, Tokens

__all__ = ["BATCH", "Choose", "text_feeds"]

BATCH = 16
"""Rows to run at once."""

Choose = Callable[[int], Sequence[int]]
"""Which of so many rows to take, ascending."""


def text_feeds(
    model: ir.Model,
    rows: TextRows,
    *,
    runner: Runner | None = None,
    choose: Choose | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, np.ndarray]]:
    """Return rows of text as arrays by input, in batches with a name each, in the order of the file.

    A batch is padded to its longest row, or to the length that the model takes; the last one of a model with a fixed
    batch size is filled up with rows from the start.

    Args:
        model: The model.
        rows: The rows.
        runner: Runs the model, if there is one at hand.
        choose: Which rows to take, in the place of those that `rows` asks for.
        tell: Called with a line on what was taken.

    Raises:
        MissingError, UsageError: As `ffc.rows.text_rows.settled` says.
        InputError: As that says, too; if an input cannot be filled from text, or a token is none that the model knows,
            of which the message names the line.
        CannotApplyError: If rows must be padded and the tokenizer has no token for that.
    """
    rows = text_rows.settled(rows, model.meta.get("ffc.path"))
    chosen = choose or text_rows.evenly(rows.rows or text_rows.ROWS)
    records, number = text_rows.taken(Path(rows.path), chosen)
    by = tokenizer.load(Path(str(rows.tokenizer)))
    runner = runner or Runner(runnable(model))
    inputs = text_inputs(model, understood(model, runner))
    tokens = _tokens(records, rows, by, inputs, runner)
    step = inputs.batch or BATCH
    missing = -len(tokens) % step if inputs.batch else 0
    filled = [*tokens, *(tokens[place % len(tokens)] for place in range(missing))]
    tell(_said(rows, number, tokens, len(filled)))
    return {
        f"data row {start}": inputs.feeds(by.batch(filled[start : start + step], inputs.length))
        for start in range(0, len(filled), step)
    }


def _tokens(
    records: Sequence[Record], rows: TextRows, by: Tokenizer, inputs: TextInputs, runner: Runner
) -> list[Tokens]:
    """Return records as tokens: no more to each than is asked for or the tokenizer says, nor than the model takes."""
    texts = [tuple(record.text(column) for column in rows.columns) for record in records]
    limits = [limit for limit in (rows.max_length or by.longest, inputs.length) if limit is not None]
    tokens = by.encode(texts, min(limits, default=None))
    _check_known(records, tokens, inputs)  # before the model is run on them
    if inputs.length is not None:
        return tokens
    longest = max(tokens, key=len)

    def runs(length: int) -> bool:
        short = Tokens(longest.ids[:length], longest.types[:length])
        try:
            runner.run(inputs.feeds(by.batch([short] * (inputs.batch or 1))))
        except CannotApplyError:
            return False
        return True

    fitting = _longest(runs, by.least(len(rows.columns) > 1), len(longest))
    return tokens if fitting == len(longest) else by.encode(texts, fitting)


def _longest(runs: Callable[[int], bool], least: int, most: int) -> int:
    """Return the largest number of tokens from `least` to `most` at which a model runs, `most` where it runs at none.

    Tables of positions, buffers that are sliced and masks that are kept all end somewhere; running tells where.
    """
    if most <= least or runs(most):
        return most
    low, high = most // 2, most
    while low >= least and not runs(low):
        low, high = low // 2, low
    if low < least:
        return most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low


def _check_known(records: Sequence[Record], tokens: Sequence[Tokens], inputs: TextInputs) -> None:
    """Refuse the first row with a token or a type that the model has no embedding for."""
    for name in (inputs.ids, *inputs.types):
        table = inputs.tables.get(name)
        for record, row in zip(records, tokens, strict=True):
            highest = max(row.ids if name == inputs.ids else row.types, default=0)
            if table is not None and highest >= table:
                raise InputError(
                    f"{record.where}: the tokenizer makes {highest}, and input '{name}' looks up a table of {table}; "
                    "take the tokenizer that the model was trained with"
                )


def _said(rows: TextRows, number: int, tokens: Sequence[Tokens], filled: int) -> str:
    """Say what was taken of some number of rows, and what was done to it."""
    few = f"{len(tokens):,} of {number:,} rows" if len(tokens) < number else f"{number:,} rows"
    cut, longest = sum(row.cut for row in tokens), max(map(len, tokens))
    said = [f"{rows.path}: {few} of up to {longest} tokens"]
    said += [f"{cut:,} cut to that"] if cut else []
    said += [f"{filled - len(tokens)} repeated to fill a batch"] if filled > len(tokens) else []
    return ", ".join(said)
