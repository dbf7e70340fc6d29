"""Runs the tests of the core with the lowest, or the newest, versions of what ffc depends on, and without torch.

    python -m tests.packaging.versions lowest build/lowest

The lowest are the bounds that `pyproject.toml` states; the newest are what the index has. Tests that need an extra are
skipped, and counted; the encoders that others run on are exported by this Python, which has torch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
import venv
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement

from tests.checkout import ROOT
from tests.packaging.bare import run

FEWEST = 2500
"""Tests that must have passed: with fewer, what should have run was skipped."""

_VERSIONS = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


def main() -> None:
    """Make the environment anew, run the tests in it, and print with what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("folder", type=Path, help="Where the environment goes, and the record of the tests.")
    parser.add_argument("tests", nargs="*", help="What is given to pytest; by default all tests.")
    given = parser.parse_args()
    folder = given.folder.absolute()
    python = install(bounds() if given.which == "lowest" else {}, folder)
    test(python, folder, given.tests)


def bounds() -> dict[str, str]:
    """Return the lowest version of each package that ffc depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for requirement in map(Requirement, project["dependencies"]):
        stated = [*requirement.specifier]
        if [bound.operator for bound in stated] != [">="]:
            sys.exit(f"{requirement} of pyproject.toml states no lowest version alone")
        found[requirement.name] = stated[0].version
    return found


def install(pinned: dict[str, str], folder: Path) -> Path:
    """Make an environment of this checkout, with what its tests need and the versions given; return its Python."""
    venv.create(folder / "env", with_pip=True, clear=True)
    python = folder / "env" / "bin" / "python"
    pins = [f"{name}=={version}" for name, version in pinned.items()]
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--editable", f"{ROOT}[test]", *pins)
    names = list(bounds())
    found = subprocess.run([python, "-c", _VERSIONS, *names], capture_output=True, text=True, check=True).stdout.split()
    print("with", ", ".join(f"{name} {version}" for name, version in zip(names, found, strict=True)), flush=True)
    return python


def test(python: Path, folder: Path, tests: list[str]) -> None:
    """Run the tests, and stop if one fails or if too few were there to pass."""
    record = folder / "tests.xml"
    command = [python, "-m", "pytest", "--quiet", f"--junit-xml={record}", f"--exporter={sys.executable}"]
    workers = ["--numprocesses", "auto", "--maxprocesses", "8", "--dist", "worksteal"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *workers, *tests], cwd=ROOT, env=environment, check=False)
    if done.returncode > 1:  # it did not come to the tests
        sys.exit(done.returncode)
    passed, skipped = counted(record)
    for reason, count in skipped.most_common():
        print(f"{count} skipped: {reason}")
    print(f"{passed} passed")
    if done.returncode:
        sys.exit(done.returncode)
    if not tests and passed < FEWEST:
        sys.exit(f"only {passed} tests passed, and {FEWEST} should")


def counted(record: Path) -> tuple[int, Counter[str]]:
    """Return how many tests passed, and how many were skipped for what reason; a file that was skipped counts as one."""
    cases = list(ElementTree.parse(record).iter("testcase"))
    skipped = Counter(skip.get("message", "") for case in cases for skip in case.iter("skipped"))
    unlike = {"error", "failure", "skipped"}
    return sum(unlike.isdisjoint(part.tag for part in case) for case in cases), skipped


if __name__ == "__main__":
    main()
