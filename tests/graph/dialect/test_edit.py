"""The editor keeps names unique and outputs named as they were, and removes no more than what nothing needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ffc.graph.dialect import ops
from ffc.graph.dialect.edit import Editor, constant, only_consumer
from tests.graphs import Draft, run_stock

X = np.array([[1.0, -2.0, 3.0]], np.float32)


def doubled(op: Any, x: Any) -> Any:
    return op.Add(op.Abs(x), op.Mul(x, 2.0))


def chain(*, taps: tuple[str, ...] = ()) -> tuple[ir.Model, dict[str, ir.Value]]:
    """Return ``y = neg(relu(x + 1))`` with the values named in `taps` as further outputs, and its values by name."""
    draft = Draft()
    x = draft.input("x", "batch", 3)
    plus = draft.op.Add(x, draft.weight("one", np.ones(3, np.float32)))
    relu = draft.op.Relu(plus)
    values = {"x": x, "plus": plus, "relu": relu, "y": draft.op.Neg(relu)}
    for name, value in values.items():
        value.name = name
    shape = ("batch", 3)
    model = draft.model({name: (values[name], shape) for name in ("y", *taps)})
    return model, values


def check(model: ir.Model) -> dict[str, np.ndarray]:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return run_stock(model, {"x": X})


def test_names_already_there_are_not_given_again() -> None:
    model, _ = chain()
    editor = Editor(model)
    assert [editor.unique(hint) for hint in ("relu", "relu", "new", "new")] == ["relu.1", "relu.2", "new", "new.1"]


def test_equal_constants_are_one_initializer_and_others_are_not() -> None:
    model, _ = chain()
    editor = Editor(model)
    one = editor.constant([1.0, 2.0], "c")
    assert editor.constant(np.array([1, 2], np.float32), "d") is one
    others = [editor.constant(item, "c") for item in ([1, 2], [[1.0, 2.0]], [2.0, 1.0])]
    assert len({value.name for value in (one, *others)}) == 4
    assert len(model.graph.initializers) == 5


def test_splice_puts_a_program_in_the_place_and_under_the_name_of_a_value() -> None:
    model, values = chain()
    result = Editor(model).splice(doubled, {"x": values["x"]}, replaces=values["relu"], rule="test")
    assert result.name == "relu"
    assert {node.metadata_props["ffc.rule"] for node in model.graph if node.op_type in ("Abs", "Mul")} == {"test"}
    assert [node.op_type for node in model.graph] == ["Abs", "Mul", "Add", "Neg"], "the old Add was needed no more"
    assert np.array_equal(check(model)["y"], -(np.abs(X) + 2 * X))


@pytest.mark.parametrize("name", ["y", "relu"])
def test_splice_at_an_output_keeps_the_output(name: str) -> None:
    model, values = chain(taps=("relu",))
    Editor(model).splice(doubled, {"x": values["x"]}, replaces=values[name])
    found = check(model)
    assert list(found) == ["y", "relu"]
    assert np.array_equal(found[name], np.abs(X) + 2 * X)


def test_splicing_twice_gives_different_names() -> None:
    model, values = chain(taps=("relu",))
    editor = Editor(model)
    editor.splice(doubled, {"x": values["x"]}, replaces=values["relu"])
    editor.splice(doubled, {"x": values["x"]}, replaces=values["y"])
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(names) == len(set(names)) and all(names)
    nodes = [node.name for node in model.graph if node.name]
    assert len(nodes) == len(set(nodes))
    check(model)


def test_call_takes_attributes_and_literals() -> None:
    model, values = chain()
    editor = Editor(model)
    gamma, beta = np.full(3, 2, np.float32), np.zeros(3, np.float32)
    editor.splice(ops.Norm.call, [values["plus"], gamma, beta], {"epsilon": 1e-5}, replaces=values["relu"], rule="norm")
    (call,) = [node for node in model.graph if node.domain == "ffc"]
    assert (call.op_type, call.outputs[0].name, call.attributes["epsilon"].as_float()) == ("Norm", "relu", pytest.approx(1e-5))
    found = constant(call.inputs[1])
    assert found is not None
    assert np.array_equal(found, gamma)


def test_replacing_an_output_by_an_input_or_another_output_takes_an_identity() -> None:
    model, values = chain(taps=("relu",))
    editor = Editor(model)
    editor.replace(values["y"], values["relu"])
    found = check(model)
    assert list(found) == ["y", "relu"]
    assert np.array_equal(found["y"], np.maximum(X + 1, 0))
    assert np.array_equal(found["relu"], found["y"])
    editor.replace(model.graph.outputs[1], values["x"])
    assert np.array_equal(check(model)["relu"], X)


def test_replacing_an_output_by_a_constant() -> None:
    model, values = chain()
    editor = Editor(model)
    editor.replace(values["y"], editor.constant(X, "fixed"))
    assert np.array_equal(check(model)["y"], X)
    assert [node.op_type for node in model.graph] == ["Identity"]


def test_discard_stops_at_what_is_read_or_is_an_output() -> None:
    model, values = chain(taps=("plus",))
    editor = Editor(model)
    node = values["relu"].producer()
    assert node is not None
    editor.discard(node)
    assert node.graph is model.graph, "it is still read"
    editor.replace(values["y"], values["x"])
    assert [n.op_type for n in model.graph] == ["Add", "Identity"], "plus is an output"


def test_added_nodes_stand_before_the_given_one() -> None:
    model, values = chain()
    node = values["y"].producer()
    assert node is not None
    editor = Editor(model)
    out = editor.at(node, "relu").Mul(values["relu"], 3.0)
    assert out.name == "relu.1"
    editor.replace_input(node, 0, out)
    assert np.array_equal(check(model)["y"], -3 * np.maximum(X + 1, 0))


def test_what_a_caller_may_override_is_no_constant() -> None:
    draft = Draft()
    overridable = draft.weight("w", np.ones(3, np.float32))
    fixed = draft.weight("v", np.ones(3, np.float32))
    draft.inputs.append(overridable)
    total = draft.op.Add(overridable, fixed)
    draft.model({"y": (total, [3])})
    assert constant(overridable) is None
    assert constant(fixed) is not None
    assert constant(total) is None and constant(None) is None


def test_only_consumer_is_none_for_several_readers_and_for_outputs() -> None:
    _, values = chain(taps=("relu",))
    assert only_consumer(values["relu"]) is None
    assert only_consumer(values["plus"]) is values["relu"].producer()
    model, values = chain()
    Editor(model).splice(doubled, {"x": values["relu"]}, replaces=values["y"])
    assert only_consumer(values["relu"]) is None


def test_an_output_of_the_model_that_takes_the_place_of_another_value_keeps_its_name() -> None:
    model, values = chain(taps=("plus",))
    Editor(model).replace(values["relu"], values["plus"])
    assert [value.name for value in model.graph.outputs] == ["y", "plus"]
    assert np.array_equal(check(model)["y"], -(X + 1))
