"""What every form of a diff shows, as text: costs before and after, and a line for each group of changes.

Names come from models, and files from anywhere. What is returned here is one line of printable characters, which is all
that JUnit and a terminal need; each form escapes what else means something in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffc.ci.diff.groups import Group
from ffc.errors import one_line
from ffc.graph.cost import Cost
from ffc.tables.table import Table, columns, number

if TYPE_CHECKING:  # what compiles takes a while to import
    from ffc.ci.lock.check import Check, Failure, Unfinished

__all__ = ["costs", "makers", "of_failure", "place", "said", "summary", "times", "unfinished", "verdict"]

_COSTS = (
    ("nodes", "nodes", 1.0),
    ("parameters", "parameters (M)", 1e6),
    ("bytes", "MB", 1e6),
    ("macs", "MACs (G)", 1e9),
)


def costs(found: tuple[Cost, Cost]) -> Table:
    """Return for each cost its name, how much it was and is, and the change in percent, empty where there is none."""
    rows = []
    for name, title, unit in _COSTS:
        was, now = (getattr(cost, name) for cost in found)
        before, after = (str(value) if unit == 1.0 else number(value / unit) for value in (was, now))
        change = "" if was == now else f"{100 * (now - was) / was:+.1f} %" if was else "new"
        rows.append((title, before, after, change))
    was, now = (cost.macs_unknown for cost in found)
    if was or now:
        rows.append(("products not counted", str(was), str(now), ""))
    return Table(columns("", numbers=("before", "after", "")), tuple(rows))


def place(path: Path) -> str:
    """Return the path of a file as text that begins no command of GitHub Actions, whatever the file is called."""
    shown = one_line(str(path))
    return f"./{shown}" if shown.startswith(("::", "##[")) else shown


def said(group: Group) -> str:
    """Return what a group of changes is, in one line without place and number."""
    text = one_line(group.what, 400)
    moved = [change.detail["relative"] for change in group.changes if "largest" in change.detail]
    if not moved or "→" in text:
        return text
    low, high = min(moved), max(moved)
    return f"{text}, moved by {low:.1e}{'' if low == high else f' to {high:.1e}'} of its norm"


def of_failure(failure: Failure) -> str:
    """Return what a failure is, in one line with its number."""
    if failure.group is None:
        return one_line(failure.message)
    return f"{said(failure.group)}{f' (×{failure.group.count})' if failure.group.count > 1 else ''}"


def times(group: Group) -> str:
    """Return how many changes a group has, empty for one."""
    return f"×{group.count}" if group.count > 1 else ""


def makers(group: Group) -> str:
    """Return the passes and rules that first made what the nodes of a group stand for, as in ``fuse/attention``."""
    return one_line(", ".join(dict.fromkeys(each.partition(",")[0] for each in group.by.split("; "))))


def summary(groups: Sequence[Group]) -> str:
    """Say how many changes of which kinds there are."""
    counts = Counter[str]()
    for group in groups:
        counts[group.kind] += group.count
    total = counts.total()
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{total} change{'s' if total != 1 else ''}: {kinds}" if total else "no changes"


def unfinished(found: Unfinished) -> str:
    """Say why a lock could not be checked."""
    return f"could not be checked: {one_line(str(found.error))}"


def verdict(found: Check, *, accepted: bool = False) -> str:
    """Say how a check ended, and what to do."""
    changes = summary(found.diff.groups)
    if accepted:
        return f"accepted, {changes}; commit the lock"
    if not found.passed:
        takes = "; `ffc check --accept` takes it" if any(failure.group for failure in found.failures) else ""
        return f"fails, {changes}{takes}"
    if found.improved:
        return f"passes, it costs less than the lock says ({changes}); `ffc check --accept` keeps that"
    return f"passes, {changes}"
