"""A compile report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["table", "terminal"]


def table(report: Report) -> Table:
    """Return the passes as a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(content.COLUMNS):
        grid.add_column(column, justify="left" if index < content.TEXT_COLUMNS else "right")
    for row in content.rows(report):
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def terminal(report: Report) -> RenderableType:
    """Return the whole report for the terminal: the table, then the verdict and the remarks."""
    from rich.console import Group
    from rich.text import Text

    lines = [content.counted_at(report), "", *(f"{name}: {text}" for name, text in content.facts(report).items())]
    for name, remarks in content.remarks(report):
        lines += ["", name, *(f"  {remark}" for remark in remarks)]
    return Group(table(report), Text("\n".join(["", *lines]), no_wrap=True, overflow="ignore"))
