"""Writing a compile report in the form that the suffix of a file names."""

from __future__ import annotations

from pathlib import Path

from ffc.compiler.reports.html import to_html
from ffc.compiler.reports.markdown import to_markdown
from ffc.compiler.reports.report import Report, to_json
from ffc.errors import UsageError
from ffc.graph.files import publish

__all__ = ["SUFFIXES", "check_path", "write"]

SUFFIXES = (".json", ".md", ".html")
"""The suffixes that `write` knows."""


def check_path(path: Path) -> None:
    """Check that a report can be written to `path`, before the work that it reports.

    Raises:
        UsageError: If its suffix names no form of report, its folder does not exist, or it is a folder itself.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"report '{path}' has the suffix {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder '{path.parent}' of report '{path}' does not exist; create it first")
    if path.is_dir():
        raise UsageError(f"report '{path}' is a folder; name a file")


def write(report: Report, path: str | Path) -> None:
    """Write a report in the form that the suffix of `path` names.

    Raises:
        UsageError: If the suffix names none, or there is no such folder.
        InputError: If the file cannot be written.
    """
    path = Path(path)
    check_path(path)
    forms = dict(zip(SUFFIXES, (to_json, to_markdown, to_html), strict=True))
    publish.write_text(path, forms[path.suffix](report), f"report '{path}'")
