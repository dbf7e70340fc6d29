"""The lowest versions are those that `pyproject.toml` states, and what a run of the tests came to is counted."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.checkout import ROOT
from tests.packaging import versions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_dependency_has_a_lowest_version_and_no_other_bound() -> None:
    wanted = [str(Requirement(f"{name}>={version}")) for name, version in versions.bounds().items()]
    assert wanted == [str(Requirement(each)) for each in PROJECT["dependencies"]]


def test_applications_that_pin_older_packages_have_room() -> None:
    pinned = {"numpy": "1.26.4", "onnxruntime": "1.23.2", "onnx": "1.18.0", "pydantic": "2.7.4", "rich": "13.7.1"}
    assert {name for name, version in pinned.items() if Version(version) < Version(versions.bounds()[name])} == set()


@pytest.mark.parametrize("line", ["numpy", "numpy>=1.26,<3", "numpy==2.0", "numpy<3"])
def test_a_dependency_without_a_lowest_version_alone_is_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project]\ndependencies = ["{line}"]\n')
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"numpy.* of pyproject\.toml states no lowest version alone"):
        versions.bounds()


def test_what_was_skipped_is_counted_by_its_reason_and_is_no_pass(tmp_path: Path) -> None:
    record = tmp_path / "tests.xml"
    record.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><properties/></testcase><testcase name="c"><failure/></testcase>'
        '<testcase name="d"><skipped message="needs torch"/></testcase><testcase name="e"><skipped message="needs torch"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert versions.counted(record) == (2, {"needs torch": 2})
