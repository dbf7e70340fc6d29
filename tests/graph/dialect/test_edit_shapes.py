"""What an editor knows of shapes is, after every edit, what would be inferred anew; what is noted follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.graph.dialect import ops
from ffc.graph.dialect.edit import Editor
from ffc.graph.shapes.dim import symbol
from ffc.graph.shapes.rule import RULES, Fact, Out, Site
from tests.classifiers import classifier, first
from tests.graphs import Draft, run_passes

EDITS = ("replace", "replace_input", "set_attribute", "splice")
PIPELINES = {
    "clean and fuse": ("opset", "clean", "fuse"),
    "int8": ("opset", "clean", "fuse", "int8", "lower"),
    "relu and int8 by rows": ("opset", "clean", "fuse", "relu", "int8{rows=ffn_out}", "lower{target=portable}"),
    "fp16": ("opset", "clean", "fuse", "fp16", "lower{target=cuda}"),
    "prune": ("opset", "clean", "fuse", "prune{by=norm heads=1 ffn=0.5}", "lower"),
    "prune and deadtokens": ("opset", "clean", "fuse", "prune{by=norm heads=1 ffn=0.5}", "deadtokens", "int8"),
    "deadtokens": ("opset", "clean", "fuse", "deadtokens", "lower"),
}


def known(model: ir.Model) -> dict[str, Fact]:
    return facts(Editor(model))


def facts(editor: Editor) -> dict[str, Fact]:
    values = [*editor.graph.inputs, *(value for node in editor.graph for value in node.outputs)]
    return {str(value.name): editor.shapes.fact(value) for value in values}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Hold what an editor knows after each of its edits against what is inferred anew; count the edits by name."""
    done: list[str] = []

    def watched(name: str, edit: Callable[..., Any]) -> Callable[..., Any]:
        def checked_edit(self: Editor, *args: Any, **kwargs: Any) -> Any:
            result = edit(self, *args, **kwargs)
            assert facts(self) == known(self.model), f"after {name}"
            done.append(name)
            return result

        return checked_edit

    for name in EDITS:
        monkeypatch.setattr(Editor, name, watched(name, getattr(Editor, name)))
    yield done


@pytest.mark.parametrize("passes", PIPELINES.values(), ids=PIPELINES)
def test_shapes_are_current_after_every_edit_of_every_pass(passes: tuple[str, ...], checked: list[str]) -> None:
    result = run_passes(classifier(first), *passes)
    assert len(checked) > 50
    assert all(fact.shape is not None for fact in known(result).values())


def test_shapes_are_current_while_kernels_of_onnxruntime_are_read(checked: list[str]) -> None:
    draft = Draft()
    x, mask = draft.input("x", "batch", "seq", 4), draft.input("mask", "batch", dtype=ir.DataType.INT32)
    weight, gamma = draft.normal("weight", 4, 12), draft.normal("gamma", 4)
    attention = draft.op.ms.Attention(x, weight, None, mask, num_heads=2)
    normed, _, _, total = draft.op.ms.SkipLayerNormalization(attention, x, gamma, None, draft.normal("b", 4), outputs=4)
    wide = draft.op.ms.BiasGelu(draft.op.MatMul(normed, draft.normal("wide", 4, 6)), draft.normal("wide.bias", 6))
    shape = ["batch", "seq", 6]
    model = draft.model({"y": (draft.op.Add(wide, draft.op.ReduceSum(total, [-1])), shape)})
    assert {"AttentionMasked", "Norm"} <= {node.op_type for node in run_passes(model, "fuse").graph}
    assert "splice" in checked


def network() -> tuple[ir.Model, dict[str, ir.Value]]:
    """Return two products with a foreign operator between them and one behind, and its values by name, all annotated."""
    draft = Draft()
    x = draft.input("x", "batch", "seq", 4)
    op = draft.op
    wide = op.MatMul(x, draft.normal("w", 4, 8))
    odd = op.ms.node("Foreign", wide)
    summed = op.Add(odd, draft.weight("one", np.ones(1, np.float32)))
    y = op.ms.node("Foreign", op.MatMul(op.Relu(wide), draft.normal("v", 8, 4)))
    values = {"wide": wide, "odd": odd, "summed": summed, "y": y}
    for name, value in values.items():
        value.name, value.type = name, ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["batch", "seq", 4 if name == "y" else 8])
    return draft.model({name: (values[name], value_shape(values[name])) for name in ("summed", "y")}), values


def value_shape(value: ir.Value) -> list[Any]:
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def test_a_narrower_weight_is_passed_on_and_what_is_noted_follows() -> None:
    model, values = network()
    editor = Editor(model)
    before = editor.shapes.of(values["wide"])
    editor.replace_input(maker(values["wide"]), 1, editor.constant(np.zeros((4, 6), np.float32)))
    batch, seq = symbol("batch", least=1), symbol("seq", least=1)
    assert (before, editor.shapes.of(values["wide"])) == ((batch, seq, 8), (batch, seq, 6))
    assert value_shape(values["wide"]) == ["batch", "seq", 6]
    assert values["odd"].shape is None, "nothing tells what an operator makes of it that no rule is known for"
    assert editor.shapes.of(values["summed"]) is None and values["summed"].shape is None
    assert editor.shapes.of(values["y"]) == (batch, seq, 4) and value_shape(values["y"]) == ["batch", "seq", 4]
    assert facts(editor) == known(model)


def test_fewer_tokens_are_passed_on_and_what_is_noted_follows() -> None:
    model, values = network()
    editor, node = Editor(model), maker(values["wide"])
    editor.replace_input(node, 0, editor.at(node, "first").Gather(model.graph.inputs[0], [0], axis=1))
    assert [str(dim) for dim in editor.shapes.of(values["wide"]) or ()] == ["batch", "1", "8"]
    assert value_shape(values["wide"]) == ["batch", 1, 8]
    assert values["y"].shape is None, "it was of as many tokens as before"
    assert facts(editor) == known(model)


def test_another_type_is_passed_on_and_what_is_noted_follows() -> None:
    model, values = network()
    editor, node = Editor(model), maker(values["wide"])
    half = editor.at(node, "half").Cast(model.graph.inputs[0], to=ir.DataType.FLOAT16.value)
    editor.replace_input(node, 0, half)
    assert half.dtype == editor.shapes.dtype(values["wide"]) == values["wide"].dtype == ir.DataType.FLOAT16
    assert facts(editor) == known(model)


def test_what_another_attribute_changes_is_passed_on_and_what_is_noted_follows() -> None:
    draft = Draft()
    turned = draft.op.Transpose(draft.input("x", "batch", "seq", 8), perm=[0, 1, 2])
    turned.shape = ir.Shape(["batch", "seq", 8])
    model = draft.model({"y": (draft.op.Relu(turned), ["batch", "seq", 8])})
    editor = Editor(model)
    editor.set_attribute(maker(turned), "perm", [0, 2, 1])
    assert [str(dim) for dim in editor.shapes.of(turned) or ()] == ["batch", "8", "seq"]
    assert value_shape(turned) == value_shape(model.graph.outputs[0]) == ["batch", 8, None]
    assert facts(editor) == known(model)


def test_what_a_narrower_program_replaces_does_not_leave_its_shape_behind() -> None:
    model, values = network()
    editor = Editor(model)
    arguments = [model.graph.inputs[0], np.zeros((4, 6), np.float32), np.zeros(6, np.float32)]
    new = editor.splice(ops.Linear.call, arguments, replaces=values["wide"])
    assert value_shape(new) == ["batch", "seq", 6]
    assert values["odd"].shape is None
    assert facts(editor) == known(model)


def test_what_no_rule_tells_keeps_what_was_noted_of_the_value_that_it_replaces() -> None:
    model, values = network()
    editor = Editor(model)
    new = editor.splice(lambda op, x: op.ms.node("Foreign", x), {"x": values["wide"]}, replaces=values["odd"])
    assert value_shape(new) == ["batch", "seq", 8]
    assert editor.shapes.of(new) == editor.shapes.of(values["wide"])
    assert facts(editor) == known(model)


def test_sizes_that_nothing_tells_are_called_after_the_value_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, ("com.microsoft", "Foreign"), lambda site: Out((1, None), ir.DataType.FLOAT))
    draft = Draft()
    found = draft.op.ms.node("Foreign", draft.input("x", "batch"))
    found.name = "found"
    model = draft.model({"y": (draft.op.Relu(found), [1, None])})
    editor = Editor(model)
    assert [str(dim) for dim in editor.shapes.of(found) or ()] == ["1", "found.1"]
    new = editor.splice(lambda op, x: op.ms.node("Foreign", op.Abs(x)), {"x": model.graph.inputs[0]}, replaces=found)
    assert [str(dim) for dim in editor.shapes.of(new) or ()] == ["1", "found.1"]
    assert facts(editor) == known(model)


def test_nothing_is_inferred_beyond_what_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred: list[str] = []

    def rule(site: Site) -> Out:
        inferred.append(str(site.node.outputs[0].name))
        return Out(site.shape(0), site.dtype())

    monkeypatch.setitem(RULES, ("com.microsoft", "Foreign"), rule)
    model, values = network()
    editor = Editor(model)
    assert facts(editor) and inferred == ["odd", "y"]
    editor.replace_input(maker(values["wide"]), 1, editor.constant(np.zeros((4, 6), np.float32)))
    assert inferred == ["odd", "y", "odd"], "the second product has as many columns as before"
    editor.splice(ops.Linear.call, [values["odd"], np.eye(6, dtype=np.float32), np.zeros(6)], replaces=values["summed"])
    assert inferred == ["odd", "y", "odd"]


def test_what_is_recorded_at_a_node_is_named_after_the_hint_and_known_at_once() -> None:
    model, values = network()
    node = maker(values["y"])
    editor = Editor(model)
    op = editor.at(node, "total")
    first_half, second_half = op.Split(op.Add(values["wide"], 1.0), axis=-1, num_outputs=2, outputs=2)
    linear = op.ffc.Linear(first_half, np.zeros((4, 5), np.float32), np.zeros(5, np.float32))
    assert [value.name for value in (first_half, second_half, linear)] == ["total.1", "total.2", "total.3"]
    nodes = list(model.graph)
    assert [each.op_type for each in nodes[nodes.index(node) - 3 : nodes.index(node)]] == ["Add", "Split", "Linear"]
    assert [str(dim) for dim in editor.shapes.of(linear) or ()] == ["batch", "seq", "5"]
    assert facts(editor) == known(model)


def test_an_input_that_is_added_is_known() -> None:
    model, values = network()
    editor = Editor(model)
    assert editor.shapes.of(values["y"]) is not None
    scale = ir.Value(name="scale", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 1, 1]))
    model.graph.inputs.append(scale)
    scaled = editor.at(maker(values["y"]), "scaled").Mul(values["wide"], scale)
    assert editor.shapes.of(scaled) == editor.shapes.of(values["wide"])


def test_no_edit_of_a_long_graph_walks_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred: list[ir.Node] = []
    relu = RULES["", "Relu"]

    def rule(site: Site) -> Out | Sequence[Out]:
        inferred.append(site.node)
        return relu(site)

    monkeypatch.setitem(RULES, ("", "Relu"), rule)
    draft, count = Draft(), 2000
    x = draft.input("x", "batch")
    for _ in range(count):
        x = draft.op.Relu(x)
    model = draft.model({"y": (x, ["batch"])})
    editor = Editor(model)
    for node in list(model.graph):
        editor.splice(lambda op, x: op.Abs(op.Relu(x)), {"x": node.inputs[0]}, replaces=node.outputs[0])
    assert len(inferred) == 2 * count
