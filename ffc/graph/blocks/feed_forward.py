"""Finding feed-forward networks by walking back from the product that narrows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from ffc.graph.blocks.operands import MAX_POSITIONS
from ffc.graph.blocks.products import Products, multiplies
from ffc.graph.blocks.scores import NotABlockError, passes_on
from ffc.graph.blocks.structure import FeedForward, Product
from ffc.graph.dialect.edit import constant
from ffc.graph.dialect.function import called
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import concrete, move

__all__ = ["FeedForwardFinder", "has_residual"]

_ELEMENTWISE = {"Add", "Div", "Erf", "Gelu", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Swish", "Tanh"}
_PARTING = {"Gather", "Slice", "Split"}
_MAX_ACTIVATION = 20
"""Nodes that the longest known form of a gated activation takes, with room to spare."""


@dataclass(eq=False)
class _Walk:
    """What lies between the product that narrows and those that widen.

    Attributes:
        nodes: Operators that work element by element, or cut a product in two.
        widening: Values in which elementwise work begins: outputs of products, or parts of them.
        obstacle: The first operator met that is neither; None if there is none.
    """

    nodes: set[ir.Node] = field(default_factory=set)
    widening: list[ir.Value] = field(default_factory=list)
    obstacle: str = ""


@dataclass(frozen=True, eq=False)
class FeedForwardFinder:
    """Finds feed-forward networks in one graph.

    Attributes:
        products: The graph's products.
        shapes: Its shapes.
        sizes: A number for each symbol in them.
        order: The place of each node.
    """

    products: Products
    shapes: Shapes
    sizes: Mapping[str, int]
    order: Mapping[ir.Node, int]

    def find(self, ffn_out: Product) -> FeedForward | None:
        """Return the feed-forward network that ends with `ffn_out`, or None if it looks like none.

        Raises:
            NotABlockError: If it looks like one and a condition does not hold.
        """
        walk = self._back(ffn_out.x)
        parts = [self._part(value) for value in walk.widening]
        wide = [part for part in parts if part is not None]
        if not wide or len(wide) < len(parts):
            return None
        activated = bool(walk.nodes) or any(_activation(part) for part in wide)
        if not activated and ffn_out.sizes[1] != wide[0].sizes[0]:
            return None
        self._check(ffn_out, wide, walk)
        wide.sort(key=lambda part: (self.order[part.node], part.columns or ()))
        ffn_in, gate = (wide[0], None) if len(wide) == 1 else self._which_is_gate(wide, walk)
        between = [node for node in walk.nodes if node.op_type not in _PARTING and not passes_on(node)]
        names = [node.op_type for node in sorted(between, key=self.order.__getitem__)]
        return FeedForward(
            ffn_in.playing("ffn_in"),
            ffn_out.playing("ffn_out"),
            " ".join([_activation(ffn_in), *names]).strip(),
            None if gate is None else gate.playing("gate"),
        )

    def _back(self, value: ir.Value) -> _Walk:
        """Walk back through elementwise operators to where their work begins."""
        walk = _Walk()
        pending = [value]
        while pending:
            value = pending.pop()
            node = value.producer()
            if value in walk.widening or node in walk.nodes:
                continue
            begins = value in self.products.by_output or len(walk.nodes) >= _MAX_ACTIVATION
            if node is None or begins or (node.op_type in _PARTING and not node.domain):
                walk.widening.append(value)
                continue
            passing = passes_on(node)
            computed = [v for v in node.inputs[: 1 if passing else None] if v is not None and constant(v) is None]
            if passing or (not node.domain and node.op_type in _ELEMENTWISE):
                walk.nodes.add(node)
                pending += computed
            else:
                walk.obstacle = walk.obstacle or f"{node.op_type} {node.name} stands between its two products"
                walk.widening += [v for v in computed if v not in walk.widening]
            if not passing and any((array := constant(v)) is not None and array.size != 1 for v in node.inputs):
                walk.obstacle = walk.obstacle or f"{node.op_type} {node.name} treats each unit differently"
        return walk

    def _part(self, value: ir.Value) -> Product | None:
        """Return the product that `value` is, or is some columns of."""
        product = self.products.by_output.get(value)
        node = value.producer()
        if product is not None or node is None or node.domain or node.op_type not in _PARTING:
            return product
        product = None if node.inputs[0] is None else self.products.by_output.get(node.inputs[0])
        start = None if product is None else concrete(self.shapes, product.out, self.sizes)
        if product is None or not start or math.prod(start) > MAX_POSITIONS:
            return None
        moved = move(node, np.arange(math.prod(start)).reshape(start), value, self.shapes, self.sizes)
        if moved is None or moved.shape[:-1] != start[:-1]:
            return None
        columns = moved.reshape(-1, moved.shape[-1])[0]
        rows = np.arange(math.prod(start[:-1])).reshape(*start[:-1], 1) * start[-1]
        if not np.array_equal(moved, rows + columns):
            return None
        return replace(product, out=value, columns=tuple(int(column) for column in columns))

    def _check(self, ffn_out: Product, wide: list[Product], walk: _Walk) -> None:
        if walk.obstacle:
            raise NotABlockError(walk.obstacle)
        if len(wide) > 2 or len({part.x for part in wide}) > 1:
            raise NotABlockError(f"it joins {len(wide)} products of different inputs")
        if ffn_out.sizes[1] != wide[0].sizes[0]:
            raise NotABlockError(f"it leads from width {wide[0].sizes[0]} to {ffn_out.sizes[1]}, not back to it")
        if {part.sizes[1] for part in wide} != {ffn_out.sizes[0]}:
            raise NotABlockError("its parts differ in width")
        if not has_residual(ffn_out.out):
            raise NotABlockError("no residual connection is added to its output")
        cutters = {node for part in wide if part.columns and (node := part.out.producer()) is not None}
        inside = {value for node in walk.nodes | cutters for value in node.outputs} | {part.out for part in wide}
        inside |= {value for node in cutters for value in node.inputs[:1] if value is not None}
        readers = walk.nodes | cutters | {ffn_out.node}
        for value in inside:
            other = next((use.node for use in value.uses() if use.node not in readers), None)
            if value.is_graph_output() or (other is not None and other.op_type != "Shape"):
                what = "an output of the model" if other is None else f"also read by {other.op_type} {other.name}"
                raise NotABlockError(f"{value.name} inside it is {what}")

    def _which_is_gate(self, wide: list[Product], walk: _Walk) -> tuple[Product, Product]:
        """Return the product that is activated, and the one that gates it."""
        first, second = wide
        product = max(walk.nodes, key=self.order.__getitem__)
        if product.op_type != "Mul":
            raise NotABlockError(f"{product.op_type} {product.name} joins its two halves, not Mul")
        plain = [part for part in wide if not _activation(part)]
        plain = [part for part in plain if any(self._is(part, value) for value in product.inputs)]
        if len(plain) != 1:  # both halves are activated, or neither
            return first, second
        return (second, first) if plain[0] is first else (first, second)

    def _is(self, part: Product, value: ir.Value | None) -> bool:
        found = None if value is None else self._part(value)
        return found is not None and (found.node, found.columns) == (part.node, part.columns)


def _activation(product: Product) -> str:
    """Return the activation within the call that computes `product`; empty for none."""
    function = called(product.node)
    return "" if function is None else function.activation


def has_residual(start: ir.Value) -> bool:
    """Whether `start`, or what is made of it alone such as its norm, is added to something else that is computed."""
    own, seen = [start], {start}
    joins: dict[ir.Node, bool] = {}
    for value in own:  # grows while it is walked
        for node in {use.node: None for use in value.uses() if not multiplies(use.node)}:
            others = [other for other in node.inputs if other is not None and other not in seen]
            joins[node] = any(constant(other) is None for other in others)
            fresh = [] if joins[node] else [out for out in node.outputs if out not in seen]
            own += fresh
            seen.update(fresh)
    return any(_adds(node) for node, joined in joins.items() if joined)


def _adds(node: ir.Node) -> bool:
    function = called(node)
    return bool(function.skip) if function is not None else node.op_type == "Add" and not node.domain
