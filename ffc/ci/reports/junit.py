"""What checks found as JUnit's XML, which most CIs show as tests: a suite a lock, a case a kind of change.

Source of the form: ``junit-10.xsd`` of the xUnit plugin of Jenkins.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from ffc.ci.diff.changes import KINDS
from ffc.ci.lock.check import Check, Failure
from ffc.ci.reports import content
from ffc.errors import one_line

__all__ = ["to_junit"]


def to_junit(done: Sequence[Check]) -> str:
    """Write a suite for each lock, with a case for each kind that its policy lets fail."""
    root = ElementTree.Element("testsuites", name="ffc check")
    for each in done:
        kinds = [kind for kind in KINDS if kind in each.policy.fail]
        failed = {failure.kind for failure in each.failures}
        name, counts = content.place(each.path), {"tests": len(kinds), "failures": len(failed), "errors": 0}
        shown = {key: str(count) for key, count in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, **shown})
        for kind in kinds:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=kind)
            lines = [_line(failure) for failure in each.failures if failure.kind == kind]
            if lines:
                ElementTree.SubElement(case, "failure", message=lines[0], type=kind).text = "\n".join(lines)
        ElementTree.SubElement(suite, "system-out").text = content.verdict(each)
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _line(failure: Failure) -> str:
    if failure.group is None:
        return one_line(failure.message)
    where = f" at {one_line(failure.group.where, 200)}" if failure.group.where else ""
    return f"×{failure.group.count} {content.said(failure.group)}{where}"
