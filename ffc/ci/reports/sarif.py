"""What checks found as SARIF 2.1.0, which code scanning reads: https://docs.oasis-open.org/sarif/sarif/v2.1.0/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ffc.ci.diff.changes import KINDS
from ffc.ci.lock.check import Check, Failure
from ffc.ci.reports import content
from ffc.errors import one_line
from ffc.version import version

__all__ = ["to_sarif"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(done: Sequence[Check]) -> str:
    """Write a result for each failure, at the first line of its lock."""
    rules = [{"id": f"ffc/{kind}", "shortDescription": {"text": f"The graph changed: {kind}."}} for kind in KINDS]
    results = [_result(each, failure) for each in done for failure in each.failures]
    driver = {"name": "ffc", "version": version(), "rules": rules}
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _result(found: Check, failure: Failure) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": found.path.as_posix()}, "region": {"startLine": 1}}
    }
    said = one_line(failure.message)
    if failure.group is not None:
        said = content.said(failure.group)
        said += f" (×{failure.group.count})" if failure.group.count > 1 else ""
        names = [one_line(change.where, 200) for change in failure.group.changes if change.where]
        location["logicalLocations"] = [{"fullyQualifiedName": name} for name in names]
    # Square brackets would read as a link, backslash as an escape of one: section 3.11.6 of the standard.
    text = said.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return {"ruleId": f"ffc/{failure.kind}", "level": "error", "message": {"text": text}, "locations": [location]}
