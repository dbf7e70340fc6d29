"""A table as data: what stands in it, for any form that it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Code", "Column", "Table", "columns", "number"]


class Code(str):
    """A cell that a model or a file put its text into: code in Markdown, where nothing of it then means anything."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: Its head.
        number: Whether it holds numbers, which are set flush right.
    """

    title: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: As many as every row has cells.
        rows: The cells; each form escapes what means something in it.
        bold: Numbers of the rows that stand out, where a form can show that.
        notes: Paragraphs below it.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def columns(*texts: str, numbers: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return columns that hold text, then some that hold numbers, by their titles."""
    return (*map(Column, texts), *(Column(title, number=True) for title in numbers))


def number(value: float) -> str:
    """Write a number with three digits that count, and never fewer than its integer ones."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
