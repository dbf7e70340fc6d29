"""What a drawing folds by: layers, equal ones in a row, and runs of what is long."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from ffc.ci.matching.snapshot import Graph, Node, Port, Source, of_model
from ffc.ci.page.outline import Outline, outlines
from tests.graphs import encoder


def paths(outline: Outline) -> list[str]:
    """Return all blocks as paths."""
    found: list[str] = []
    for block in outline.blocks:
        found.append(f"{found[block.parent]}/{block.label}" if block.parent >= 0 else block.label)
    return found


def row(length: int, scope: str = "") -> Graph:
    """Return a graph of nodes in a row."""
    nodes = tuple(Node("Relu", {}, (Source(at - 1, 0),), (f"v{at}",), f"{scope}{at}") for at in range(length))
    return Graph((Port("x", "f32[4]"),), nodes, ((Port("y", "f32[4]"), Source(length - 1, 0)),))


def test_equal_layers_in_a_row_are_one_block_and_parts_lie_in_their_layer() -> None:
    graph = of_model(encoder(layers=5)).graph
    (outline,) = outlines([graph], [[""] * len(graph.nodes)])
    found = paths(outline)
    stacks = [block for block in outline.blocks if block.stack]
    assert len(stacks) == 1
    assert f"{stacks[0].label}/layer 3/feed-forward" in found
    assert all(
        outline.blocks[block.parent].stack or block.parent < 0 or "layer" in outline.blocks[block.parent].label
        for block in outline.blocks
    )


def test_a_layer_that_changed_stands_by_itself_on_both_sides() -> None:
    graph = of_model(encoder(layers=9)).graph
    plain = [""] * len(graph.nodes)
    (alone,) = outlines([graph], [plain])
    in_layer = next(at for at, block in enumerate(alone.nodes) if "/layer 4/" in paths(alone)[block])
    changed = [*plain]
    changed[in_layer] = "changed"
    first, second = (paths(each) for each in outlines([graph, graph], [plain, changed]))
    assert first == second
    assert "layer 4" in first
    assert any(path.endswith("–3/layer 3") for path in first)
    assert "layers 5–8/layer 5" in first


@pytest.mark.parametrize("length", [150, 151, 20_000])
def test_no_block_shows_more_nodes_than_one_can_look_at(length: int) -> None:
    (outline,) = outlines([row(length)], [[""] * length])
    shown = [sum(place == at for place in outline.nodes) for at in range(-1, len(outline.blocks))]
    shown = [count + sum(block.parent == at for block in outline.blocks) for at, count in enumerate(shown, start=-1)]
    assert max(shown) <= 150
    assert (len(outline.blocks) == 0) == (length == 150)


def test_runs_are_named_by_their_places_and_the_scope_they_share() -> None:
    (outline,) = outlines([row(200, "net/stage1/n")], [[""] * 200])
    assert outline.blocks[0].label == "nodes 0–49: net/stage1"
    assert len({block.label for block in outline.blocks}) == len(outline.blocks) == 4


def test_many_inputs_are_one_block() -> None:
    inputs = [
        ir.Value(name=f"past.{at}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])) for at in range(20)
    ]
    node = ir.node("Sum", inputs)
    node.outputs[0].name = "y"
    graph = of_model(
        ir.Model(ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 20}), ir_version=10)
    ).graph
    (outline,) = outlines([graph], [[""]])
    assert outline.blocks[outline.inputs].label == "inputs of the model"
    assert outline.outputs == -1
