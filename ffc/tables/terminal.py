"""Tables as text: in a terminal, or as wide as they are."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ffc.tables.table import Table

if TYPE_CHECKING:
    from rich.table import Table as Grid

__all__ = ["grid", "text"]

Style: TypeAlias = Callable[[int, str], str]
"""Takes the number of a column and a cell in it, and returns how the cell looks, in words of rich."""

_WIDTH = 110
"""Of notes; the table itself is as wide as it is."""

_ENDLESS = 1 << 20


def grid(table: Table, *, ruled: bool = True, style: Style = lambda column, cell: "") -> Grid:
    """Return a table for a terminal, in which nothing means anything to it; notes are left out.

    Args:
        table: The table; rows look alike, those that stand out too.
        ruled: Whether a line stands below its head.
        style: How cells look.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid
    from rich.text import Text

    padding = (0, 1 if ruled else 2, 0, 0)
    shown = Grid(box=SIMPLE_HEAD if ruled else None, show_edge=False, pad_edge=False, padding=padding)
    shown.show_header = any(column.title for column in table.columns)
    for index, column in enumerate(table.columns):
        least = max((len(row[index]) for row in table.rows), default=0) if column.number else None  # so none is cut
        shown.add_column(Text(column.title), justify="right" if column.number else "left", min_width=least)
    for row in table.rows:
        shown.add_row(*(Text(cell, style(index, cell)) for index, cell in enumerate(row)))
    return shown


def text(table: Table) -> str:
    """Return a table and its notes as text, whatever the width of the window."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=_ENDLESS, color_system=None)
    with console.capture() as captured:
        console.print(grid(table))
    found = [line.rstrip() for line in captured.get().splitlines()]
    found += [line for note in table.notes for line in ("", *textwrap.wrap(note, _WIDTH))]
    return "\n".join(found) + "\n"
