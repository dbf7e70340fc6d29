"""The edits that differs are held against are what they say, and disguises change nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ffc.graph.text import text
from tests import checkout, graphs
from tests.ci.disguise import disguise
from tests.ci.edits import ALL, Edit, edit, named
from tests.ci.facts import contents, is_constant

SHOW = """
import numpy as np
from ffc.graph.text import text
from tests import graphs
from tests.ci.disguise import disguise
from tests.ci.edits import edit, named
edited, made = edit(named(graphs.encoder()), np.random.default_rng(7), 8)
print(made, text(edited), [node.name for node in disguise(edited, np.random.default_rng(7))[0].graph])
"""


@pytest.fixture(scope="module")
def original() -> ir.Model:
    return named(graphs.encoder())


def lifted(model: ir.Model) -> str:
    """Return the text of a model without Constant nodes."""
    copy = model.clone()
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    return text(copy)


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {node.name or "": node for node in model.graph if not is_constant(node)}


def slot(made: Edit) -> int:
    return int(made.detail.removeprefix("slot "))


def one(original: ir.Model, kind: str, seed: int) -> tuple[ir.Model, Edit]:
    """Return a model with one edit, held against what is true of all kinds."""
    edited, (made,) = edit(original, np.random.default_rng(seed), 1, [kind])
    assert made.kind == kind
    assert lifted(edited) != lifted(original)
    before, after = nodes(original), nodes(edited)
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    assert gone == ({made.node} if kind == "removed" else set())
    assert new == ({made.node} if kind == "inserted" else set())
    return edited, made


def test_an_edit_of_an_attribute_changes_that_one_alone(original: ir.Model) -> None:
    ways = set()
    for seed in range(12):
        edited, made = one(original, "attribute", seed)
        old, new = nodes(original)[made.node].attributes, nodes(edited)[made.node].attributes
        assert {name for name in old if new.get(name) != old[name]} == {made.detail}
        assert all(name in old for name in new)
        ways.add(made.detail in new)
    assert ways == {True, False}, "some are changed, some removed"


def test_an_edit_of_a_weights_values_keeps_type_and_shape_and_names_all_that_read_it(original: ir.Model) -> None:
    counts = set()
    for seed in range(12):
        edited, made = one(original, "weight-value", seed)
        for name, index in made.places:
            old, new = (contents(nodes(model)[name].inputs[index]) for model in (original, edited))
            assert old is not None and new is not None
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
            assert not np.array_equal(old, new)
        assert made.places[0] == (made.node, slot(made))
        counts.add("one" if np.count_nonzero(old != new) == 1 else "all")
        assert np.count_nonzero(old != new) in (1, old.size)
    assert counts == {"one", "all"}


def test_an_edit_of_a_weights_shape_changes_shape_or_type_at_one_place(original: ir.Model) -> None:
    ways = set()
    for seed in range(12):
        edited, made = one(original, "weight-shape", seed)
        assert made.places == ((made.node, slot(made)),)
        old, new = (contents(nodes(model)[made.node].inputs[slot(made)]) for model in (original, edited))
        assert old is not None and new is not None
        assert (old.dtype, old.shape) != (new.dtype, new.shape)
        ways.add("type" if old.dtype != new.dtype else "shape")
    assert ways == {"type", "shape"}


def test_an_inserted_node_keeps_the_type_of_what_it_reads(original: ir.Model) -> None:
    for seed in range(6):
        edited, made = one(original, "inserted", seed)
        node = nodes(edited)[made.node]
        assert node.op_type == made.detail
        assert node.outputs[0].uses() or node.outputs[0].is_graph_output()
        assert all(contents(value) is not None for value in node.inputs[1:])


def test_a_removed_node_leaves_nothing_that_is_not_needed(original: ir.Model) -> None:
    for seed in range(6):
        edited, _ = one(original, "removed", seed)
        assert "unused" not in text(edited)
        assert all(value.uses() for value in edited.graph.initializers.values())


def test_a_rewired_node_reads_another_value_and_nothing_else_changes(original: ir.Model) -> None:
    for seed in range(6):
        edited, made = one(original, "rewired", seed)
        changed = [
            (name, index)
            for name, node in nodes(edited).items()
            for index, value in enumerate(node.inputs)
            if (value and value.name) != ((old := nodes(original)[name].inputs[index]) and old.name)
        ]
        assert changed == [(made.node, slot(made))]
        assert "unused" not in text(edited)


@pytest.mark.parametrize("seed", range(4))
def test_ten_edits_concern_ten_nodes_of_a_model_that_stays_valid(original: ir.Model, seed: int) -> None:
    before = ir.to_proto(original)
    edited, made = edit(original, np.random.default_rng(seed), 10)
    disguise(edited, np.random.default_rng(seed))
    assert len({each.node for each in made}) == 10
    assert {each.kind for each in made} == set(ALL)
    onnx.checker.check_model(ir.to_proto(edited))
    assert ir.to_proto(original) == before, "the original is as it was"


def test_more_edits_than_there_are_places_for_are_refused(original: ir.Model) -> None:
    with pytest.raises(ValueError, match="no place for more than"):
        edit(original, np.random.default_rng(0), 1000, ["removed"])


def test_the_same_seed_gives_the_same_edits_in_any_process() -> None:
    shown = [
        subprocess.run(
            [sys.executable, "-c", SHOW],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(checkout.ROOT)},
            cwd=checkout.ROOT,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert shown[0] == shown[1] != b""


@pytest.mark.parametrize("seed", range(3))
def test_a_disguise_changes_names_and_order_and_means_the_same(original: ir.Model, seed: int) -> None:
    disguised, names = disguise(original, np.random.default_rng(seed))
    assert lifted(disguised) == lifted(original)
    onnx.checker.check_model(ir.to_proto(disguised))
    old = nodes(original)
    assert not old.keys() & nodes(disguised).keys()
    assert all(old[names[name]].op_type == node.op_type for name, node in nodes(disguised).items())
    assert [names[name] for name in nodes(disguised)] != list(old)
    assert {names[name] for name in nodes(disguised)} == old.keys()


def test_a_disguised_model_computes_the_same(original: ir.Model) -> None:
    disguised, _ = disguise(original, np.random.default_rng(1))
    feeds = graphs.feeds(np.ones((2, 5), np.int64))
    assert graphs.difference(graphs.run_stock(original, feeds), graphs.run_stock(disguised, feeds)) == 0
