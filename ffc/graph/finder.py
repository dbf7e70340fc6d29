"""Finding the blocks of an encoder by walking its structure, not by names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from ffc.graph import ops
from ffc.graph.attention import AttentionFinder, NotABlockError, is_core
from ffc.graph.blocks import Attention, Blocks, Embedding, FeedForward, Layer, NormBlock, Product, Unmatched
from ffc.graph.edit import constant
from ffc.graph.movement import BATCH, LENGTH
from ffc.graph.products import Products
from ffc.graph.shapes import infer

__all__ = ["find"]

_ELEMENTWISE = {"Add", "Div", "Erf", "Gelu", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
_MAX_ACTIVATION = 16
"""Nodes that the longest known form of an activation takes, with room to spare."""


def find(model: ir.Model) -> Blocks:
    """Find the blocks of `model`.

    Attention is found from each Softmax, ``Attention`` node or call; feed-forward networks from the residual
    connection around them.

    Args:
        model: Any model, raw from an exporter or between passes; it is not changed.

    Returns:
        The blocks; what looked like one and is none is listed with the reason.
    """
    products = Products(model.graph)
    order = {node: index for index, node in enumerate(model.graph)}
    attentions, unmatched = _attentions(model, products)
    roles = {p.out: p for a in attentions for p in (a.q, a.k, a.v, a.attn_out)}
    free = [product for out, product in products.by_output.items() if out not in roles]
    ffns = [ffn for product in free if (ffn := _feed_forward(product, products, order)) is not None]
    roles |= {p.out: p for ffn in ffns for p in (ffn.ffn_in, ffn.ffn_out)}
    last = max((order[product.node] for product in roles.values()), default=-1)
    head = [p.playing("head") for p in free if p.out not in roles and order[p.node] > last]
    roles |= {product.out: product for product in head}
    fused = {product.out for product in roles.values() if product.columns is not None}
    return Blocks(
        layers=tuple(_layers(attentions, ffns, order)),
        norms=tuple(norm for node in model.graph if (norm := _norm(node)) is not None),
        embeddings=tuple(_embeddings(model.graph)),
        head=tuple(head),
        products=tuple(p if out in fused else roles.get(out, p) for out, p in products.by_output.items()),
        unmatched=tuple(unmatched),
    )


def _attentions(model: ir.Model, products: Products) -> tuple[list[Attention], list[Unmatched]]:
    finder = AttentionFinder(products, infer(model), _sizes(model))
    found, unmatched = [], []
    for node in model.graph:
        if not is_core(node):
            continue
        try:
            found.append(finder.find(node))
        except NotABlockError as error:
            unmatched.append(Unmatched(f"{node.op_type} {node.name}", str(error)))
    return found, unmatched


def _sizes(model: ir.Model) -> dict[str, int]:
    """Give each symbol of the inputs' shapes a number: batch on axis 0, tokens elsewhere."""
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                sizes.setdefault(dim.value or f"{value.name}.{axis}", LENGTH if axis else BATCH)
    return sizes


def _feed_forward(ffn_in: Product, products: Products, order: dict[ir.Node, int]) -> FeedForward | None:
    """Return the feed-forward network that starts with `ffn_in`, or None."""
    found = _activation(ffn_in.out, products)
    if found is None:
        return None
    end, between = found
    ffn_out = products.only_reader(end)
    if ffn_out is None or ffn_out.sizes[1] != ffn_in.sizes[0] or not _has_residual(ffn_out.out):
        return None
    inside = {"LinearGelu": "Gelu", "LinearRelu": "Relu"}.get(ffn_in.node.op_type, "")
    names = [node.op_type for node in sorted(between, key=order.__getitem__)]
    return FeedForward(ffn_in.playing("ffn_in"), ffn_out.playing("ffn_out"), " ".join([inside, *names]).strip())


def _activation(start: ir.Value, products: Products) -> tuple[ir.Value, set[ir.Node]] | None:
    """Follow elementwise operators from `start` to where a product reads them; None if they lead elsewhere."""
    inside, nodes = {start}, set[ir.Node]()
    for _ in range(_MAX_ACTIVATION):
        if any(value.is_graph_output() for value in inside):
            return None
        ends = [value for value in inside if any(use.node not in nodes for use in value.uses())]
        if len(ends) == 1 and products.reads(ends[0]):
            return ends[0], nodes
        users = {use.node for value in ends for use in value.uses()} - nodes
        ready = {node for node in users if _is_elementwise(node, inside)}
        if not ready:
            return None
        nodes |= ready
        inside |= {node.outputs[0] for node in ready}
    return None


def _is_elementwise(node: ir.Node, inside: Iterable[ir.Value]) -> bool:
    """Whether `node` works element by element on values `inside` and constant numbers alone."""
    if node.domain or node.op_type not in _ELEMENTWISE:
        return False
    for value in node.inputs:
        number = constant(value)
        if value is None:
            return False
        if value not in inside and (number is None or number.size != 1):
            return False
    return True


def _has_residual(value: ir.Value) -> bool:
    """Whether `value` is added to something that is computed."""
    for use in value.uses():
        if ops.is_call(use.node, "AddNorm"):
            return True
        if use.node.op_type == "Add" and all(constant(operand) is None for operand in use.node.inputs):
            return True
    return False


def _norm(node: ir.Node) -> NormBlock | None:
    if ops.is_call(node, "AddNorm"):
        x, skip = node.inputs[:2]
        assert x is not None
        return NormBlock(node, x, skip)
    if ops.is_call(node, "Norm", "Embed", "EmbedInt8") or node.op_type == "LayerNormalization":
        x = node.inputs[0]
        assert x is not None
        add = x.producer()
        if add is not None and add.op_type == "Add" and all(constant(value) is None for value in add.inputs):
            one, other = add.inputs
            assert one is not None
            return NormBlock(node, one, other)
        return NormBlock(node, x, None)
    return None


def _embeddings(graph: ir.Graph) -> Iterator[Embedding]:
    calls = [node for node in graph if ops.is_call(node, "Embed")]
    for node in calls:
        ids, tables = node.inputs[:3], node.inputs[3:6]
        yield Embedding(tuple(v for v in tables if v), tuple(v for v in ids if v), (node,))
    found = [node for node in graph if _is_lookup(node)]
    if found:
        tables, ids = zip(*((node.inputs[0], node.inputs[1]) for node in found), strict=True)
        yield Embedding(tables, ids, tuple(found))


def _is_lookup(node: ir.Node) -> bool:
    table = constant(node.inputs[0]) if node.op_type == "Gather" and not node.domain else None
    axis = node.attributes.get("axis")
    float_table = table is not None and table.ndim == 2 and table.shape[1] > 1 and table.dtype.kind == "f"
    return float_table and (axis is None or axis.value == 0) and constant(node.inputs[1]) is None


def _layers(attentions: list[Attention], ffns: list[FeedForward], order: dict[ir.Node, int]) -> Iterator[Layer]:
    """Pair each attention with the feed-forward network between it and the next."""
    starts = [order[attention.core] for attention in attentions]
    at = {id(ffn): order[ffn.ffn_in.node] for ffn in ffns}
    for index, attention in enumerate(attentions):
        end = starts[index + 1] if index + 1 < len(starts) else math.inf
        inside = [ffn for ffn in ffns if starts[index] < at[id(ffn)] < end]
        yield Layer(index, attention, inside[0] if len(inside) == 1 else None)
