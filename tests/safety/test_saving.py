"""A process that is killed while it saves leaves the old files or the new ones, whole and fitting each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffc.graph import files
from tests.checkout import ROOT
from tests.safety.killed import LARGE, STEPS, model, weight


def test_the_steps_are_all_there_are() -> None:
    """One more step in the code and the tests below would not kill before it."""
    assert (STEPS[False], STEPS[True]) == (3, 6)


@pytest.mark.parametrize(
    ("external", "step"), [(external, step) for external, count in STEPS.items() for step in range(count)]
)
def test_killed_while_saving(tmp_path: Path, external: bool, step: int) -> None:
    path = tmp_path / "m.onnx"
    files.save(model(1.0), path, external=external)
    killed(path, external, f"{step}")
    loaded = weight(files.load(path))
    placed = step == STEPS[external] - 1  # all that is missing is that the folder is made durable
    np.testing.assert_array_equal(loaded, weight(model(2.0 if placed else 1.0)))
    files.save(model(3.0), path, external=external)
    kinds = sorted(each.suffix for each in tmp_path.iterdir())
    assert kinds == ([".data", ".onnx"] if external else [".onnx"]), "what was left behind is gone"


def test_killed_while_writing(tmp_path: Path) -> None:
    """Half of the data are written, then the process goes."""
    path = tmp_path / "m.onnx"
    files.save(model(1.0), path)
    killed(path, False, "write")
    assert any(each.name.startswith(".ffc-") and 0 < each.stat().st_size < LARGE for each in tmp_path.iterdir())
    np.testing.assert_array_equal(weight(files.load(path)), weight(model(1.0)))
    files.save(model(2.0), path)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def killed(path: Path, external: bool, step: str) -> None:
    """Save in a process that kills itself before a step, the number of a call of fsync or replace, or in a write."""
    arguments = [sys.executable, "-m", "tests.safety.killed", str(path), str(int(external)), step]
    done = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
