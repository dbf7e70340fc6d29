"""Plant a fault in BERT-base, let `ffc reduce` find it, and run what that writes in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compile_cost import BASE, made
from record import save
from rich.console import Console

import ffc
from ffc.runtime.machine import machine

LAYER = 7
"""The layer whose bias the pass is wrong about; those of a random BERT are zero throughout."""

PLUGIN = Path(__file__).with_name("drop_bias.py")
PASSES = "fuse,drop-bias,int8"


def plant(source: Path, path: Path) -> None:
    """Write a model whose feed-forward network of one layer has a bias that begins with zero and goes on otherwise."""
    model, width = ffc.load(source), 4 * BASE[1]
    biases = [node for node in model.graph if node.op_type == "Add" and any(map(_is_bias, node.inputs))]
    bias = np.full(width, 0.5, np.float32)
    bias[0] = 0
    node = biases[LAYER]
    place = next(index for index, value in enumerate(node.inputs) if _is_bias(value))
    node.replace_input_with(place, ffc.Editor(model).constant(bias, "planted"))
    ffc.save(model, path)


def _is_bias(value: Any) -> bool:
    bias = ffc.constant(value)
    return bias is not None and bias.shape == (4 * BASE[1],)


def reduced(path: Path, folder: Path, seconds: int) -> dict[str, Any]:
    """Run `ffc reduce` and return what it prints."""
    command = [sys.executable, "-m", "ffc", "reduce", str(path), "--passes", PASSES, "--plugin", str(PLUGIN)]
    command += ["--seconds", str(seconds), "--output", str(folder), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reproduced(folder: Path) -> dict[str, object]:
    """Run the reproducer and return its exit status and what it prints."""
    done = subprocess.run([sys.executable, "reproduce.py"], cwd=folder, capture_output=True, text=True, check=False)
    return {"exit_status": done.returncode, "said": done.stdout.strip()}


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build"), help="where the model is exported to (build)")
    parser.add_argument("--seconds", type=int, default=900, help="how long the search may take (900)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console, where = Console(), machine()
    console.print(str(where))
    source = made(given.folder, *BASE)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "planted.onnx"
        plant(source, path)
        found = reduced(path, Path(folder) / "reduced", given.seconds)
        shown = reproduced(Path(folder) / "reduced")
        text = (Path(folder) / "reduced" / "README.md").read_text(encoding="utf-8")
    del found["folder"]
    console.print(text, markup=False)
    console.print(
        f"BERT-base, {found['nodes']['before']} nodes: {found['nodes']['after']} left after {found['tried']} candidates"
        f" in {found['seconds']:.0f} s; the reproducer exits with status {shown['exit_status']}"
    )
    if given.json:
        save(given.json, "ffc.examples.reduce-fault/1", where, 0, passes=PASSES, found=found, reproducer=shown)


if __name__ == "__main__":
    main()
