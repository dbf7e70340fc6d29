"""A compile report as Markdown."""

from __future__ import annotations

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report

__all__ = ["markdown", "to_markdown"]


def to_markdown(report: Report) -> str:
    """Write a report as Markdown."""
    lines = [f"# {markdown(content.title(report))}", ""]
    lines += [f"- {name}: {markdown(text)}" for name, text in content.facts(report).items()]
    rules = [":--" if index < content.TEXT_COLUMNS else "--:" for index in range(len(content.COLUMNS))]
    lines += ["", f"| {' | '.join(content.COLUMNS)} |", f"| {' | '.join(rules)} |"]
    lines += [f"| {' | '.join(map(markdown, row))} |" for row in content.rows(report)]
    lines += ["", content.counted_at(report)]
    for name, remarks in content.remarks(report):
        lines += ["", f"## {markdown(name)}", "", *(f"- {markdown(remark)}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def markdown(text: str) -> str:
    """Escape what means something in Markdown."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return escaped.replace("_", "\\_").replace("*", "\\*")
