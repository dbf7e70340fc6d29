"""Functions and subgraphs: what changes inside them is told, with where that is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ffc.ci.diff.diff import diff
from tests.graphs import encoder, run_passes


def branching(then: Callable[[str], list[Any]], captured: str = "x") -> ir.Model:
    """Return ``y = cond ? then(captured) : -x``, whose branches read `x` and `w` from around them."""
    y = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    yes = helper.make_graph(then(captured), "yes", [], [y])
    no = helper.make_graph([helper.make_node("Neg", ["x"], ["out"])], "no", [], [y])
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["x"], ["positive"], name="abs"),
            helper.make_node("If", ["cond"], ["y"], name="choice", then_branch=yes, else_branch=no),
            helper.make_node("Add", ["positive", "y"], ["z"], name="sum"),
        ],
        "branching",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(1, dtype=np.float32), "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def scaled(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Mul", [name, "w"], ["a"]), helper.make_node("Tanh", ["a"], ["out"])]


def scaled_later(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Mul", [name, "w"], ["a"]), helper.make_node("Sigmoid", ["a"], ["b"]), helper.make_node("Tanh", ["b"], ["out"])]


def test_equal_branches_are_equal() -> None:
    assert diff(branching(scaled), branching(scaled)).equal


def test_a_change_in_a_branch_names_node_and_branch() -> None:
    (change,) = diff(branching(scaled), branching(scaled_later)).changes
    assert (change.kind, change.what, change.scope) == ("structure", "Sigmoid inserted", "choice then_branch")


def test_a_branch_that_reads_another_value_from_around_it() -> None:
    (change,) = diff(branching(scaled), branching(scaled, captured="positive")).changes
    assert change.kind == "structure"
    assert change.where == "choice"


@pytest.fixture
def fused() -> ir.Model:
    return run_passes(encoder(layers=2, opset=23), "fuse")


def test_functions_are_compared_by_their_bodies(fused: ir.Model) -> None:
    other = fused.clone()
    assert diff(fused, other).equal
    function = next(each for each in other.functions.values() if each.name == "AddNorm")
    norm = next(node for node in function if node.op_type == "LayerNormalization")
    norm.attributes["axis"] = ir.AttrInt64("axis", -2)
    (change,) = diff(fused, other).changes
    assert (change.kind, change.scope) == ("attribute", "ffc:AddNorm")
    assert change.what == "LayerNormalization axis: -1 → -2"


def test_calls_are_nodes(fused: ir.Model) -> None:
    found = diff(encoder(layers=2, opset=23), fused)
    whats = [group.what for group in found.groups]
    assert any("→ ffc.AddNorm" in what for what in whats), whats
    assert not any(change.scope for change in found.changes), "functions that came with their calls are told there"
