"""A diff for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffc.ci.diff.diff import Diff
from ffc.ci.diff.groups import Group
from ffc.ci.reports import content
from ffc.errors import one_line
from ffc.tables.table import Column, Table, columns
from ffc.tables.terminal import grid

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from ffc.ci.lock.check import Check

__all__ = ["change_table", "checked", "findings", "terminal"]

_GAP, _LEAST = 2, 20
"""Columns between columns, and what a column has at least."""

_COLUMNS = (Column(""), Column("", number=True), *columns("", ""))
"""Kind, number, what changed, and by which pass and where; without heads."""

_STYLES = {
    "interface": "bold red",
    "structure": "magenta",
    "attribute": "yellow",
    "weight-type": "cyan",
    "weight-value": "blue",
    "numerics": "bold red",
}


def terminal(found: Diff) -> RenderableType:
    """Return a diff for the terminal: the models, what they cost, and a line for each group of changes."""
    from rich.console import Group as Lines
    from rich.text import Text

    names = [one_line(snapshot.name) for snapshot in (found.before, found.after)]
    head = [Text(f"--- {names[0]}", "red"), Text(f"+++ {names[1]}", "green")]
    parts: list[RenderableType] = [*head, Text(), _costs(found), Text()]
    if found.changes:
        parts += [change_table(found.groups), Text()]
    return Lines(*parts, Text(content.summary(found.groups), "bold"))


def checked(found: Check, *, accepted: bool = False) -> RenderableType:
    """Return a check for the terminal: what changed, what of it fails, and what to do."""
    from rich.console import Group as Lines
    from rich.text import Text

    style = "green" if found.passed else "bold red"
    return Lines(
        *findings(found), Text(f"{content.place(found.path)}: {content.verdict(found, accepted=accepted)}", style)
    )


def findings(found: Check) -> list[RenderableType]:
    """Return what a check found: costs and changes where there are any, and a line for each failure."""
    from rich.text import Text

    parts: list[RenderableType] = []
    if found.diff.changes:
        parts += [_costs(found.diff), Text(), change_table(found.diff.groups), Text()]
    return parts + [Text(f"fails: {one_line(failure.message)}", "red") for failure in found.failures]


def change_table(groups: Sequence[Group]) -> RenderableType:
    """Return a line for each group: kind, number, what changed, by which pass and rule, and where.

    In a window that is too narrow, lists of operators and names are shortened: one group stays one line.
    """
    return _Changes(tuple(groups))


@dataclass(frozen=True)
class _Changes:
    """Groups as a table that fits the window."""

    groups: tuple[Group, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kinds = max(len(group.kind) for group in self.groups)
        numbers = max(len(content.times(group)) for group in self.groups)
        room = options.max_width - kinds - numbers - 3 * _GAP
        said = [content.said(group) for group in self.groups]
        wide = max(min(max(map(len, said)), room * 3 // 5), _LEAST)
        rows = (
            (group.kind, content.times(group), _shortened(what, wide), _origin(group, room - wide))
            for group, what in zip(self.groups, said, strict=True)
        )
        shown = grid(Table(_COLUMNS, tuple(rows)), ruled=False, style=_look)
        for column, least in zip(shown.columns, (kinds, numbers, None, None), strict=True):
            column.no_wrap, column.min_width = True, least
        yield shown


def _look(column: int, cell: str) -> str:
    return _STYLES.get(cell, "") if column == 0 else "dim" if column == 3 else ""


def _origin(group: Group, room: int) -> str:
    """Return by what and where, in `room` characters; of a place the end tells more than the beginning."""
    by = f"by {content.makers(group)}  " if group.by else ""
    where, left = one_line(group.where, 200), max(room, _LEAST) - len(by)
    if len(where) <= left:
        return by + where
    return f"{by}…{where[len(where) - left + 1 :]}" if left >= _LEAST else by[:room]


def _shortened(text: str, room: int) -> str:
    """Cut a text to `room` characters; of one thing that became another both sides stay in sight."""
    if len(text) > room:
        text = text.replace("com.microsoft.", "")
    if len(text) <= room:
        return text
    before, arrow, after = text.partition(" → ")
    if arrow and len(after) > room // 2:
        kept = after[: room // 2].rpartition(", ")[0]
        after = f"{kept}, …" if kept else f"{after[: room // 2]}…"
    kept = before[: max(room - len(f", …{arrow}{after}"), 0)].rpartition(", ")[0] if len(before) > room // 3 else before
    short = f"{kept}{'' if kept == before else ', …'}{arrow}{after}"
    return short if arrow and kept and len(short) <= room else f"{text[: room - 1]}…"


def _costs(found: Diff) -> RenderableType:
    def look(column: int, cell: str) -> str:
        return "" if column < 3 else "green" if cell.startswith("-") else "red"

    shown = grid(content.costs(found.costs), ruled=False, style=look)
    shown.header_style = "dim"
    return shown
