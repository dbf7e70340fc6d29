"""Tables as Markdown, and text in which nothing means anything to it."""

from __future__ import annotations

import re

from ffc.errors import one_line
from ffc.tables.table import Code, Table

__all__ = ["code", "escaped", "lines"]


def lines(table: Table) -> list[str]:
    """Return the lines of a table, then those of its notes."""
    head = "".join(f" {escaped(column.title)} |" if column.title else " |" for column in table.columns)
    rules = " | ".join("--:" if column.number else ":--" for column in table.columns)
    found = [f"|{head}", f"| {rules} |"]
    for index, row in enumerate(table.rows):
        cells = [f"**{cell}**" if cell and index in table.bold else cell for cell in map(_cell, row)]
        found.append(f"| {' | '.join(cells)} |")
    return found + [line for note in table.notes for line in ("", escaped(note))]


def escaped(text: str) -> str:
    """Escape what means something in Markdown."""
    plain = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return plain.replace("_", "\\_").replace("*", "\\*")


def code(text: str) -> str:
    """Return text from a model as a code span, in which nothing of it means anything, mentions of people included.

    A bar would end the cell of a table even in a code span. A backslash before it is no help where another one comes
    before that: parsers differ in what the two mean. So it is written as the characters are that cannot be shown.
    """
    shown = one_line(text, 300).replace("|", "\\x7c")
    if not shown.strip():
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def _cell(cell: str) -> str:
    return code(cell) if isinstance(cell, Code) else escaped(cell)
