"""A sample of the damaged models of ``tests/safety/fuzz.py``, and the record of its long run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import onnx

from tests.checkout import ROOT
from tests.safety.broken import encoder
from tests.safety.mutate import mutated

RECORD = Path(__file__).parent / "results" / "mutations.json"


def test_three_hundred_damaged_models() -> None:
    """No crash, no traceback, no hang, no file written: else `fuzz` says which and ends with 1."""
    arguments = ["--count", "300", "--start", "1000000", "--no-export", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.fuzz", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 in " in done.stdout and "0 faults" in done.stdout


def test_damage_is_told_by_its_number_and_much_of_it_gets_past_the_parser() -> None:
    model, passed = encoder(), 0
    for number in range(100):
        one, again = (mutated(model, [model[::-1]], random.Random(number)) for _ in range(2))
        assert one == again
        try:
            passed += bool(onnx.ModelProto.FromString(one).graph.node) and one != model
        except Exception:  # what protobuf refuses, in words of its own
            continue
    assert 30 < passed < 100


def test_the_record_is_of_ten_thousand_and_all_that_went_wrong_was_mended() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["format"] == "ffc.mutations/2"
    numbers = [number for run in record["runs"] for number in range(run["start"], run["start"] + run["cases"])]
    assert numbers == list(range(10_000))
    for run in record["runs"]:
        assert run["cases"] == sum(run["endings"].values())
        assert {fault["case"] for fault in run["faults"]} <= set(record["ended_well_after_mending"])
