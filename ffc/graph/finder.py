"""Finding the blocks of an encoder by walking its structure.

Attention is found from each Softmax (or ``Attention`` node, or call): backwards through whatever moves and scales the scores to the
constant products behind q, k and v, and forwards to the output projection. Which column of a product is which part of which head is
not guessed from the operators on the way; positions are sent through them (`movement`) and read off at the end, so any chain of
reshapes, transposes, splits and slices will do. Feed-forward networks are found from their residual connection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph import ops
from ffc.graph.blocks import Attention, Blocks, Embedding, FeedForward, Layer, NormBlock, Product, Unmatched
from ffc.graph.edit import constant, producer
from ffc.graph.movement import BATCH, LENGTH, concrete, move, moves
from ffc.graph.shapes import Shapes, infer

__all__ = ["find"]

_ELEMENTWISE = {"Add", "Div", "Erf", "Gelu", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
_MAX_ACTIVATION = 16
"""Nodes that the longest known form of an activation takes, with room to spare."""


class _NotABlockError(Exception):
    """The walk met something that no block has there."""


def find(model: ir.Model) -> Blocks:
    """Find the blocks of `model`.

    Args:
        model: Any model, raw from an exporter or between passes; it is not changed.

    Returns:
        The blocks; what looked like one and is none is listed with the reason.
    """
    return _Finder(model).blocks()


@dataclass(frozen=True)
class _Side:
    """One operand of a product of activations, followed back to the constant product it comes from."""

    product: Product
    scale: float
    positions: np.ndarray


class _Finder:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.shapes: Shapes = infer(model)
        self.sizes = _sizes(model)
        self.products = {p.out: p for node in model.graph if (p := _product(node)) is not None}
        self.readers: dict[ir.Value, list[Product]] = {}
        for product in self.products.values():
            self.readers.setdefault(product.x, []).append(product)
        self.order = {node: index for index, node in enumerate(model.graph)}
        self.unmatched: list[Unmatched] = []

    def blocks(self) -> Blocks:
        attentions = list(self._each(_is_core, self._attention))
        roles = {p.out: p for a in attentions for p in (a.q, a.k, a.v, a.attn_out)}
        ffns = [ffn for product in self.products.values() if product.out not in roles and (ffn := self._ffn(product))]
        roles |= {p.out: p for ffn in ffns for p in (ffn.ffn_in, ffn.ffn_out)}
        layers = _layers(attentions, ffns, self.order)
        last = max((self.order[product.node] for product in roles.values()), default=-1)
        head = [p.playing("head") for p in self.products.values() if p.out not in roles and self.order[p.node] > last]
        roles |= {product.out: product for product in head}
        fused = {p.out for p in roles.values() if p.columns is not None}
        every = [p if out in fused else roles.get(out, p) for out, p in self.products.items()]
        norms = [norm for node in self.model.graph if (norm := _norm(node)) is not None]
        embeddings = _embeddings(self.model.graph)
        return Blocks(
            tuple(layers), tuple(norms), tuple(embeddings), tuple(head), tuple(every), tuple(self.unmatched)
        )

    def _each(self, wanted, build):  # type: ignore[no-untyped-def]
        for node in self.model.graph:
            if not wanted(node):
                continue
            try:
                yield build(node)
            except _NotABlockError as error:
                self.unmatched.append(Unmatched(f"{node.op_type} {node.name}", str(error)))

    # Attention

    def _attention(self, core: ir.Node) -> Attention:
        if ops.is_call(core, "Attention", "AttentionMasked"):
            return self._from_call(core)
        if core.op_type == "Attention":
            return self._from_operator(core)
        return self._from_softmax(core)

    def _from_call(self, core: ir.Node) -> Attention:
        heads = int(ops.attribute(core, "heads"))
        inputs = list(core.inputs)
        sides = [self._trace(value) for value in inputs[:3]]
        masks = tuple(value for value in inputs[3:] if value is not None)
        split = [self._heads_of(side, heads) for side in sides]
        context = core.outputs[0]
        return self._assemble(core, split, float(ops.attribute(core, "scale")), masks, context, self._out(context))

    def _from_operator(self, core: ir.Node) -> Attention:
        if any(value is not None for value in core.inputs[4:]) or len(core.outputs) > 1:
            raise _NotABlockError("it keeps a key and value cache or a second output")
        plain = {"q_num_heads", "kv_num_heads", "scale"}
        odd = [a.name for a in core.attributes.values() if a.name not in plain and a.value]
        if odd:
            raise _NotABlockError(f"its attribute {odd[0]} is set")
        sides = [self._trace(value) for value in core.inputs[:3]]
        if sides[0].positions.ndim == 3:
            count = core.attributes["q_num_heads"].as_int()
            split = [self._heads_of(side, count) for side in sides]
        else:
            split = [(side, self._columns(side, side.positions)) for side in sides]
        size = split[0][1].shape[1]
        given = core.attributes.get("scale")
        scale = 1 / math.sqrt(size) if given is None else given.as_float()
        masks = tuple(value for value in core.inputs[3:4] if value is not None)
        context = core.outputs[0]
        out = self._out(context) if sides[0].positions.ndim == 3 else self._merged(context, split[2][1].shape)
        scale *= math.prod(side.scale for side in sides[:2])
        return self._assemble(core, split, scale, masks, out.x, out)

    def _from_softmax(self, core: ir.Node) -> Attention:
        axis = core.attributes["axis"].as_int() if "axis" in core.attributes else -1
        if axis not in (-1, 3):
            raise _NotABlockError(f"it is taken over axis {axis}, not the last")
        masks, scale, scores = self._scores(core.inputs[0])
        left, right = (self._trace(value) for value in scores.inputs)
        keys = right.positions
        if keys.ndim != 4:
            raise _NotABlockError(f"keys have {keys.ndim} axes, not 4")
        q = self._columns(left, left.positions)
        k = self._columns(right, keys.transpose(0, 1, 3, 2))
        weighted, value, guarded = self._weighted(core.outputs[0])
        side = self._trace(value)
        v = self._columns(side, side.positions)
        if side.scale != 1:
            raise _NotABlockError("its values are scaled")
        out = self._merged(weighted, v.shape)
        split = [(left, q), (right, k), (side, v)]
        found = self._assemble(core, split, scale * left.scale * right.scale, masks, out.x, out)
        return replace(found, guarded=guarded)

    def _assemble(
        self,
        core: ir.Node,
        split: list[tuple[_Side, np.ndarray]],
        scale: float,
        masks: tuple[ir.Value, ...],
        context: ir.Value,
        out: Product,
    ) -> Attention:
        q, k, v = (columns for _, columns in split)
        if not q.shape[0] == k.shape[0] == v.shape[0]:
            raise _NotABlockError(f"queries have {q.shape[0]} heads, keys {k.shape[0]}, values {v.shape[0]}")
        if len({side.product.x for side, _ in split}) > 1:
            raise _NotABlockError("queries, keys and values are made from different inputs")
        roles = [
            side.product.playing(role, _part(columns, side.product))
            for role, (side, columns) in zip(("q", "k", "v"), split, strict=True)
        ]
        return Attention(*roles, out.playing("attn_out"), int(q.shape[0]), scale, masks, core, context)

    def _scores(self, value: ir.Value | None) -> tuple[tuple[ir.Value, ...], float, ir.Node]:
        """Walk back from the Softmax to the product of queries and keys: masks added, scale, that product."""
        masks: list[ir.Value] = []
        scale = 1.0
        while True:
            node = producer(value)
            if node is None:
                raise _NotABlockError("its scores come from no product of queries and keys")
            if node.op_type == "MatMul" and not node.domain:
                return tuple(masks), scale, node
            if (factor := _factor(node)) is not None:
                value, number = factor
                scale *= number
            elif node.op_type == "Add" and scale == 1:
                value, mask = self._mask(node)
                masks.append(mask)
            elif node.op_type == "Identity":
                value = node.inputs[0]
            else:
                raise _NotABlockError(f"{node.op_type} {node.name} stands between its scores and the product")

    def _mask(self, node: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Tell the scores from the mask among the operands of an Add: scores come from a product of activations."""
        one, other = node.inputs
        assert one is not None and other is not None
        scores = [value for value in (one, other) if self._is_scores(value)]
        if len(scores) != 1:
            raise _NotABlockError(f"{node.op_type} {node.name} adds two products to its scores, or none")
        return scores[0], other if scores[0] is one else one

    def _is_scores(self, value: ir.Value) -> bool:
        node = value.producer()
        while node is not None and (node.op_type in ("Add", "Identity") or _factor(node) is not None):
            factor = _factor(node)
            operands = [factor[0]] if factor else [v for v in node.inputs if v is not None and producer(v) is not None]
            if len(operands) > 1:
                return any(self._is_scores(operand) for operand in operands)
            node = producer(operands[0]) if operands else None
        return node is not None and node.op_type == "MatMul" and all(constant(v) is None for v in node.inputs)

    def _weighted(self, value: ir.Value) -> tuple[ir.Value, ir.Value, bool]:
        """Walk forward from the Softmax to the product with the values: its output, its other operand, and if a guard was met."""
        guarded = False
        while True:
            users = [use.node for use in value.uses() if use.node.op_type != "IsNaN"]
            if len(users) != 1 or value.is_graph_output():
                raise _NotABlockError("its probabilities are read by several nodes or are an output of the model")
            node = users[0]
            if node.op_type == "MatMul" and node.inputs[0] is value and node.inputs[1] is not None:
                return node.outputs[0], node.inputs[1], guarded
            guarded = guarded or node.op_type == "Where"
            if not (_is_nan_guard(node, value) or node.op_type == "Identity"):
                raise _NotABlockError(f"{node.op_type} {node.name} stands between its probabilities and the values")
            value = node.outputs[0]

    def _trace(self, value: ir.Value | None) -> _Side:
        """Walk back through moves and constant factors to a constant product, then send its positions forward again."""
        path: list[tuple[ir.Node, ir.Value]] = []
        scale = 1.0
        while value is not None and value not in self.products:
            node = value.producer()
            if node is None:
                break
            if moves(node):
                path.append((node, value))
                value = node.inputs[0]
            elif (factor := _factor(node)) is not None:
                value, number = factor
                scale *= number
            else:
                raise _NotABlockError(f"{node.op_type} {node.name} stands before a product with a constant weight")
        if value is None or value not in self.products:
            raise _NotABlockError("an operand comes from no product with a constant weight")
        product = self.products[value]
        start = concrete(self.shapes, value, self.sizes)
        if start is None or len(start) != 3:
            raise _NotABlockError(f"the shape of {value.name} is not [batch, tokens, width]")
        positions: np.ndarray | None = np.arange(math.prod(start)).reshape(start)
        for node, output in reversed(path):
            positions = None if positions is None else move(node, positions, output, self.shapes, self.sizes)
            if positions is None:
                raise _NotABlockError(f"what {node.op_type} {node.name} does depends on shapes that are not known")
        assert positions is not None
        return _Side(product, scale, positions)

    def _heads_of(self, side: _Side, heads: int) -> tuple[_Side, np.ndarray]:
        positions = side.positions
        if positions.ndim != 3 or positions.shape[2] % heads:
            raise _NotABlockError(f"an operand of shape {list(positions.shape)} does not split into {heads} heads")
        return side, self._columns(side, positions.reshape(*positions.shape[:2], heads, -1).transpose(0, 2, 1, 3))

    def _columns(self, side: _Side, positions: np.ndarray) -> np.ndarray:
        """Return which column of the product each (head, element) is, given positions laid out [B, H, S, D]."""
        start = concrete(self.shapes, side.product.out, self.sizes)
        assert start is not None
        batch, tokens, width = start
        if positions.ndim != 4 or positions.shape[0] != batch or positions.shape[2] != tokens:
            raise _NotABlockError(f"an operand is laid out {list(positions.shape)}, not [batch, heads, tokens, size]")
        columns = positions[0, :, 0, :]
        rows = np.arange(batch * tokens).reshape(batch, 1, tokens, 1) * width
        if columns.max(initial=0) >= width or not np.array_equal(positions, rows + columns[None, :, None, :]):
            raise _NotABlockError("an operand mixes tokens")
        return columns

    def _merged(self, value: ir.Value, heads: tuple[int, ...]) -> Product:
        """Walk forward from the context [B, H, S, E] to the output projection, which must read it as [B, S, H*E]."""
        count, size = heads
        start = concrete(self.shapes, value, self.sizes)
        if start is None:
            batch, tokens = self.sizes.get("", BATCH), LENGTH
            start = (batch, count, tokens, size)
        if len(start) != 4 or (start[1], start[3]) != (count, size):
            raise _NotABlockError(f"its context has shape {list(start)}, not [batch, {count}, tokens, {size}]")
        positions: np.ndarray | None = np.arange(math.prod(start)).reshape(start)
        want = np.arange(math.prod(start)).reshape(start).transpose(0, 2, 1, 3).reshape(start[0], start[2], -1)
        while value not in self.readers:
            users = [use.node for use in value.uses()]
            if len(users) != 1 or not moves(users[0]):
                raise _NotABlockError("its context does not lead to an output projection")
            assert positions is not None
            value, node = users[0].outputs[0], users[0]
            positions = move(node, positions, value, self.shapes, self.sizes)
            if positions is None:
                raise _NotABlockError(f"what {node.op_type} {node.name} does depends on shapes that are not known")
        if positions is None or positions.shape != want.shape or not np.array_equal(positions, want):
            raise _NotABlockError("its heads are not merged in order before the output projection")
        return self._out(value)

    def _out(self, context: ir.Value) -> Product:
        readers = self.readers.get(context, [])
        if len(readers) != 1 or len({use.node for use in context.uses()}) != 1:
            raise _NotABlockError("its context is read by something other than one output projection")
        return readers[0]

    # Feed-forward

    def _ffn(self, ffn_in: Product) -> FeedForward | None:
        """Return the feed-forward network that starts with `ffn_in`, or None."""
        found = self._activation(ffn_in.out)
        if found is None:
            return None
        end, between = found
        readers = self.readers.get(end, [])
        if len(readers) != 1 or len({use.node for use in end.uses()}) != 1:
            return None
        ffn_out = readers[0]
        if ffn_out.sizes[1] != ffn_in.sizes[0] or not _has_residual(ffn_out.out):
            return None
        inside = {"LinearGelu": "Gelu", "LinearRelu": "Relu"}.get(ffn_in.node.op_type.replace("Int8", ""), "")
        return FeedForward(ffn_in.playing("ffn_in"), ffn_out.playing("ffn_out"), " ".join([inside, *between]).strip())

    def _activation(self, start: ir.Value) -> tuple[ir.Value, list[str]] | None:
        """Follow elementwise operators from `start` to where they come together again; None if they do not."""
        inside = {start}
        nodes: list[ir.Node] = []
        for _ in range(_MAX_ACTIVATION):
            open_values = [v for v in inside if any(use.node not in nodes for use in v.uses())]
            if any(value.is_graph_output() for value in inside):
                return None
            if len(open_values) == 1 and open_values[0] in self.readers:
                return open_values[0], [node.op_type for node in sorted(nodes, key=self.order.__getitem__)]
            users = {use.node for value in open_values for use in value.uses()} - set(nodes)
            ready = [node for node in users if _is_elementwise(node, inside)]
            if not ready:
                return None
            nodes += ready
            inside |= {node.outputs[0] for node in ready}
        return None


def _sizes(model: ir.Model) -> dict[str, int]:
    """Give each symbol of the inputs' shapes a number: batch on axis 0, tokens elsewhere."""
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                sizes.setdefault(dim.value or f"{value.name}.{axis}", LENGTH if axis else BATCH)
    return sizes


def _product(node: ir.Node) -> Product | None:
    """Return `node` as a product with a constant weight, or None."""
    if ops.is_call(node, "Linear", "LinearRelu", "LinearGelu"):
        x, weight, bias = node.inputs
    elif node.op_type == "Gemm" and not node.domain:
        return _gemm(node)
    elif node.op_type == "MatMul" and not node.domain:
        (x, weight), bias = node.inputs, None
    else:
        return None
    array = constant(weight)
    if x is None or weight is None or array is None or array.ndim != 2 or constant(x) is not None:
        return None
    out = node.outputs[0]
    if bias is None:
        bias, out = _bias(out, array.shape[1])
    return Product(node, weight, False, bias, out)


def _gemm(node: ir.Node) -> Product | None:
    flags = {name: attr.value for name, attr in node.attributes.items()}
    plain = not flags.get("transA", 0) and flags.get("alpha", 1.0) == 1.0 and flags.get("beta", 1.0) == 1.0
    x, weight, bias = [*node.inputs, None][:3]
    if not plain or x is None or weight is None or constant(weight) is None:
        return None
    if bias is not None and (constant(bias) is None or constant(bias).ndim != 1):  # type: ignore[union-attr]
        return None
    return Product(node, weight, bool(flags.get("transB", 0)), bias, node.outputs[0])


def _bias(out: ir.Value, width: int) -> tuple[ir.Value | None, ir.Value]:
    """Return the bias that the only reader of `out` adds, and the value after it."""
    users = {use.node for use in out.uses()}
    if len(users) != 1 or out.is_graph_output():
        return None, out
    (node,) = users
    if node.op_type != "Add" or node.domain:
        return None, out
    other = next((value for value in node.inputs if value is not out), None)
    array = constant(other)
    if array is None or array.shape != (width,):
        return None, out
    return other, node.outputs[0]


def _part(columns: np.ndarray, product: Product) -> tuple[int, ...] | None:
    """Return `columns` in order, or None where they are simply all of the product's."""
    flat = tuple(int(column) for column in columns.reshape(-1))
    return None if flat == tuple(range(product.sizes[1])) else flat


def _is_core(node: ir.Node) -> bool:
    if ops.is_call(node, "Attention", "AttentionMasked"):
        return True
    return not node.domain and node.op_type in ("Softmax", "Attention")


def _factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return the operand and the number where `node` multiplies by or divides by one constant number."""
    if node.domain or node.op_type not in ("Mul", "Div"):
        return None
    one, other = node.inputs
    if constant(one) is not None and node.op_type == "Mul":
        one, other = other, one
    number = constant(other)
    if one is None or number is None or number.size != 1 or number.ndim > 1 or not number.reshape(-1)[0]:
        return None
    value = float(number.reshape(-1)[0])
    return one, value if node.op_type == "Mul" else 1 / value


def _is_nan_guard(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` is ``Where(IsNaN(value), 0, value)``."""
    if node.op_type != "Where" or node.inputs[2] is not value:
        return False
    test, zero = producer(node.inputs[0]), constant(node.inputs[1])
    return test is not None and test.op_type == "IsNaN" and test.inputs[0] is value and zero is not None and not zero.any()


def _is_elementwise(node: ir.Node, inside: Iterable[ir.Value]) -> bool:
    """Whether `node` works element by element on values `inside` and constant numbers alone."""
    if node.domain or node.op_type not in _ELEMENTWISE:
        return False
    for value in node.inputs:
        number = constant(value)
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
    float_table = table is not None and table.ndim == 2 and table.dtype.kind == "f"
    return float_table and (axis is None or axis.value == 0) and constant(node.inputs[1]) is None


def _layers(attentions: list[Attention], ffns: list[FeedForward], order: dict[ir.Node, int]) -> Iterator[Layer]:
    """Pair each attention with the feed-forward network between it and the next."""
    starts = [order[attention.core] for attention in attentions]
    at = {id(ffn): order[ffn.ffn_in.node] for ffn in ffns}
    for index, attention in enumerate(attentions):
        end = starts[index + 1] if index + 1 < len(starts) else math.inf
        inside = [ffn for ffn in ffns if starts[index] < at[id(ffn)] < end]
        yield Layer(index, attention, inside[0] if len(inside) == 1 else None)
