"""Rows of text as a user names them, and the records of them that are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

from ffc.errors import UsageError
from ffc.rows import tokenizer
from ffc.rows.columns import check_columns, text_columns
from ffc.rows.records import SUFFIXES, Record, iterate
from ffc.settings import libraries

__all__ = ["LABEL", "ROWS", "TextRows", "evenly", "is_text", "settled", "taken"]

LABEL = "label"
"""The column that is no text where no column is named."""

ROWS = 128
"""How many rows are taken where it is not said."""


@dataclass(frozen=True)
class TextRows:
    """Rows of text to run a model on.

    Attributes:
        path: A ``.tsv``, ``.csv`` or ``.jsonl`` file.
        text: The column of text, or two for pairs; by default the only one beside ``label``.
        tokenizer: The model's ``tokenizer.json``, its folder, or ``package:NAME``; by default the one beside the model.
        max_length: Tokens a row at most; by default as many as the tokenizer's settings say, or the model takes.
        rows: Rows to take at most, at even distances; by default 128, since proofs run all of them many times.
    """

    path: str | Path
    text: str | Sequence[str] = ()
    tokenizer: str | Path | None = None
    max_length: int | None = None
    rows: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are named."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)


def is_text(path: str | Path) -> bool:
    """Whether a file holds rows of text, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def settled(rows: TextRows, model: Path | None) -> TextRows:
    """Return rows with their columns and the file of their tokenizer, checked before any work.

    Args:
        rows: The rows.
        model: The file of the model that is to be run on them, if it is one.

    Raises:
        MissingError: If the package `tokenizers` is not installed.
        UsageError: If the file has another suffix, or the columns are not clear.
        InputError: If the file or the tokenizer is not there or broken, or has no such columns.
    """
    libraries.check(libraries.TEXTS)
    if not isinstance(rows.path, str | Path):
        kind = type(rows.path).__name__
        raise UsageError(f"rows of text are read from a file, {', '.join(SUFFIXES)}, not from a {kind}; write one")
    records = iterate(Path(rows.path))
    found = tokenizer.find(rows.tokenizer, model)
    for name, value in (("max_length", rows.max_length), ("rows", rows.rows)):
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise UsageError(f"{name} is {value!r}, wanted a whole number from 1")
    first = next(records)
    columns = text_columns(first, rows.columns, "" if rows.columns else LABEL)
    check_columns(first, columns)
    return replace(rows, text=columns, tokenizer=found)


def evenly(most: int) -> Callable[[int], Sequence[int]]:
    """Return what takes up to `most` of some number of rows: as many, at even distances."""
    return lambda number: range(number) if number <= most else [place * number // most for place in range(most)]


def taken(path: Path, choose: Callable[[int], Sequence[int]]) -> tuple[list[Record], int]:
    """Return the records of a file that `choose` takes of so many, ascending, and how many there are.

    Raises:
        InputError: If the file is broken; the message names the line.
    """
    number = sum(1 for _ in iterate(path))
    chosen = set(choose(number))
    return [record for place, record in enumerate(iterate(path)) if place in chosen], number
