"""Finding attention by walking from its Softmax, node or call.

The walk goes backwards through whatever moves and scales the scores to the constant products behind q, k and v, and
forwards to the output projection. Which column of a product is which part of which head is not guessed from the
operators on the way: positions are sent through them (`movement`) and read off at the end, so any chain of reshapes,
transposes, splits and slices will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph import ops
from ffc.graph.blocks import Attention, Product
from ffc.graph.edit import constant, producer
from ffc.graph.movement import concrete, move, moves
from ffc.graph.products import Products
from ffc.graph.shapes import Shapes

__all__ = ["AttentionFinder", "NotABlockError", "is_core"]


class NotABlockError(Exception):
    """The walk met something that no block has there; the message says what."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One operand of a product of activations, followed back to the constant product it comes from.

    Attributes:
        product: That product.
        scale: The factors met on the way, multiplied.
        positions: Which element of the product's output each element of the operand is.
    """

    product: Product
    scale: float
    positions: np.ndarray


class AttentionFinder:
    """Finds attention in one graph."""

    def __init__(self, products: Products, shapes: Shapes, sizes: Mapping[str, int]) -> None:
        """Prepare the walks.

        Args:
            products: The graph's products.
            shapes: Its shapes.
            sizes: A number for each symbol in them, small, to send positions through.
        """
        self.products = products
        self.shapes = shapes
        self.sizes = dict(sizes)

    def find(self, core: ir.Node) -> Attention:
        """Return the attention around `core`, a node for which `is_core` holds.

        Raises:
            NotABlockError: If the walk meets something that attention does not have there.
        """
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
        scale = float(ops.attribute(core, "scale")) * math.prod(side.scale for side in sides[:2])
        return self._assemble(core, split, scale, masks, context, self._out(context))

    def _from_operator(self, core: ir.Node) -> Attention:
        if any(value is not None for value in core.inputs[4:]) or len(core.outputs) > 1:
            raise NotABlockError("it keeps a key and value cache or a second output")
        plain = {"q_num_heads", "kv_num_heads", "scale"}
        odd = [a.name for a in core.attributes.values() if a.name not in plain and a.value]
        if odd:
            raise NotABlockError(f"its attribute {odd[0]} is set")
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
            raise NotABlockError(f"it is taken over axis {axis}, not the last")
        masks, scale, scores = self._scores(core.inputs[0])
        left, right = (self._trace(value) for value in scores.inputs)
        keys = right.positions
        if keys.ndim != 4:
            raise NotABlockError(f"keys have {keys.ndim} axes, not 4")
        q = self._columns(left, left.positions)
        k = self._columns(right, keys.transpose(0, 1, 3, 2))
        weighted, value, guarded = self._weighted(core.outputs[0])
        side = self._trace(value)
        v = self._columns(side, side.positions)
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
        if split[2][0].scale != 1:
            raise NotABlockError("its values are scaled")
        if not q.shape[0] == k.shape[0] == v.shape[0]:
            raise NotABlockError(f"queries have {q.shape[0]} heads, keys {k.shape[0]}, values {v.shape[0]}")
        if len({side.product.x for side, _ in split}) > 1:
            raise NotABlockError("queries, keys and values are made from different inputs")
        q_product, k_product, v_product = (
            side.product.playing(role, _part(columns, side.product))
            for role, (side, columns) in zip(("q", "k", "v"), split, strict=True)
        )
        return Attention(
            q=q_product,
            k=k_product,
            v=v_product,
            attn_out=out.playing("attn_out"),
            heads=int(q.shape[0]),
            scale=scale,
            masks=masks,
            core=core,
            context=context,
        )

    def _scores(self, value: ir.Value | None) -> tuple[tuple[ir.Value, ...], float, ir.Node]:
        """Walk back from the Softmax to the product of queries and keys: masks added, scale, that product."""
        masks: list[ir.Value] = []
        scale = 1.0
        while True:
            node = producer(value)
            if node is None:
                raise NotABlockError("its scores come from no product of queries and keys")
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
                raise NotABlockError(f"{node.op_type} {node.name} stands between its scores and the product")

    def _mask(self, node: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Tell the scores from the mask among the operands of an Add: scores come from a product of activations."""
        one, other = node.inputs
        assert one is not None and other is not None
        scores = [value for value in (one, other) if self._is_scores(value)]
        if len(scores) != 1:
            raise NotABlockError(f"{node.op_type} {node.name} adds two products to its scores, or none")
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
        """Walk forward from the Softmax to the product with the values: its output, the values, if a guard was met."""
        guarded = False
        while True:
            users = [use.node for use in value.uses() if use.node.op_type != "IsNaN"]
            if len(users) != 1 or value.is_graph_output():
                raise NotABlockError("its probabilities are read by several nodes or are an output of the model")
            node = users[0]
            if node.op_type == "MatMul" and node.inputs[0] is value and node.inputs[1] is not None:
                return node.outputs[0], node.inputs[1], guarded
            guarded = guarded or node.op_type == "Where"
            if not (_is_nan_guard(node, value) or node.op_type == "Identity"):
                raise NotABlockError(f"{node.op_type} {node.name} stands between its probabilities and the values")
            value = node.outputs[0]

    def _trace(self, value: ir.Value | None) -> _Side:
        """Walk back through moves and constant factors to a constant product, then send its positions forward again."""
        path: list[tuple[ir.Node, ir.Value]] = []
        scale = 1.0
        while value is not None and value not in self.products.by_output:
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
                raise NotABlockError(f"{node.op_type} {node.name} stands before a product with a constant weight")
        if value is None or value not in self.products.by_output:
            raise NotABlockError("an operand comes from no product with a constant weight")
        product = self.products.by_output[value]
        start = concrete(self.shapes, value, self.sizes)
        if start is None or len(start) != 3:
            raise NotABlockError(f"the shape of {value.name} is not [batch, tokens, width]")
        positions: np.ndarray | None = np.arange(math.prod(start)).reshape(start)
        for node, output in reversed(path):
            positions = None if positions is None else move(node, positions, output, self.shapes, self.sizes)
            if positions is None:
                raise NotABlockError(f"what {node.op_type} {node.name} does depends on shapes that are not known")
        assert positions is not None
        return _Side(product, scale, positions)

    def _heads_of(self, side: _Side, heads: int) -> tuple[_Side, np.ndarray]:
        positions = side.positions
        if positions.ndim != 3 or positions.shape[2] % heads:
            raise NotABlockError(f"an operand of shape {list(positions.shape)} does not split into {heads} heads")
        return side, self._columns(side, positions.reshape(*positions.shape[:2], heads, -1).transpose(0, 2, 1, 3))

    def _columns(self, side: _Side, positions: np.ndarray) -> np.ndarray:
        """Return which column of the product each (head, element) is, given positions laid out [B, H, S, D]."""
        start = concrete(self.shapes, side.product.out, self.sizes)
        assert start is not None
        batch, tokens, width = start
        if positions.ndim != 4 or positions.shape[0] != batch or positions.shape[2] != tokens:
            raise NotABlockError(f"an operand is laid out {list(positions.shape)}, not [batch, heads, tokens, size]")
        columns = positions[0, :, 0, :]
        rows = np.arange(batch * tokens).reshape(batch, 1, tokens, 1) * width
        if columns.max(initial=0) >= width or not np.array_equal(positions, rows + columns[None, :, None, :]):
            raise NotABlockError("an operand mixes tokens")
        return columns

    def _merged(self, value: ir.Value, heads: tuple[int, ...]) -> Product:
        """Walk forward from the context [B, H, S, E] to the output projection, which must read it as [B, S, H*E]."""
        count, size = heads
        start = concrete(self.shapes, value, self.sizes)
        if start is None or len(start) != 4 or (start[1], start[3]) != (count, size):
            found = "an unknown shape" if start is None else f"shape {list(start)}"
            raise NotABlockError(f"its context has {found}, not [batch, {count}, tokens, {size}]")
        positions: np.ndarray | None = np.arange(math.prod(start)).reshape(start)
        want = np.arange(math.prod(start)).reshape(start).transpose(0, 2, 1, 3).reshape(start[0], start[2], -1)
        while not self.products.reads(value):
            users = [use.node for use in value.uses()]
            if len(users) != 1 or not moves(users[0]):
                raise NotABlockError("its context does not lead to an output projection")
            assert positions is not None
            value, node = users[0].outputs[0], users[0]
            positions = move(node, positions, value, self.shapes, self.sizes)
            if positions is None:
                raise NotABlockError(f"what {node.op_type} {node.name} does depends on shapes that are not known")
        if positions is None or positions.shape != want.shape or not np.array_equal(positions, want):
            raise NotABlockError("its heads are not merged in order before the output projection")
        return self._out(value)

    def _out(self, context: ir.Value) -> Product:
        product = self.products.only_reader(context)
        if product is None:
            raise NotABlockError("its context is read by something other than one output projection")
        return product


def is_core(node: ir.Node) -> bool:
    """Whether attention may be found around `node`."""
    if ops.is_call(node, "Attention", "AttentionMasked"):
        return True
    return not node.domain and node.op_type in ("Softmax", "Attention")


def _part(columns: np.ndarray, product: Product) -> tuple[int, ...] | None:
    """Return `columns` in order, or None where they are simply all of the product's."""
    flat = tuple(int(column) for column in columns.reshape(-1))
    return None if flat == tuple(range(product.sizes[1])) else flat


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
    if test is None or test.op_type != "IsNaN" or test.inputs[0] is not value:
        return False
    return zero is not None and not zero.any()
