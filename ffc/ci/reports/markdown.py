"""A diff as Markdown, made for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ffc.ci.diff.diff import Diff
from ffc.ci.diff.groups import Group
from ffc.ci.lock.check import Check, Unfinished
from ffc.ci.reports import content
from ffc.tables import markdown
from ffc.tables.markdown import code
from ffc.tables.table import Code, Column, Table, columns

__all__ = ["checks_to_markdown", "marker", "to_markdown"]

_COLUMNS = (Column("kind"), Column("", number=True), *columns("what", "by", "where"))

_SHOWN = 30
"""Groups that are shown at once; the others are folded, so that a comment stays one screen."""


def to_markdown(found: Diff) -> str:
    """Write a diff as Markdown; the name of the model before tells this comment from others on a pull request."""
    lines = [marker(found.before.name), f"### ffc diff: {content.summary(found.groups)}", ""]
    lines += [f"{code(found.before.name)} → {code(found.after.name)}", ""]
    lines += _costs(found)
    if found.changes:
        lines += ["", *_changes(found)]
    return "\n".join(lines) + "\n"


def _costs(found: Diff) -> list[str]:
    return markdown.lines(content.costs(found.costs))


def _changes(found: Diff) -> list[str]:
    shown, rest = (markdown.lines(_table(groups)) for groups in (found.groups[:_SHOWN], found.groups[_SHOWN:]))
    if len(found.groups) <= _SHOWN:
        return shown
    summary = f"<details><summary>{len(found.groups) - _SHOWN} more</summary>"
    return [*shown, "", summary, "", *rest, "", "</details>"]


def _table(groups: Sequence[Group]) -> Table:
    rows = (
        (group.kind, content.times(group), Code(content.said(group)), Code(content.makers(group)), Code(group.where))
        for group in groups
    )
    return Table(_COLUMNS, tuple(rows))


def marker(key: str) -> str:
    """Return the hidden line by which a CI finds the comment to edit."""
    return f"<!-- ffc diff {re.sub(r'[^A-Za-z0-9_./]+', '-', key)} -->"


def checks_to_markdown(done: Sequence[Check | Unfinished]) -> str:
    """Write what checks found as one comment, those that fail first and open."""
    passed = all(each.passed for each in done)
    title = "passes" if passed else f"{sum(not each.passed for each in done)} of {len(done)} locks fail"
    lines = [marker("check"), f"### ffc check: {title}", ""]
    for each in sorted(done, key=lambda each: each.passed):
        if isinstance(each, Unfinished):
            lines += [f"#### ❌ {code(str(each.path))}", "", code(content.unfinished(each)), ""]
            continue
        lines += [f"#### {'✅' if each.passed else '❌'} {code(str(each.path))}", "", content.verdict(each), ""]
        lines += [f"- **{failure.kind}**: {code(failure.message)}" for failure in each.failures if not failure.group]
        if each.diff.changes:
            lines += ["", *_costs(each.diff), "", *_changes(each.diff), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
