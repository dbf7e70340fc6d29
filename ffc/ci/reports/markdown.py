"""A diff as Markdown, made for a comment on a pull request."""

from __future__ import annotations

import re

from ffc.ci.diff.diff import Diff
from ffc.ci.reports import content
from ffc.errors import one_line

__all__ = ["code", "marker", "to_markdown"]

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
    lines += ["| | before | after | |", "| :-- | --: | --: | --: |"]
    lines += [f"| {' | '.join(row)} |" for row in content.cost_rows(found.costs)]
    if found.changes:
        lines += ["", *changes(found)]
    return "\n".join(lines) + "\n"


def changes(found: Diff) -> list[str]:
    """Return the lines of the table of changes."""
    head = ["| kind | | what | by | where |", "| :-- | --: | :-- | :-- | :-- |"]
    rows = [
        f"| {group.kind} | {f'×{group.count}' if group.count > 1 else ''} | {code(content.said(group))} "
        f"| {code(group.by)} | {code(group.where)} |"
        for group in found.groups
    ]
    if len(rows) <= _SHOWN:
        return [*head, *rows]
    rest = [f"<details><summary>{len(rows) - _SHOWN} more</summary>", "", *head, *rows[_SHOWN:], "", "</details>"]
    return [*head, *rows[:_SHOWN], "", *rest]


def marker(key: str) -> str:
    """Return the hidden line by which a CI finds the comment to edit."""
    return f"<!-- ffc diff {re.sub(r'[^A-Za-z0-9_./]', '-', key).replace('--', '-')} -->"


def code(text: str) -> str:
    """Return text from a model as a code span, in which nothing of it means anything, mentions of people included."""
    shown = one_line(text, 300).replace("|", "\\|")
    if not shown.strip():
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"
