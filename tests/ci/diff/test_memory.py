"""Weights are hashed one at a time: memory does not grow with their number."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffc.graph import files
from tests.checkout import ROOT
from tests.graphs import Draft

SIDE = 1448  # 8 MB a weight
CODE = """
import resource, sys
from ffc.cli import main
code = main(["diff", *sys.argv[1:], "--json"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""


def save(path: Path, weights: int, external: bool) -> None:
    draft = Draft()
    value = draft.input("x", "n", SIDE)
    for index in range(weights):
        value = draft.op.MatMul(value, draft.weight(f"w{index}", np.full((SIDE, SIDE), index, np.float32)))
    files.save(draft.model({"y": (value, ["n", SIDE])}), path, external=external)


def megabytes(path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), str(path)], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    return int(done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
@pytest.mark.parametrize("external", [False, True], ids=["in the file", "external"])
def test_memory_is_that_of_a_few_weights(external: bool, tmp_path: Path) -> None:
    for name, weights in (("few", 2), ("many", 24)):
        save(tmp_path / f"{name}.onnx", weights, external)
    grown = megabytes(tmp_path / "many.onnx") - megabytes(tmp_path / "few.onnx")
    assert grown < 3 * 8, "22 more weights of 8 MB, in each of two models"
