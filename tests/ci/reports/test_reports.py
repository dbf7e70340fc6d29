"""What reports of checks say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ffc.ci.diff.changes import KINDS, Change
from ffc.ci.lock.check import Check
from ffc.ci.reports import data, markdown, writing
from ffc.ci.reports.annotations import to_annotations
from ffc.ci.reports.junit import to_junit
from ffc.ci.reports.sarif import to_sarif
from ffc.errors import InputError, UsageError
from tests.ci.reports import hostile


def failing() -> Check:
    return hostile.check_of("a.ffc.lock")


def passing(*, improved: bool = False) -> Check:
    """Return a check that passes: as its lock says, or with changes for the better."""
    plain = failing()
    changes = plain.diff.changes[:2] if improved else ()
    return replace(plain, path=Path("b.ffc.lock"), failures=(), improved=improved, diff=replace(plain.diff, changes=changes))


def test_markdown_has_what_fails_first_and_folds_what_is_long() -> None:
    lines = markdown.checks_to_markdown([passing(), failing()]).splitlines()
    assert lines[:2] == ["<!-- ffc diff check -->", "### ffc check: 1 of 2 locks fail"]
    heads = [line for line in lines if line.startswith("####")]
    assert heads == ["#### ❌ `a.ffc.lock`", "#### ✅ `b.ffc.lock`"]
    assert "- **cost**: `1 nodes are over the budget of 0 (a.ffc.lock)`" in lines
    assert "<details>" not in "\n".join(lines)
    many = replace(failing().diff, changes=tuple(Change("structure", f"{number} Add removed") for number in range(40)))
    rows = markdown.to_markdown(many).splitlines()
    place = rows.index("<details><summary>10 more</summary>")
    assert sum(row.startswith("| structure") for row in rows[:place]) == 30
    assert sum(row.startswith("| structure") for row in rows[place:]) == 10 and rows[-1] == "</details>"


def test_a_marker_tells_comments_apart() -> None:
    keys = ["check", "models/a.onnx", "models/b.onnx", "a--b"]
    assert len({markdown.marker(key) for key in keys}) == len(keys)


def test_junit_has_a_case_for_each_kind_of_the_policy() -> None:
    root = ElementTree.fromstring(to_junit([failing(), passing()]))
    assert [suite.attrib["failures"] for suite in root] == ["8", "0"]
    assert [case.attrib["name"] for case in root[0].findall("testcase")] == list(KINDS)
    (failure,) = root[0].findall("testcase[@name='attribute']/failure")
    assert failure.text == failure.attrib["message"]
    assert failure.text.startswith("×2 a.ffc.lock mode: a.ffc.lock → a.ffc.lock at ")


def test_what_passes_is_in_no_sarif_and_no_annotation() -> None:
    assert json.loads(to_sarif([passing(), passing(improved=True)]))["runs"][0]["results"] == []
    assert to_annotations([passing()]) == ""


def test_an_improvement_is_a_notice() -> None:
    (line,) = to_annotations([passing(improved=True)]).splitlines()
    assert line.startswith("::notice file=b.ffc.lock,line=1,title=ffc check::passes, it costs less than the lock says")


def test_json_says_all_of_it() -> None:
    read = json.loads(writing.to_json([failing(), passing()]))
    assert (read["format"], read["passed"]) == ("ffc.check/1", False)
    assert [each["passed"] for each in read["checks"]] == [False, True]
    assert [each["kind"] for each in read["checks"][0]["failures"]] == [*KINDS, "cost"]
    assert read["checks"][0]["diff"] == data.to_data(failing().diff)


@pytest.mark.parametrize("suffix", [".json", ".md", ".html", ".xml", ".sarif"])
def test_the_suffix_names_the_form(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"r{suffix}"
    writing.write([failing()], path)
    assert path.read_bytes()
    if suffix == ".html":
        with pytest.raises(UsageError, match="a report as HTML is of one lock, and there are 2"):
            writing.check_path(path, 2)


def test_a_lock_that_could_not_be_checked_is_in_every_form() -> None:
    done = [passing(), hostile.unfinished_of("c.ffc.lock")]
    said = "could not be checked: cannot load c.ffc.lock: c.ffc.lock"
    lines = markdown.checks_to_markdown(done).splitlines()
    assert lines[1:6] == ["### ffc check: 1 of 2 locks fail", "", "#### ❌ `c.ffc.lock`", "", f"`{said}`"]
    suite = ElementTree.fromstring(to_junit(done))[1]
    assert suite.attrib["errors"] == "1" and suite[0][0].attrib == {"message": said, "type": "InputError"}
    (result,) = json.loads(to_sarif(done))["runs"][0]["results"]
    assert (result["ruleId"], result["message"]["text"]) == ("ffc/unfinished", said)
    assert to_annotations(done) == f"::error file=c.ffc.lock,line=1,title=ffc check::{said}\n"
    found = json.loads(writing.to_json(done))["checks"][1]
    assert found == {"lock": "c.ffc.lock", "passed": False, "error": "cannot load c.ffc.lock: c.ffc.lock", "code": 3}
    with pytest.raises(InputError, match="cannot load"):
        writing.write(done[1:], Path("r.html"))


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"suffix '.txt'; known: \.json, \.md, \.html, \.xml, \.sarif"):
        writing.write([failing()], tmp_path / "r.txt")
    with pytest.raises(InputError, match="cannot be written"):
        writing.write([failing()], tmp_path / "no" / "r.md")
