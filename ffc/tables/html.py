"""HTML pages made from templates: ``page.html`` is the frame of each, and ``table.html`` writes tables."""

from __future__ import annotations

from pathlib import Path

__all__ = ["render"]

_TEMPLATES = Path(__file__).parent / "templates"


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
