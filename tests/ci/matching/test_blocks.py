"""Which part of an encoder a node lies in."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import ffc
from ffc.ci.matching.blocks import blocks
from ffc.ci.matching.snapshot import of_model
from ffc.graph import files
from tests.graphs import Draft, encoder


@pytest.mark.parametrize("way", ["dynamo sdpa", "TorchScript sdpa"])
def test_layers_have_attention_and_a_feed_forward_network(exported: Callable[..., Path], way: str) -> None:
    export = exported("bert", head=True, way=way)
    for model in (files.load(export), ffc.compile(export, "fuse,int8").model):
        found = Counter(blocks(of_model(model, weights=False).graph))
        halves = {f"layer {layer}/{half}" for layer in range(2) for half in ("attention", "feed-forward")}
        assert {*halves, "embeddings", "head"} <= found.keys() <= {*halves, "embeddings", "head", "inputs"}
        assert len({found[f"layer {layer}/feed-forward"] for layer in range(2)}) == 1, "all are alike"


def test_what_all_layers_need_of_the_inputs_lies_in_none_of_them() -> None:
    graph = of_model(encoder(layers=2)).graph
    places = list(zip((node.op for node in graph.nodes), blocks(graph), strict=True))
    assert ("Where", "inputs") in places, "the mask"
    assert {block for op, block in places if op == "Softmax"} == {"layer 0/attention", "layer 1/attention"}


def test_a_graph_without_norms_is_one_block() -> None:
    draft = Draft()
    x = draft.input("x", "n", 4)
    model = draft.model({"y": (draft.op.Relu(draft.op.Neg(x)), ["n", 4])})
    assert blocks(of_model(model).graph) == ["graph", "graph"]
