"""What checks found as workflow commands of GitHub Actions, which show it beside the lines of a pull request.

Source of the form: https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ffc.ci.lock.check import Check, Unfinished
from ffc.ci.reports import content
from ffc.errors import one_line

__all__ = ["to_annotations"]


def to_annotations(done: Sequence[Check | Unfinished]) -> str:
    """Write a line for each failure, and one for each lock that is out of date though the check passes."""
    lines = []
    for each in done:
        where = f"file={_property(Path(os.path.relpath(each.path)).as_posix())},line=1"
        if isinstance(each, Unfinished):
            lines.append(f"::error {where},title=ffc check::{_data(content.unfinished(each))}")
            continue
        for failure in each.failures:
            title = _property(f"ffc check: {failure.kind}")
            lines.append(f"::error {where},title={title}::{_data(content.of_failure(failure))}")
        if each.improved:
            lines.append(f"::notice {where},title=ffc check::{_data(content.verdict(each))}")
    return "".join(f"{line}\n" for line in lines)


def _data(text: str) -> str:
    return one_line(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
