"""What every form of a report shows: its table, facts and remarks."""

from __future__ import annotations

from collections.abc import Mapping

from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.reports.report import Report, Step
from ffc.graph.cost import Cost
from ffc.tables.table import Table, columns, number

__all__ = ["changes", "facts", "remarks", "table", "title"]

_COLUMNS = columns(
    "pass",
    numbers=("changes", "nodes", "parameters (M)", "MB", "MACs (G)", "seconds", "difference", "cosine"),
)


def title(report: Report) -> str:
    """Return what a report is of."""
    return f"ffc compile {report.source}{', proved on the rows given alone' if report.alone else ''}"


def table(report: Report) -> Table:
    """Return the model as it came, then each step."""
    before = ("(as it came)", "", *_cost_cells(report.before), "", "", "")
    return Table(_COLUMNS, (before, *(_step_row(step) for step in report.steps)), notes=(_counted_at(report),))


def facts(report: Report) -> dict[str, str]:
    """Return what is told of the compile as a whole, by name."""
    first = {"proof": f"on the rows given alone, since {report.alone}"} if report.alone else {}
    first |= {"rows": report.rows} if report.rows else {}
    first |= {"sizes": report.remark} if report.remark else {}
    return first | {
        "output": report.output or "not written",
        "pipeline": report.pipeline or "(no passes)",
        "target": report.target,
        "result": "unchanged" if report.verdict is None else _verdict(report.verdict),
        "needs": f"onnxruntime ≥ {report.oldest_onnxruntime}",
        "made with": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        "time": f"{report.seconds:.1f} s",
    }


def remarks(report: Report) -> list[tuple[str, list[str]]]:
    """Return what is told of each step, under its name."""
    return [
        (_name(step), [changes(step.changes), *step.notes, *(f"skipped: {text}" for text in step.skipped)])
        for step in report.steps
    ]


def changes(counts: Mapping[str, int]) -> str:
    """Say how many changes of which kinds were made."""
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing to do"


def _counted_at(report: Report) -> str:
    """Say at which sizes MACs are counted, and what the table leaves open."""
    unknown = any(cost.macs_unknown for cost in (report.before, *(step.cost for step in report.steps)))
    note = "; '?' stands for products whose size is not known" if unknown else ""
    sizes = f"batch {report.batch}, {report.length} tokens"
    return f"MACs at {sizes}; differences relative to the scale of the output{note}."


def _step_row(step: Step) -> tuple[str, ...]:
    found = step.verdict
    measured = ("", "") if found is None else (f"{found.difference:.1e}", f"{found.cosine:.6f}")
    made = str(sum(step.changes.values()))
    return (_name(step), made, *_cost_cells(step.cost), f"{step.seconds:.1f}", *measured)


def _name(step: Step) -> str:
    return f"{step.text} (for {step.needed_by})" if step.needed_by else step.text


def _cost_cells(cost: Cost) -> list[str]:
    macs = number(cost.macs / 1e9) + (" + ?" if cost.macs_unknown else "")
    return [str(cost.nodes), number(cost.parameters / 1e6), number(cost.bytes / 1e6), macs]


def _verdict(verdict: Verdict) -> str:
    agreement = "" if verdict.agreement is None else f", agreement {verdict.agreement:.4f}"
    measured = f"difference {verdict.difference:.1e}, cosine {verdict.cosine:.6f}{agreement}"
    return f"{measured} on {verdict.probes} probes, worst {verdict.worst} ({verdict.contract})"
