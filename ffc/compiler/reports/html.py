"""A compile report as one HTML page that needs nothing else, and the templates that other pages of ffc share."""

from __future__ import annotations

from pathlib import Path

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report

__all__ = ["render", "to_html"]

_TEMPLATES = Path(__file__).parent / "templates"


def to_html(report: Report) -> str:
    """Write a report as one HTML page that needs nothing else."""
    return render(
        _TEMPLATES / "compile.html",
        title=content.title(report),
        facts=content.facts(report),
        columns=content.COLUMNS,
        rows=content.rows(report),
        text_columns=content.TEXT_COLUMNS,
        note=content.counted_at(report),
        remarks=content.remarks(report),
    )


def render(template: Path, **values: object) -> str:
    """Fill in a template of Jinja; all values are escaped.

    Args:
        template: The file. It finds its neighbours by name, and ``page.html`` and ``table.html`` that stand here.
        values: What the template names, and what those name that it uses.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 0.06 s, which only a page need wait for

    loader = FileSystemLoader([template.parent, _TEMPLATES])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template.name).render(values)
