"""Through fusions: blocks are matched by their weights, whatever became of their nodes, and layers are told as one."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

import ffc
from ffc.ci.diff.diff import Diff, diff
from ffc.graph import files
from tests.graphs import Draft

Exported = Callable[..., Path]
LAYERS = 2
WAYS = ("dynamo sdpa", "TorchScript sdpa")


@pytest.fixture(scope="module", params=WAYS)
def compiled(request: pytest.FixtureRequest, exported: Exported) -> Diff:
    path = exported("bert", layers=LAYERS, head=True, way=request.param)
    return diff(path, ffc.compile(path, "fuse,int8").model)


def groups(found: Diff, *words: str) -> list[tuple[str, int]]:
    return [(group.what, group.count) for group in found.groups if all(word in group.what for word in words)]


def test_a_compiled_model_reads_as_one_screen(compiled: Diff) -> None:
    assert len(compiled.groups) <= 25
    assert max(group.count for group in compiled.groups) == 3 * LAYERS, "what is alike is told once"


def test_linear_layers_are_matched_by_their_weights(compiled: Diff) -> None:
    found = groups(compiled, "MatMul, Add → com.microsoft.MatMulIntegerToFloat")
    assert ("MatMul, Add → com.microsoft.MatMulIntegerToFloat", 3 * LAYERS) in found, "q, k and v of every layer"


def test_attention_is_told_layer_by_layer(compiled: Diff) -> None:
    found = groups(compiled, "Softmax", "→ Attention")
    assert sum(count for _, count in found) == LAYERS


def test_nodes_say_which_pass_and_rule_made_them(compiled: Diff) -> None:
    origins = {group.by for group in compiled.groups if "→ Attention" in group.what}
    assert origins
    assert all("fuse/attention, lower/attention-23" in origin for origin in origins)


def test_no_change_is_left_out(compiled: Diff) -> None:
    """Every node is matched, or is one of those that a change tells of, once."""
    told = [[index for change in compiled.changes if "removed" in change.detail for index in side(change)]
            for side in (lambda change: change.before, lambda change: change.after)]  # fmt: skip
    matching = compiled.matching
    for partners, indices in zip((matching.forward, matching.backward), told, strict=True):
        assert sorted(indices) == [index for index, partner in enumerate(partners) if partner < 0]


def test_a_matching_is_the_same_both_ways(exported: Exported) -> None:
    kinds = ("bert", "roberta", "distilbert")
    for before, after in itertools.permutations([exported(kind, way=way) for kind in kinds for way in WAYS], 2):
        matching = diff(before, after).matching
        assert all(now < 0 or matching.backward[now] == was for was, now in enumerate(matching.forward))
        assert all(was < 0 or matching.forward[was] == now for now, was in enumerate(matching.backward))


def test_a_model_that_was_trained_again(exported: Exported) -> None:
    found = diff(exported("bert"), exported("bert", seed=1))
    assert {change.kind for change in found.changes} == {"weight-value"}
    assert all(change.detail["relative"] > 0 for change in found.changes)  # type: ignore[operator]
    assert -1 not in found.matching.forward


def test_one_layer_less_is_one_change(exported: Exported) -> None:
    before = files.load(exported("bert", layers=3))
    after = before.clone()
    norms = [node for node in after.graph if node.op_type == "LayerNormalization"]
    first, last = norms[2].outputs[0], norms[4].outputs[0]  # the second layer is what lies between
    last.replace_all_uses_with(first)
    RemoveUnusedNodesPass()(after)
    (change,) = [change for change in diff(before, after).changes if change.kind == "structure"]
    assert len(change.before) > 20
    assert not change.after


def test_merged_weights_link_what_was_three_products() -> None:
    random = np.random.default_rng(0)
    parts = [random.standard_normal((16, 16)).astype(np.float32) for _ in range(3)]

    def apart(op: Any, x: ir.Value) -> ir.Value:
        return op.Concat(*(op.Relu(op.MatMul(x, part)) for part in parts), axis=-1)

    def merged(op: Any, x: ir.Value) -> ir.Value:
        return op.Tanh(op.MatMul(x, np.concatenate(parts, axis=1)))

    found = diff(model_of(apart), model_of(merged))
    assert [change.what for change in found.changes if "→" in change.what] == ["3 MatMul → MatMul", "3 Relu, Concat → Tanh"]


def model_of(program: Callable[..., ir.Value]) -> ir.Model:
    draft = Draft()
    x = draft.input("x", "batch", 16)
    return draft.model({"y": (program(draft.op, x), ["batch", 48])})
