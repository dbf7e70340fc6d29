"""Programs are traced into nodes, and inserted with their attributes filled in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.errors import UsageError
from ffc.graph.dialect.trace import Op, as_tensor, insert, trace
from ffc.graph.execute import Runner
from tests.graphs import of_program


def scaled(op: Any, x: Any, z: Any, *, axis: int, factor: float = 2.0, mode: str | None = None) -> Any:
    return op.Mul(op.ReduceSum(op.Add(x, z), [1], keepdims=axis), op.Constant(value_float=factor))


@pytest.mark.parametrize(
    ("literal", "dtype", "shape"),
    [
        (1, np.int64, ()),
        (1.5, np.float32, ()),
        (True, np.bool_, ()),
        ([1, 2], np.int64, (2,)),
        ((1, 2.5), np.float32, (2,)),
        ([True, False], np.bool_, (2,)),
        (np.int8(3), np.int8, ()),
        (np.zeros((2, 3), np.float16), np.float16, (2, 3)),
    ],
)
def test_literals_become_the_tensors_that_python_means(literal: Any, dtype: type, shape: tuple[int, ...]) -> None:
    array = as_tensor(literal).numpy()
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
    assert np.array_equal(array, literal)


def test_trace_names_inputs_attributes_and_outputs() -> None:
    fragment = trace(scaled)
    assert list(fragment.inputs) == ["x", "z"]
    assert {name: (attr.type, attr.value) for name, attr in fragment.attributes.items()} == {
        "axis": (ir.AttributeType.INT, None),
        "factor": (ir.AttributeType.FLOAT, 2.0),
        "mode": (ir.AttributeType.STRING, None),
    }
    assert [node.op_type for node in fragment.nodes] == ["Add", "Constant", "ReduceSum", "Constant", "Mul"]
    assert fragment.nodes[-1].outputs[0] is fragment.outputs[0]


def test_attributes_of_a_program_stay_references_until_it_is_inserted() -> None:
    total = trace(scaled).nodes[2]
    assert total.attributes["keepdims"].ref_attr_name == "axis"
    values = {"x": ir.Value(name="x"), "z": ir.Value(name="z")}
    nodes, _ = insert(trace(scaled), values, {"axis": ir.AttrInt64("axis", 1)})
    assert nodes[2].attributes["keepdims"].as_int() == 1
    assert nodes[3].attributes["value_float"].as_float() == 2.0, "the default of the program"


def test_an_attribute_without_value_is_left_out() -> None:
    def program(op: Any, x: Any, *, axis: int) -> Any:
        return op.Softmax(x, axis=axis)

    nodes, _ = insert(trace(program), {"x": ir.Value(name="x")}, {})
    assert "axis" not in nodes[0].attributes


def test_inserting_twice_gives_nodes_of_their_own() -> None:
    values = {"x": ir.Value(name="x"), "z": ir.Value(name="z")}
    one, _ = insert(trace(scaled), values, {})
    other, _ = insert(trace(scaled), values, {})
    assert not set(one) & set(other) & set(trace(scaled).nodes)
    assert {use.node for use in values["x"].uses()} == {one[0], other[0]}


@pytest.mark.parametrize("keep", [0, 1])
def test_an_inserted_program_computes_what_python_says(keep: int) -> None:
    x, z = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    model = of_program(scaled, {"x": x, "z": z}, {}, {"axis": keep, "factor": 3.0})
    assert np.array_equal(Runner(model).run({"x": x, "z": z})["y"], 3 * (x + z).sum(axis=1, keepdims=bool(keep)))


def test_other_domains_are_reached_by_their_short_names() -> None:
    def program(op: Any, x: Any) -> Any:
        return op.ms.Gelu(op.ffc.Norm(x, [1.0], [0.0], epsilon=0.1))

    assert [node.domain for node in trace(program).nodes if node.op_type != "Constant"] == ["ffc", "com.microsoft"]


def test_several_outputs_and_inputs_left_out() -> None:
    def program(op: Any, x: Any) -> Any:
        low, high = op.Split(x, None, outputs=2, num_outputs=2, axis=0)
        return op.Sub(high, low)

    split = trace(program).nodes[0]
    assert len(split.outputs) == 2
    assert split.inputs[1] is None


def test_a_name_that_is_no_operator_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        Op().matmul  # noqa: B018


def test_an_attribute_without_a_type_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"attribute 'epsilon' of program '.*' has no type .*: int, float, str"):
        trace(lambda op, x, *, epsilon: op.Add(x, epsilon))
