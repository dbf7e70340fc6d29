"""A compile report as one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report
from ffc.tables.html import render

__all__ = ["to_html"]


def to_html(report: Report) -> str:
    """Write a report as one HTML page that needs nothing else."""
    return render(
        Path(__file__).with_name("compile.html"),
        title=content.title(report),
        facts=content.facts(report),
        passes=content.table(report),
        remarks=content.remarks(report),
    )
