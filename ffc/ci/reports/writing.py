"""What checks found, written in the form that the suffix of a file names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ffc.ci.lock.check import Check, Unfinished
from ffc.ci.reports import content
from ffc.ci.reports.annotations import to_annotations
from ffc.ci.reports.data import change_data, to_data
from ffc.ci.reports.junit import to_junit
from ffc.ci.reports.markdown import checks_to_markdown
from ffc.ci.reports.sarif import to_sarif
from ffc.errors import UsageError
from ffc.graph.files import publish, targets
from ffc.settings import libraries

__all__ = ["FORMAT", "check_path", "to_annotations", "to_json", "write"]

FORMAT = "ffc.check/1"


def check_path(path: Path, locks: int) -> None:
    """Refuse a file whose suffix names no form, or one for a single lock where there are several.

    Raises:
        UsageError: If so.
        MissingError: If a library that the form needs is not installed.
    """
    targets.check_suffix(path, _FORMS, named=f"report '{path}'")
    if path.suffix == ".html" and locks != 1:
        raise UsageError(f"a report as HTML is of one lock, and there are {locks}; name one")
    if path.suffix == ".html":
        libraries.check(libraries.PAGES)


def write(done: Sequence[Check | Unfinished], path: Path) -> None:
    """Write what checks found.

    Raises:
        UsageError: If the suffix names no form, or the form is for one check and there are several.
        InputError: If the file cannot be written.
    """
    check_path(path, len(done))
    publish.write_text(path, _FORMS[path.suffix](done), f"report '{path}'")


def to_json(done: Sequence[Check | Unfinished]) -> str:
    """Write what checks found as JSON, ending with a newline."""
    checks = [_unfinished(each) if isinstance(each, Unfinished) else _finished(each) for each in done]
    data = {"format": FORMAT, "passed": all(each.passed for each in done), "checks": checks}
    return json.dumps(data, indent=2) + "\n"


def _unfinished(found: Unfinished) -> dict[str, Any]:
    return {"lock": str(found.path), "passed": False, "error": str(found.error), "code": found.error.exit_code}


def _finished(found: Check) -> dict[str, Any]:
    failures = [
        {
            "kind": failure.kind,
            "message": failure.message,
            "changes": [change_data(change, found.diff) for change in failure.group.changes] if failure.group else [],
        }
        for failure in found.failures
    ]
    return {
        "lock": str(found.path),
        "model": str(found.source),
        "passed": found.passed,
        "improved": found.improved,
        "said": content.verdict(found),
        "failures": failures,
        "diff": to_data(found.diff),
    }


def _html(done: Sequence[Check | Unfinished]) -> str:
    from ffc.ci.page.page import diff_page

    (found,) = done
    if isinstance(found, Unfinished):
        raise found.error  # there is nothing to draw
    return diff_page(found.diff)


_FORMS: dict[str, Callable[[Sequence[Check | Unfinished]], str]] = {
    ".json": to_json,
    ".md": checks_to_markdown,
    ".html": _html,
    ".xml": to_junit,
    ".sarif": to_sarif,
}
