"""Exactly the edits that were made are found, and nothing else, though every name and order is another."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from ffc.ci.diff.diff import Diff, diff
from ffc.graph import files
from tests.ci.disguise import disguise
from tests.ci.edits import Edit, edit, named

KINDS = ("bert", "roberta", "distilbert")
WAYS = ("dynamo sdpa", "TorchScript sdpa")
ALONE, TOGETHER = 17, 2
"""Seeds for each export: 102 edits alone, and 120 ten at once."""


def without_copies(model: ir.Model) -> ir.Model:
    """Take out the nodes that copy a weight, as TorchScript writes them: an edit of one means no change of its own."""
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Identity" else None
        if source is not None and source.is_initializer():
            node.outputs[0].replace_all_uses_with(source)
            model.graph.remove(node, safe=True)
    return model


def made(edits: list[Edit]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for each in edits:
        if each.kind.startswith("weight"):
            found[each.kind, tuple(sorted(node for node, _ in each.places))] += 1
        elif each.kind == "attribute":
            found[each.kind, each.node, each.detail] += 1
        else:
            found[each.kind, each.node] += 1
    return found


def reported(found: Diff, names: dict[str, str]) -> Counter[tuple[object, ...]]:
    """Return what a diff says, in the words of edits; `names` are those of nodes before the disguise."""
    before, after = found.before.graph.nodes, found.after.graph.nodes
    words: Counter[tuple[object, ...]] = Counter()
    for change in found.changes:
        nodes = tuple(sorted(before[index].name for index in change.before))
        if change.kind == "structure" and "removed" in change.detail:
            words.update(("removed", name) for name in nodes)
            words.update(("inserted", names[after[index].name]) for index in change.after)
        elif change.kind == "structure":
            words["rewired", change.where] += 1
        elif change.kind == "attribute":
            words["attribute", change.where, change.detail["attribute"]] += 1
        elif change.kind == "weight-type":
            words["weight-shape", nodes] += 1
        else:
            words[change.kind, nodes] += 1
    return words


@pytest.fixture(params=[(kind, way) for kind in KINDS for way in WAYS], ids=" ".join)
def original(request: pytest.FixtureRequest, exported: Callable[..., Path]) -> ir.Model:
    kind, way = request.param
    return without_copies(named(files.load(exported(kind, way=way))))


@pytest.mark.parametrize(("count", "seeds"), [(1, ALONE), (10, TOGETHER)], ids=["alone", "ten at once"])
def test_exactly_the_edits_are_found(original: ir.Model, count: int, seeds: int) -> None:
    wrong = []
    for seed in range(seeds):
        edited, edits = edit(original, np.random.default_rng([seed, count]), count)
        disguised, names = disguise(edited, np.random.default_rng([seed, count, 1]))
        wanted, found = made(edits), reported(diff(original, disguised), names)
        if found != wanted:
            wrong.append((seed, "missed", dict(wanted - found), "invented", dict(found - wanted)))
    assert not wrong
