"""What `fuse` says of a model: every block with the call that it became, and the nodes that a rule nearly matched."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from ffc import Finding, Rule, Tried, called, find_blocks
from ffc.compiler import survey
from ffc.compiler.survey import name_of
from ffc.graph.blocks.structure import Attention, Blocks, FeedForward, Layer, Product


def findings(rules: Sequence[Rule], tried: Tried) -> list[Finding]:
    """Return every block with the call that it became, and the nodes that one of `rules` nearly matched."""
    blocks, near = find_blocks(tried.after), survey.near_misses(rules, tried.after)
    places = _places(tried.after, blocks)
    said = {miss.where: miss.why for miss in tried.log.misses if not miss.depth}
    told = {node for embedding in blocks.embeddings for node in embedding.nodes}
    norms = [norm.node for norm in blocks.norms if norm.node not in told]
    found = list(_embeddings(blocks, near))
    found += [_norm(node, None, near) for node in norms if places.get(node) is None]
    for layer in blocks.layers:
        found += _layer(layer, said)
        found += [_norm(node, layer.index, near) for node in norms if places.get(node) == layer.index]
    found += survey.unmatched(blocks)
    fused = {product.node for layer in blocks.layers for product in layer.products() if called(product.node)}
    rest = [product for product in blocks.products if product.node not in fused]  # the others are told with their layer
    found += [_product(product, places.get(product.node), near) for product in rest]
    return found + [survey.near_finding(node, why, places.get(node)) for node, why in near.items()]


def _places(model: ir.Model, blocks: Blocks) -> dict[ir.Node, int]:
    """Return the layer of each node: a layer lasts until the products of the next one, the last until the head."""
    order = {node: index for index, node in enumerate(model.graph)}
    starts = [min(order[node] for node in _begin(layer)) for layer in blocks.layers]
    end = min((order[product.node] for product in blocks.head), default=len(order))
    first = starts[0] if starts else end
    return {node: bisect_right(starts, index) - 1 for node, index in order.items() if first <= index < end}


def _begin(layer: Layer) -> Iterator[ir.Node]:
    """Yield the nodes of a layer of which one is the first."""
    yield from (product.node for product in layer.products())
    if layer.attention is not None:
        yield layer.attention.node


def _embeddings(blocks: Blocks, near: dict[ir.Node, str]) -> Iterator[Finding]:
    for embedding in blocks.embeddings:
        node, count = embedding.nodes[-1], len(embedding.tables)
        what = "1 table" if count == 1 else f"{count} tables"
        if called(node):
            yield Finding("embeddings", name_of(node), None, what, True, node.op_type)
            continue
        miss = next((near[reader] for reader in _readers(node) if reader in near), "")
        yield Finding("embeddings", name_of(node), None, what, False, miss or "no rule takes what is made of the rows")


def _readers(node: ir.Node, steps: int = 4) -> Iterator[ir.Node]:
    """Yield what reads the result of `node` through so many nodes, the nearest first."""
    level = [node]
    for _ in range(steps):
        level = list(dict.fromkeys(use.node for each in level for value in each.outputs for use in value.uses()))
        yield from level


def _layer(layer: Layer, said: Mapping[str, str]) -> Iterator[Finding]:
    if layer.attention is not None:
        yield _attention(layer.attention, layer.index, said)
    if layer.ffn is not None:
        yield _ffn(layer.ffn, layer.index)
        return
    yield survey.no_ffn("ffn", layer)


def _attention(attention: Attention, layer: int, said: Mapping[str, str]) -> Finding:
    taken = called(attention.node) is not None
    what = f"{survey.heads(attention)}, {'masked' if attention.masks else 'no mask'}"
    why = attention.node.op_type if taken else said.get(f"attention of layer {layer}", "it was not replaced")
    return Finding("attention", attention.context.name or "", layer, what, taken, why)


def _ffn(ffn: FeedForward, layer: int) -> Finding:
    plain = [product.role for product in (ffn.ffn_in, ffn.ffn_out) if not called(product.node)]
    what = f"{ffn.units} units, {'gated, ' if ffn.gate else ''}{ffn.activation or 'no activation'}"
    made = f"{ffn.ffn_in.node.op_type}, {ffn.ffn_out.node.op_type}"
    why = f"{' and '.join(plain)} stay as they are, see there" if plain else made
    return Finding("ffn", ffn.ffn_out.name, layer, what, not plain, why)


def _norm(node: ir.Node, layer: int | None, near: dict[ir.Node, str]) -> Finding:
    if called(node):
        more = f", no more: {near.pop(node)}" if node in near else ""
        return Finding("norm", name_of(node), layer, "", True, f"{node.op_type}{more}")
    return Finding("norm", name_of(node), layer, "", False, near.pop(node, "no rule begins at it"))


def _product(product: Product, layer: int | None, near: dict[ir.Node, str]) -> Finding:
    if called(product.node):
        return survey.of_product(product, layer, True, product.node.op_type)
    miss = next((near.pop(node) for node in (product.node, *_readers(product.node, 1)) if node in near), "")
    return survey.of_product(product, layer, False, miss or "no rule takes it without a bias")
