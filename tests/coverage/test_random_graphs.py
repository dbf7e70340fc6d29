"""A slice of the random graphs, and what they are made of."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.checkout import ROOT
from tests.coverage.outcomes import all_nodes
from tests.coverage.random_graphs import case, sound
from tests.coverage.sketch import Sketch, feed
from tests.coverage.sketch_steps import norm


def test_thirty_graphs_are_right_or_refused() -> None:
    """No traceback, no wrong number, no failed proof: else the command says which and ends with 1."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.coverage.random_graphs", "--count", "30", "--jobs", "1"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 in " in done.stdout


def test_a_graph_is_told_by_its_number_and_together_they_hold_every_kind_of_input_and_ingredient() -> None:
    drawn = [case(number) for number in range(60)]
    assert case(7).model == drawn[7].model
    operators = {node.op_type for each in drawn for node in all_nodes(each.model.graph.node)}
    assert operators >= {
        "MatMul", "Gemm", "Softmax", "Where", "Erf", "Tanh", "Reshape", "Transpose", "Split", "Concat", "Gather", "Slice", "Expand",
        "Shape", "If", "Loop", "Cast", "ReduceMean", "ReduceSum", "LayerNormalization",
    }  # fmt: skip
    inputs = [value for each in drawn for value in each.model.graph.input]
    assert {value.type.tensor_type.elem_type for value in inputs} >= {1, 2, 6, 7, 9, 10, 11}
    assert {len(value.type.tensor_type.shape.dim) for value in inputs} >= {0, 1, 2, 3}
    assert any(dim.dim_param == "past + seq" for value in inputs for dim in value.type.tensor_type.shape.dim)
    assert any({t.name for t in each.model.graph.initializer} & {v.name for v in each.model.graph.input} for each in drawn)


def test_a_graph_of_rounding_alone_is_not_drawn() -> None:
    """The norm of numbers that are equal is their rounding, times three hundred."""
    g = Sketch(0)
    x = g.input("x", "float32", ("batch", 6))
    equal = g.op("Expand", g.op("ReduceMax", x, shape=("batch", 1), axes=[1], keepdims=1), g.op("Shape", x, shape=(2,), dtype="int64"), shape=x.shape)
    g.opset = 13
    feeds = [feed(g.inputs, {"batch": 5}, "full", 0)]
    g.values.append(equal)
    while (made := norm(g)) is None or made.shape != x.shape:
        continue
    assert not sound(g.model([made], []), feeds)
    assert sound(g.model([equal], []), feeds)
