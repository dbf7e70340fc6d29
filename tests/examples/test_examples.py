"""The examples: a pass of one's own, by its file and as a package, and what the demo prints."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ffc
from tests.checkout import ROOT

OWN_PASS = ROOT / "examples" / "own_pass"
MODULE = OWN_PASS / "fast_gelu.py"


def code_lines(text: str) -> set[int]:
    """Return the lines of a module that hold code: no blank lines, comments or docstrings."""
    tree = ast.parse(text)
    lines = set[int]()
    for node in ast.walk(tree):
        if hasattr(node, "lineno") and not isinstance(node, ast.Module):
            lines |= {node.lineno, node.end_lineno}
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines -= set(range(first.lineno, first.end_lineno + 1))
    return lines


def test_own_pass_has_fewer_than_twenty_lines_of_code() -> None:
    text = MODULE.read_text(encoding="utf-8")
    plain = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"]
    assert 10 < len(code_lines(text) & set(plain)) < 20


def test_own_pass_works_by_its_file_and_is_held_to_its_contract(exported: Callable[..., Path]) -> None:
    path = exported("bert")
    report = ffc.compile(path, f"{MODULE}:FastGelu,int8").report
    (step,) = (step for step in report.steps if step.text == "fast-gelu")
    assert step.changes == {"gelu": 2}
    assert step.verdict is not None
    assert step.verdict.contract == "cosine ≥ 0.999"
    assert 0 < step.verdict.difference < 0.05
    with pytest.raises(ffc.GateError, match=r"fast-gelu.*below the budget of 1\.1"):
        ffc.compile(path, f"{MODULE}:FastGelu{{cosine=1.1}}")


def test_own_pass_is_found_where_it_is_installed(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    source = tmp_path / "own_pass"  # building leaves folders behind
    source.mkdir()
    for file in ("pyproject.toml", "README.md", "fast_gelu.py"):
        (source / file).write_bytes((OWN_PASS / file).read_bytes())
    target = tmp_path / "site"
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(source)], check=True)
    command = [sys.executable, "-m", "ffc.cli", "passes", "fast-gelu", "--json"]
    there = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(command, env=there, capture_output=True, text=True, check=True)
    described = json.loads(done.stdout)
    assert described["origin"] == "entry point 'fast-gelu' of ffc-fast-gelu"
    assert described["contract"] == "cosine ≥ 0.999"


def test_own_tests_of_own_pass_hold() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_fast_gelu.py"]
    done = subprocess.run(command, cwd=OWN_PASS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
