"""Writing a compile report in the form that the suffix of a file names."""

from __future__ import annotations

from pathlib import Path

from ffc.compiler.reports import content
from ffc.compiler.reports.report import Report, to_json
from ffc.graph.files import publish, targets
from ffc.graph.files.destination import named
from ffc.settings import libraries
from ffc.tables import html, markdown

__all__ = ["check_path", "to_html", "to_markdown", "write"]


def check_path(path: Path) -> None:
    """Check that a report can be written to `path`, before the work that it reports.

    Raises:
        UsageError: If its suffix names no form of report, its folder does not exist, or it is a folder itself; and as
            `targets.check_file` does.
        MissingError: If a library that the form needs is not installed.
    """
    targets.check_suffix(path, _FORMS, named=f"report '{path}'")
    targets.check_file(path, named=f"report '{path}'", advice="")
    if path.suffix == ".html":
        libraries.check(libraries.PAGES)


def write(report: Report, path: str | Path) -> None:
    """Write a report in the form that the suffix of `path` names.

    Raises:
        UsageError: If the suffix names none, or there is no such folder.
        InputError: If the file cannot be written.
    """
    path = named(path)
    check_path(path)
    publish.write_text(path, _FORMS[path.suffix](report), f"report '{path}'")


def to_markdown(report: Report) -> str:
    """Write a report as Markdown."""
    lines = [f"# {markdown.escaped(content.title(report))}", ""]
    lines += [f"- {name}: {markdown.escaped(text)}" for name, text in content.facts(report).items()]
    lines += ["", *markdown.lines(content.table(report))]
    for name, remarks in content.remarks(report):
        lines += ["", f"## {markdown.escaped(name)}", "", *(f"- {markdown.escaped(remark)}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def to_html(report: Report) -> str:
    """Write a report as one HTML page that needs nothing else."""
    return html.render(
        Path(__file__).with_name("compile.html"),
        title=content.title(report),
        facts=content.facts(report),
        passes=content.table(report),
        remarks=content.remarks(report),
    )


_FORMS = {".json": to_json, ".md": to_markdown, ".html": to_html}
