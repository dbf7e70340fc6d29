"""A diff for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffc.ci.diff.diff import Diff
from ffc.ci.diff.groups import Group
from ffc.ci.reports import content
from ffc.errors import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ffc.ci.lock.check import Check

__all__ = ["change_table", "checked", "findings", "terminal"]

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


def change_table(groups: list[Group]) -> Table:
    """Return a line for each group: kind, number, what changed, by which pass and rule, and where."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(ratio=3, overflow="fold")
    grid.add_column(ratio=2, overflow="fold", style="dim")
    for group in groups:
        by = f"by {one_line(group.by)}  " if group.by else ""
        number = f"×{group.count}" if group.count > 1 else ""
        what, where = Text(content.said(group)), Text(f"{by}{one_line(group.where, 200)}")
        grid.add_row(Text(group.kind, _STYLES.get(group.kind, "")), number, what, where)
    return grid


def _costs(found: Diff) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, title in enumerate(("", "before", "after", "")):
        grid.add_column(title, justify="right" if index else "left")
    for *cells, change in content.cost_rows(found.costs):
        grid.add_row(*map(Text, cells), Text(change, "green" if change.startswith("-") else "red"))
    return grid
