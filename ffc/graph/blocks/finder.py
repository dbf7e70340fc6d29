"""Finding the blocks of an encoder by walking its structure, not by names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import onnx_ir as ir

from ffc.graph.blocks.attention import AttentionFinder, NotABlockError, is_core
from ffc.graph.blocks.feed_forward import FeedForwardFinder, has_residual
from ffc.graph.blocks.products import Products
from ffc.graph.blocks.structure import Attention, Blocks, Embedding, FeedForward, Layer, NormBlock, Product, Unmatched
from ffc.graph.blocks.tables import table_of
from ffc.graph.dialect.edit import constant
from ffc.graph.dialect.function import Function, called
from ffc.graph.shapes.inference import infer
from ffc.graph.shapes.positions import input_sizes

__all__ = ["find"]


def find(model: ir.Model) -> Blocks:
    """Find the blocks of `model`.

    Attention is found from each Softmax, ``Attention`` node or call; feed-forward networks from the product that leads
    back to the residual connection around them.

    Args:
        model: Any model, raw from an exporter or between passes; it is not changed.

    Returns:
        The blocks; what looked like one and is none is listed with the reason.
    """
    products, shapes = Products(model.graph), infer(model)
    sizes = input_sizes(model.graph.inputs, shapes)
    order = {node: index for index, node in enumerate(model.graph)}
    attentions, unmatched = _attentions(model, AttentionFinder(products, shapes, sizes))
    roles = {p.out: p for attention in attentions for p in attention.roles.values()}
    free = [product for out, product in products.by_output.items() if out not in roles]
    ffns, missed = _feed_forwards(free, FeedForwardFinder(products, shapes, sizes, order))
    roles |= {p.out: p for ffn in ffns for p in ffn.products()}
    free = [product for product in free if product.out not in roles]
    inside = [*roles.values(), *(product for product in free if has_residual(product.out))]
    last = max((order[product.node] for product in inside), default=-1)
    unmatched += [miss for product, miss in missed if order[product.node] < last]
    following = _following(attentions, ffns, order)
    unmatched += _crowded(following)
    # Of a last layer without a feed-forward network that was found it is not known where it ends.
    whole = bool(following[-1] if following else ffns)
    head = [product.playing("head") for product in free if whole and order[product.node] > last]
    roles |= {product.out: product for product in head}
    fused = {product.out for product in roles.values() if product.columns is not None}
    return Blocks(
        layers=tuple(_layers(attentions, ffns, following)),
        norms=tuple(norm for node in model.graph if (norm := _norm(node)) is not None),
        embeddings=tuple(_embeddings(model.graph)),
        head=tuple(head),
        products=tuple(p if out in fused else roles.get(out, p) for out, p in products.by_output.items()),
        unmatched=tuple(unmatched),
    )


def _attentions(model: ir.Model, finder: AttentionFinder) -> tuple[list[Attention], list[Unmatched]]:
    found, unmatched = [], []
    for node in model.graph:
        if not is_core(node):
            continue
        try:
            found.append(finder.find(node))
        except NotABlockError as error:
            unmatched.append(Unmatched(f"{node.op_type} {node.name}", str(error)))
    return found, unmatched


def _feed_forwards(
    free: list[Product], finder: FeedForwardFinder
) -> tuple[list[FeedForward], list[tuple[Product, Unmatched]]]:
    found, missed = [], []
    for product in free:
        try:
            ffn = finder.find(product)
        except NotABlockError as error:
            node = product.node
            missed.append((product, Unmatched(f"{node.op_type} {node.name}", str(error), "feed-forward")))
            continue
        if ffn is not None:
            found.append(ffn)
    return found, missed


def _norm(node: ir.Node) -> NormBlock | None:
    function, (x, *_) = called(node), node.inputs or (None,)
    if x is None or not (node.op_type == "LayerNormalization" if function is None else _normalises(function)):
        return None
    if function is not None and function.skip:
        return NormBlock(node, x, function.given(node)[function.skip])
    add = x.producer()
    if add is not None and add.op_type == "Add" and all(constant(value) is None for value in add.inputs):
        one, other = add.inputs
        assert one is not None
        return NormBlock(node, one, other)
    return NormBlock(node, x, None)


def _normalises(function: Function) -> bool:
    return function.family == "norm" or function.ends_in_norm or bool(function.skip)


def _embeddings(graph: ir.Graph) -> Iterator[Embedding]:
    for node in graph:
        function = called(node)
        if function is not None and function.tables:
            given = function.given(node)
            pairs = [(given[table], given[ids]) for table, ids in function.tables.items()]
            tables, ids = zip(*((table, ids) for table, ids in pairs if table and ids), strict=True)
            yield Embedding(tables, ids, (node,))
    found = [node for node in graph if table_of(node) is not None and constant(node.inputs[1]) is None]
    if found:
        tables, ids = zip(*((node.inputs[0], node.inputs[1]) for node in found), strict=True)
        yield Embedding(tables, ids, tuple(found))


def _following(
    attentions: list[Attention], ffns: list[FeedForward], order: dict[ir.Node, int]
) -> list[list[FeedForward]]:
    """Return the feed-forward networks between each attention and the next."""
    places = [*(order[attention.node] for attention in attentions), math.inf]
    return [[ffn for ffn in ffns if start < order[ffn.ffn_in.node] < end] for start, end in itertools.pairwise(places)]


def _layers(
    attentions: list[Attention], ffns: list[FeedForward], following: list[list[FeedForward]]
) -> Iterator[Layer]:
    """Pair each attention with the feed-forward network up to the next; without any, a layer is one such network."""
    if not attentions:
        yield from (Layer(index, None, ffn) for index, ffn in enumerate(ffns))
    for index, (attention, inside) in enumerate(zip(attentions, following, strict=True)):
        yield Layer(index, attention, inside[0] if len(inside) == 1 else None)


def _crowded(following: list[list[FeedForward]]) -> Iterator[Unmatched]:
    """Yield the feed-forward networks that belong to no layer, since it has several."""
    for index, inside in enumerate(following):
        for ffn in inside if len(inside) > 1 else ():
            node = ffn.ffn_out.node
            why = f"layer {index} has {len(inside)} feed-forward networks, not one"
            yield Unmatched(f"{node.op_type} {node.name}", why, "feed-forward")
