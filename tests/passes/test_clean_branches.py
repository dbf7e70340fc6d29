"""An If whose condition is constant becomes the branch that it takes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import ffc
from tests.graphs import count, run_passes, run_stock


def branching(condition: bool, *, as_output: bool) -> ir.Model:
    """Return a model of x [2] with two equal Ifs that add 1 to it or double it, one of them its output if asked for."""

    def branch(name: str, operator: str, number: float) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [2])
        weight = numpy_helper.from_array(np.full(2, number, np.float32), "number")
        return helper.make_graph([helper.make_node(operator, ["x", "number"], [f"{name}_out"])], name, [], [out], [weight])

    nodes = [
        helper.make_node(
            "If", ["condition"], [out], then_branch=branch(f"{out}_then", "Add", 1), else_branch=branch(f"{out}_else", "Mul", 2)
        )
        for out in ("one", "two")
    ]  # fmt: skip
    nodes.append(helper.make_node("Sub", ["one", "x"], ["three"]))
    outputs = ["three", "two"] if as_output else ["three"]
    graph = helper.make_graph(
        nodes, "branching", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in outputs],
        [numpy_helper.from_array(np.array(condition), "condition")],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10))


@pytest.mark.parametrize("as_output", [False, True])
@pytest.mark.parametrize("condition", [False, True])
def test_a_decided_branch_is_taken(condition: bool, as_output: bool) -> None:
    model = branching(condition, as_output=as_output)
    after = run_passes(model, "clean")
    assert count(after, "If") == 0
    assert count(after, "Add" if condition else "Mul") == 1, "the two are equal"
    inputs = {"x": np.array([3.0, -5.0], np.float32)}
    before, found = run_stock(model, inputs), run_stock(after, inputs)
    assert list(before) == list(found)
    assert all(np.array_equal(before[name], found[name]) for name in before)


def test_operands_of_range_become_scalars_where_their_one_axis_comes_to_light() -> None:
    """A runtime counts to a vector of one as long as an If keeps it from seeing that it is one."""
    text = """
        <ir_version: 10, opset_import: ["" : 23]> g (int64[2] sizes) => (int64[n] y) {
            condition = Constant <value: tensor = bool {1}> ()
            zero = Constant <value_int: int = 0> () one = Constant <value_int: int = 1> ()
            many = If (condition) <
                then_branch: graph = t () => (int64[a] many_t) { many_t, rest_t = Split <num_outputs: int = 2> (sizes) },
                else_branch: graph = e () => (int64[b] many_e) { many_e = Identity (sizes) }>
            y = Range (zero, many, one)
        }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    after = ffc.compile(model, "clean", data=[{"sizes": np.array([5, 3])}]).model
    assert count(after, "If") == 0
    assert np.array_equal(run_stock(after, {"sizes": np.array([4, 1])})["y"], np.arange(4))
