"""A compile report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report
from ffc.tables.terminal import grid

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["terminal"]


def terminal(report: Report) -> RenderableType:
    """Return the whole report for the terminal: the table, then the verdict and the remarks."""
    from rich.console import Group
    from rich.text import Text

    table = content.table(report)
    lines = [*table.notes, "", *(f"{name}: {text}" for name, text in content.facts(report).items())]
    for name, remarks in content.remarks(report):
        lines += ["", name, *(f"  {remark}" for remark in remarks)]
    first = [Text(f"{content.title(report)}\n")] if report.alone else []
    return Group(*first, grid(table), Text("\n".join(["", *lines]), no_wrap=True, overflow="ignore"))
