"""A diff as Markdown, made for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ffc.ci.diff.diff import Diff
from ffc.ci.lock.check import Check, Unfinished
from ffc.ci.reports import content
from ffc.errors import one_line

__all__ = ["checks_to_markdown", "code", "marker", "to_markdown"]

_SHOWN = 30
"""Groups that are shown at once; the others are folded, so that a comment stays one screen."""


def to_markdown(found: Diff, key: str = "") -> str:
    """Write a diff as Markdown.

    Args:
        found: The diff.
        key: Tells this comment from others on the same pull request; by default the name of the model before.
    """
    lines = [marker(key or found.before.name), f"### ffc diff: {content.summary(found.groups)}", ""]
    lines += [f"{code(found.before.name)} → {code(found.after.name)}", ""]
    lines += costs(found)
    if found.changes:
        lines += ["", *changes(found)]
    return "\n".join(lines) + "\n"


def costs(found: Diff) -> list[str]:
    """Return the lines of the table of costs."""
    rows = [f"| {' | '.join(row)} |" for row in content.cost_rows(found.costs)]
    return ["| | before | after | |", "| :-- | --: | --: | --: |", *rows]


def changes(found: Diff) -> list[str]:
    """Return the lines of the table of changes."""
    head = ["| kind | | what | by | where |", "| :-- | --: | :-- | :-- | :-- |"]
    rows = [
        f"| {group.kind} | {f'×{group.count}' if group.count > 1 else ''} | {code(content.said(group))} "
        f"| {code(content.makers(group))} | {code(group.where)} |"
        for group in found.groups
    ]
    if len(rows) <= _SHOWN:
        return [*head, *rows]
    rest = [f"<details><summary>{len(rows) - _SHOWN} more</summary>", "", *head, *rows[_SHOWN:], "", "</details>"]
    return [*head, *rows[:_SHOWN], "", *rest]


def marker(key: str) -> str:
    """Return the hidden line by which a CI finds the comment to edit."""
    return f"<!-- ffc diff {re.sub(r'[^A-Za-z0-9_./]+', '-', key)} -->"


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
            lines += ["", *costs(each.diff), "", *changes(each.diff), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
