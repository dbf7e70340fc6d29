"""What checks found as JUnit's XML, which most CIs show as tests: a suite a lock, a case a kind of change.

Source of the form: ``junit-10.xsd`` of the xUnit plugin of Jenkins.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from ffc.ci.diff.changes import KINDS
from ffc.ci.lock.check import Check, Failure, Unfinished
from ffc.ci.reports import content
from ffc.errors import one_line

__all__ = ["to_junit"]


def to_junit(done: Sequence[Check | Unfinished]) -> str:
    """Write a suite for each lock, with a case for each kind that its policy lets fail, or one that is an error."""
    root = ElementTree.Element("testsuites", name="ffc check")
    for each in done:
        if isinstance(each, Unfinished):
            suite = _suite(root, each, tests=1, errors=1)
            case = ElementTree.SubElement(suite, "testcase", classname=suite.attrib["name"], name="check")
            said = content.unfinished(each)
            ElementTree.SubElement(case, "error", message=said, type=type(each.error).__name__).text = said
            continue
        kinds = [kind for kind in KINDS if kind in each.policy.fail]
        suite = _suite(root, each, tests=len(kinds), failures=len({failure.kind for failure in each.failures}))
        for kind in kinds:
            case = ElementTree.SubElement(suite, "testcase", classname=suite.attrib["name"], name=kind)
            lines = [_line(failure) for failure in each.failures if failure.kind == kind]
            if lines:
                ElementTree.SubElement(case, "failure", message=lines[0], type=kind).text = "\n".join(lines)
        ElementTree.SubElement(suite, "system-out").text = content.verdict(each)
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _suite(
    root: ElementTree.Element, of: Check | Unfinished, *, tests: int, failures: int = 0, errors: int = 0
) -> ElementTree.Element:
    counts = {"tests": tests, "failures": failures, "errors": errors}
    shown = {name: str(count) for name, count in counts.items()}
    return ElementTree.SubElement(root, "testsuite", {"name": content.place(of.path), **shown})


def _line(failure: Failure) -> str:
    if failure.group is None:
        return one_line(failure.message)
    where = f" at {one_line(failure.group.where, 200)}" if failure.group.where else ""
    return f"×{failure.group.count} {content.said(failure.group)}{where}"
