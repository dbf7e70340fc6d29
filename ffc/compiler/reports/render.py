"""A compile report as JSON, a terminal table, Markdown or HTML; an explanation as a terminal table."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffc.compiler.reports.report import FORMAT, Report, Step, Verdict
from ffc.errors import InputError, UsageError, one_line
from ffc.graph.cost import Cost
from ffc.graph.files import publish

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ffc.compiler.explain.explanation import Explanation
    from ffc.compiler.explain.survey import Finding

__all__ = [
    "STYLE",
    "SUFFIXES",
    "check_path",
    "explained",
    "from_json",
    "markdown",
    "number",
    "table",
    "terminal",
    "to_html",
    "to_json",
    "to_markdown",
    "write",
]

SUFFIXES = (".json", ".md", ".html")
"""The suffixes that `write` knows."""

COLUMNS = ("pass", "changes", "nodes", "parameters (M)", "MB", "MACs (G)", "seconds", "difference", "cosine")
_TEXT_COLUMNS = 1  # the others hold numbers and are set flush right


def to_json(report: Report) -> str:
    """Write a report as JSON, which `from_json` reads."""
    return json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        InputError: If it is not one.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"the report is not JSON: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise InputError(f"the report has format {found!r}, wanted {FORMAT!r}; write it again with this version of ffc")
    try:
        return TypeAdapter(Report).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"the report is broken at {place}: {first['msg']}") from error


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
    try:
        publish.write(path, forms[path.suffix](report).encode())
    except OSError as error:
        raise InputError(f"report '{path}' cannot be written: {error.strerror}") from error


def table(report: Report) -> Table:
    """Return the passes as a table for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(COLUMNS):
        grid.add_column(column, justify="left" if index < _TEXT_COLUMNS else "right")
    for row in _rows(report):
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def terminal(report: Report) -> RenderableType:
    """Return the whole report for the terminal: the table, then the verdict and the remarks."""
    from rich.console import Group
    from rich.text import Text

    lines = [_counted_at(report), "", *(f"{name}: {text}" for name, text in _facts(report).items())]
    for name, remarks in _remarks(report):
        lines += ["", name, *(f"  {remark}" for remark in remarks)]
    return Group(table(report), Text("\n".join(["", *lines]), no_wrap=True, overflow="ignore"))


def explained(explanation: Explanation) -> RenderableType:
    """Return an explanation for the terminal: its findings as a table, those alike in one row, then the remarks."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table("block", "layer", "size", "taken", "as what, or why not", "name", box=SIMPLE_HEAD, show_edge=False)
    grid.pad_edge = False
    listed = explanation.text.partition("{")[0] in _LISTED
    for alike in [[one] for one in explanation.findings] if listed else _alike(explanation.findings):
        grid.add_row(*(Text(one_line(cell)) for cell in _finding_row(alike)))
    after = f" after {', '.join(explanation.before)}" if explanation.before else ""
    refused = explanation.refused
    lines = [f"changes: {_changes(explanation.changes)}" if refused is None else f"refused: {one_line(refused)}"]
    lines += [f"note: {one_line(note)}" for note in explanation.notes]
    lines += ["", "Nothing was proved and nothing written; `ffc compile` does both."]
    parts: list[RenderableType] = [Text(f"{explanation.model}: {explanation.text}{after}\n")]
    parts += [grid, Text()] if explanation.findings else []
    return Group(*parts, Text("\n".join(lines)))


_LISTED = ("prune", "int8")
"""Passes of which a user wants to see each finding, its name above all."""

_NUMBER_IN_NAME = re.compile(r"(?<=[A-Za-z_./:])\d+|_\d+")


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together that differ in layer and in the numbers of names alone."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        kind, why = (_NUMBER_IN_NAME.sub("", text) for text in (one.kind, one.why))
        groups.setdefault((kind, one.layer is None, one.what, one.taken, why), []).append(one)
    return list(groups.values())


def _finding_row(alike: Sequence[Finding]) -> list[str]:
    first, *others = alike
    layers = [one.layer for one in alike if one.layer is not None]
    times = f" ×{len(alike)}" if len(alike) > len(set(layers)) and others else ""
    more = f" and {len(others)} more" if others else ""
    return [
        f"{first.kind}{times}", _ranges(sorted(set(layers))), first.what, "yes" if first.taken else "no", first.why,
        f"{first.name}{more}" if first.name else "",
    ]  # fmt: skip


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ``0–3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def to_markdown(report: Report) -> str:
    """Write a report as Markdown."""
    lines = [f"# {markdown(_title(report))}", ""]
    lines += [f"- {name}: {markdown(text)}" for name, text in _facts(report).items()]
    rules = [":--" if index < _TEXT_COLUMNS else "--:" for index in range(len(COLUMNS))]
    lines += ["", f"| {' | '.join(COLUMNS)} |", f"| {' | '.join(rules)} |"]
    lines += [f"| {' | '.join(map(markdown, row))} |" for row in _rows(report)]
    lines += ["", _counted_at(report)]
    for name, remarks in _remarks(report):
        lines += ["", f"## {markdown(name)}", "", *(f"- {markdown(remark)}" for remark in remarks)]
    return "\n".join(lines) + "\n"


def to_html(report: Report) -> str:
    """Write a report as one HTML page that needs nothing else."""
    kinds = ["t" if index < _TEXT_COLUMNS else "n" for index in range(len(COLUMNS))]
    facts = "".join(f"<dt>{_html(name)}</dt><dd>{_html(text)}</dd>" for name, text in _facts(report).items())
    head = "".join(f'<th class="{kind}">{_html(name)}</th>' for kind, name in zip(kinds, COLUMNS, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{_html(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in _rows(report)
    )
    remarks = "".join(
        f"<h2>{_html(name)}</h2><ul>{''.join(f'<li>{_html(remark)}</li>' for remark in found)}</ul>\n"
        for name, found in _remarks(report)
    )
    return _PAGE.format(
        style=STYLE,
        title=_html(_title(report)),
        facts=facts,
        head=head,
        body=body,
        note=_html(_counted_at(report)),
        remarks=remarks,
    )


def _rows(report: Report) -> list[list[str]]:
    before = ["(as it came)", "", *_cost_cells(report.before), "", "", ""]
    return [before, *(_step_row(step) for step in report.steps)]


def _step_row(step: Step) -> list[str]:
    difference, cosine = (
        ("", "") if step.verdict is None else (f"{step.verdict.difference:.1e}", f"{step.verdict.cosine:.6f}")
    )
    return [
        _name(step),
        str(sum(step.changes.values())),
        *_cost_cells(step.cost),
        f"{step.seconds:.1f}",
        difference,
        cosine,
    ]


def _name(step: Step) -> str:
    return f"{step.text} (for {step.needed_by})" if step.needed_by else step.text


def _cost_cells(cost: Cost) -> list[str]:
    macs = number(cost.macs / 1e9) + (" + ?" if cost.macs_unknown else "")
    return [str(cost.nodes), number(cost.parameters / 1e6), number(cost.bytes / 1e6), macs]


def number(value: float) -> str:
    """Write a number with three digits that count, and never fewer than its integer ones."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _title(report: Report) -> str:
    return f"ffc compile {report.source}"


def _facts(report: Report) -> dict[str, str]:
    facts = {
        "output": report.output or "not written",
        "pipeline": report.pipeline or "(no passes)",
        "target": report.target,
    }
    facts["result"] = "unchanged" if report.verdict is None else _verdict(report.verdict)
    facts["needs"] = f"onnxruntime ≥ {report.oldest_onnxruntime}"
    facts["made with"] = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    facts["time"] = f"{report.seconds:.1f} s"
    return facts


def _verdict(verdict: Verdict) -> str:
    agreement = "" if verdict.agreement is None else f", agreement {verdict.agreement:.4f}"
    measured = f"difference {verdict.difference:.1e}, cosine {verdict.cosine:.6f}{agreement}"
    return f"{measured} on {verdict.probes} probes, worst {verdict.worst} ({verdict.contract})"


def _counted_at(report: Report) -> str:
    unknown = any(cost.macs_unknown for cost in (report.before, *(step.cost for step in report.steps)))
    note = "; '?' stands for products whose size is not known" if unknown else ""
    return (
        f"MACs at batch {report.batch}, {report.length} tokens; differences relative to the scale of the output{note}."
    )


def _remarks(report: Report) -> list[tuple[str, list[str]]]:
    return [(_name(step), _step_remarks(step)) for step in report.steps]


def _step_remarks(step: Step) -> list[str]:
    return [_changes(step.changes), *step.notes, *(f"skipped: {text}" for text in step.skipped)]


def _changes(changes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in changes.items()) or "nothing to do"


def markdown(text: str) -> str:
    """Escape what means something in Markdown."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return escaped.replace("_", "\\_").replace("*", "\\*")


def _html(text: str) -> str:
    return html.escape(text)


STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d7de, #3d444d); --quiet: light-dark(#59636e, #9198a1); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #0d1117); color: light-dark(#1f2328, #e6edf3); }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin-top: 1.5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt, .note { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } .t { text-align: left; } 
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
<dl>{facts}</dl>
<div class="wide"><table><thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody></table></div>
<p class="note">{note}</p>
{remarks}</body>
</html>
"""
