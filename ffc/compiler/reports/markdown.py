"""A compile report as Markdown."""

from __future__ import annotations

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report
from ffc.tables import markdown

__all__ = ["to_markdown"]


def to_markdown(report: Report) -> str:
    """Write a report as Markdown."""
    lines = [f"# {markdown.escaped(content.title(report))}", ""]
    lines += [f"- {name}: {markdown.escaped(text)}" for name, text in content.facts(report).items()]
    lines += ["", *markdown.lines(content.table(report))]
    for name, remarks in content.remarks(report):
        lines += ["", f"## {markdown.escaped(name)}", "", *(f"- {markdown.escaped(remark)}" for remark in remarks)]
    return "\n".join(lines) + "\n"
