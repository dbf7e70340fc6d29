"""Compiles ONNX's own backend tests, each with its own inputs as the rows to prove on, and tells how every one ended.

    python -m tests.coverage.backend --record tests/coverage/results/backend.json

Each is compiled in a process of its own, its result run by stock onnxruntime on the same inputs and compared with what the
model gives there as it came. Those that onnxruntime does not run as they came are told apart. It ends with 1 where one is lost
otherwise than by a refusal that names an operator, an opset or a type, or where too many are refused. `--only NAME` compiles
one and shows what it said.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.coverage.outcomes import Case, outcome, tally

PASSES = "fuse"
MOST_REFUSED = 120
NAMED = {"operator", "opset", "type"}
"""What a refusal has to name one of."""


def cases() -> list[Case]:
    """Return all backend tests whose models onnx holds in memory, in order of their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its numpy divides by zero on purpose
        from onnx.backend.test.case import model, node

        collected = [*node.collect_testcases(None), *model.collect_testcases()]
    kept = [each for each in collected if each.model is not None]
    return sorted((_case(each) for each in kept), key=lambda case: case.name)


def _case(test: Any) -> Case:
    names = [value.name for value in test.model.graph.input]
    feeds = [dict(zip(names, map(_array, inputs), strict=False)) for inputs, _ in test.data_sets]
    return Case(test.name, test.model, feeds, feeds)


def _array(given: Any) -> Any:
    """Return an input as onnxruntime takes it: numbers of numpy as arrays, tensors of types that numpy lacks as far as it can."""
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    if given is None or isinstance(given, list):
        return given
    return np.asarray(given)


def main() -> int:
    """Compile all, or those asked for; say and write what became of them."""
    arguments = _arguments()
    wanted = [case for case in cases() if arguments.only is None or case.name in arguments.only][:: arguments.every]
    from tests.safety import warm

    assert warm.LIBRARY
    started = time.monotonic()
    found = tally(lambda case: outcome(case, arguments.passes), wanted, arguments.jobs)
    seconds = time.monotonic() - started
    if arguments.only is not None:
        for each in found.outcomes:
            print(each)
    print(f"{len(wanted)} in {seconds:.0f} s: {found.counts}; refused, by what is named: {found.reasons}")
    if arguments.record:
        found.save(arguments.record, "ffc.backend/1", seconds, passes=arguments.passes, jobs=arguments.jobs)
    return 1 if found.faults or found.reasons.keys() - NAMED or found.counts.get("refused", 0) > MOST_REFUSED else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", default=PASSES, help="the pipeline")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="cases at a time")
    parser.add_argument("--every", type=int, default=1, help="only every so many of the cases")
    parser.add_argument("--only", nargs="+", help="cases by name, and what they said")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
