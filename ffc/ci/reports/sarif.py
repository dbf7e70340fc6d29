"""What checks found as SARIF 2.1.0, which code scanning reads: https://docs.oasis-open.org/sarif/sarif/v2.1.0/."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ffc.ci.diff.changes import Kind
from ffc.ci.lock.check import Check, Failure, Unfinished
from ffc.ci.reports import content
from ffc.errors import one_line
from ffc.version import version

__all__ = ["to_sarif"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME = "https://github.com/fastformers/ffc"
_HELP = "If the change is meant, run `ffc check --accept` and commit the lock; the policy is in pyproject.toml."
_MEANING: dict[Kind, str] = {
    "interface": "Inputs, outputs, their types or opsets are others.",
    "structure": "Nodes came, went, or read other values.",
    "attribute": "A node carries another number or text.",
    "weight-type": "A weight has another type or shape.",
    "weight-value": "Weights moved further than the policy allows.",
    "name": "Names are others.",
    "cost": "The model is over its budget.",
    "numerics": "Outputs differ from those of the source by more than the policy allows.",
}
_UNFINISHED = "unfinished"
_ESCAPES = str.maketrans({"\\": "\\\\", "[": "\\[", "]": "\\]", "{": "{{", "}": "}}"})
"""Square brackets would read as a link, and a backslash as an escape of one (section 3.11.6); braces would read as a
placeholder (section 3.11.5)."""


def to_sarif(done: Sequence[Check | Unfinished]) -> str:
    """Write a result for each failure, at the first line of its lock, and one for a lock that could not be checked."""
    rules = [_rule(kind, f"The graph changed: {kind}.", meaning) for kind, meaning in _MEANING.items()]
    rules.append(_rule(_UNFINISHED, "A lock could not be checked.", "What it names is missing, broken or refused."))
    results = []
    for each in done:
        if isinstance(each, Unfinished):
            results.append(_result(each.path, _UNFINISHED, content.unfinished(each)))
        else:
            results += [_failed(each, failure) for failure in each.failures]
    driver = {"name": "ffc", "version": version(), "informationUri": _HOME, "rules": rules}
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=2) + "\n"


def _rule(kind: str, short: str, meaning: str) -> dict[str, Any]:
    texts = {"shortDescription": short, "fullDescription": meaning, "help": _HELP}
    return {"id": f"ffc/{kind}", **{name: {"text": text} for name, text in texts.items()}}


def _failed(found: Check, failure: Failure) -> dict[str, Any]:
    changes = failure.group.changes if failure.group else ()
    places = [change.where for change in changes if change.where]
    return _result(found.path, failure.kind, content.of_failure(failure), places)


def _result(path: Path, kind: str, said: str, places: Sequence[str] = ()) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": {"startLine": 1}}
    }
    if names := dict.fromkeys(one_line(place, 200) for place in places):
        location["logicalLocations"] = [{"fullyQualifiedName": name} for name in names]
    # Without a fingerprint of its own, code scanning takes all results at the first line of a lock for one.
    fingerprint = hashlib.sha256("\0".join((kind, said, *names)).encode()).hexdigest()[:16]
    return {
        "ruleId": f"ffc/{kind}",
        "level": "error",
        "message": {"text": said.translate(_ESCAPES)},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": f"{fingerprint}:1"},
    }


def _uri(path: Path) -> str:
    """Return a path, seen from the root of the repository, as a reference that no name in it leads elsewhere."""
    return quote(os.fsencode(Path(os.path.relpath(path)).as_posix()))
