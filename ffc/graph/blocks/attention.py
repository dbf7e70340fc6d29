"""Finding attention from its Softmax, its node or its call.

What a rewrite needs are queries, keys and values, with heads that can be told apart, what hides tokens, and the
context. Whatever else computes queries and keys, such as rotary positions, does not matter to it, nor to what the
products around are for. Heads can be scored and cut where nothing of the kind stands between attention and products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph.blocks.goals import Goals
from ffc.graph.blocks.masks import FLOOR, is_at_least, is_same_for_all_queries
from ffc.graph.blocks.operands import Arrangement, Found, OperandWalk, plane_of_keys, plane_of_tokens, side_by_side
from ffc.graph.blocks.products import Products, Reader
from ffc.graph.blocks.scores import NotABlockError, ScoreWalk
from ffc.graph.blocks.structure import Attention, Mask, Operand, Product
from ffc.graph.dialect.function import Function, called
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import concrete, move, moves

__all__ = ["AttentionFinder", "NotABlockError", "is_core"]

_ROLES = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class _Context:
    """Where the weighted values go.

    Attributes:
        value: [B, S, H*E], or [B, H, S, E] where `merged` is false.
        why: Why its heads do not lie side by side; empty where they do.
        tokens_first: Whether it is [S, B, H*E].
    """

    value: ir.Value
    why: str = ""
    tokens_first: bool = False

    @property
    def merged(self) -> bool:
        """Whether its heads lie side by side."""
        return not self.why


class AttentionFinder:
    """Finds attention in one graph."""

    def __init__(self, products: Products, shapes: Shapes, sizes: Mapping[str, int]) -> None:
        """Prepare the walks; `sizes` are a number for each symbol in `shapes`, small, to send positions through."""
        self.products = products
        self.shapes = shapes
        self.sizes = sizes
        self._operands = OperandWalk(products, shapes, sizes)
        self._scores = ScoreWalk(shapes, sizes)
        self._goals = Goals(products)

    def find(self, core: ir.Node) -> Attention:
        """Return the attention around `core`, a node for which `is_core` holds.

        Raises:
            NotABlockError: If the walk meets something that attention does not have there.
        """
        function = called(core)
        if function is not None:
            return self._from_call(core, function)
        if core.op_type == "Attention":
            return self._from_operator(core)
        return self._from_softmax(core)

    def _from_call(self, core: ir.Node, function: Function) -> Attention:
        arrange = side_by_side(int(function.attribute(core, "heads")))
        found = [self._operands.find((core, function.tensors.index(role)), arrange) for role in _ROLES]
        mask = function.given(core).get(function.mask)
        masks = () if mask is None else (Mask(mask),)
        return self._assemble(core, found, function.attribute(core, "scale"), masks, _Context(core.outputs[0]))

    def _from_operator(self, core: ir.Node) -> Attention:
        if any(value is not None for value in core.inputs[4:]) or len(core.outputs) > 1:
            raise NotABlockError("it keeps a key and value cache or a second output")
        plain = {"q_num_heads", "kv_num_heads", "scale"}
        odd = [a.name for a in core.attributes.values() if a.name not in plain and a.value]
        if odd:
            raise NotABlockError(f"its attribute {odd[0]} is set")
        arranged = [side_by_side(core.attributes.get_int(f"{side}_num_heads", 1)) for side in ("q", "kv", "kv")]
        found = [self._operands.find((core, index), arrange) for index, arrange in enumerate(arranged)]
        scale = core.attributes.get_float("scale", 1 / math.sqrt(found[0].shape[3]))
        masks = tuple(self._mask_of_operator(value) for value in core.inputs[3:4] if value is not None)
        context = core.outputs[0]
        beside = len(self.shapes.of(context) or ()) == 3
        going = _Context(context) if beside else self._merged(context, self._laid_out(found))
        hides = any(self._is_bool(mask.value) or mask.floor == FLOOR for mask in masks)
        return self._assemble(core, found, scale, masks, going, guarded=hides)

    def _mask_of_operator(self, value: ir.Value) -> Mask:
        """Return a mask of the operator; to a query for which it holds only what is below `FLOOR` that gives 0."""
        finite = self._is_bool(value) or is_at_least(value, FLOOR) or is_same_for_all_queries(value, self.shapes)
        return Mask(value) if finite else Mask(value, floor=FLOOR)

    def _is_bool(self, value: ir.Value) -> bool:
        return self.shapes.dtype(value) == ir.DataType.BOOL

    def _from_softmax(self, core: ir.Node) -> Attention:
        rank = len(self.shapes.of(core.outputs[0]) or ())
        axis = core.attributes.get_int("axis", -1)
        if axis not in (-1, rank - 1):
            raise NotABlockError(f"it is taken over axis {axis}, not the last")
        scores = self._scores.back(core.inputs[0])
        weighted, guarded = self._scores.forward(core.outputs[0])
        sides: list[tuple[Reader, Arrangement]] = [
            ((scores.product, 0), plane_of_tokens),
            ((scores.product, 1), plane_of_keys),
            ((weighted, 1), plane_of_tokens),
        ]
        self._check_ranks(scores.product.inputs)
        self._check_ranks(weighted.inputs)
        found = [self._operands.find(reader, arrange) for reader, arrange in sides]
        laid_out = self._laid_out(found)
        planes = concrete(self.shapes, core.outputs[0], self.sizes)
        if planes is None or (rank == 4 and planes[:2] != laid_out[:2]):
            raise NotABlockError("its scores are not [batch, heads, tokens, tokens]")
        context = self._merged(weighted.outputs[0], laid_out)
        attention = self._assemble(core, found, scores.scale, scores.masks, context, guarded)
        return replace(attention, shared=scores.shared)

    def _check_ranks(self, values: Sequence[ir.Value | None]) -> None:
        """Check that a product of activations fills in no axes, which would pair heads otherwise than laid out."""
        ranks = [0 if value is None else len(self.shapes.of(value) or ()) for value in values]
        if ranks not in ([3, 3], [4, 4]):
            raise NotABlockError(f"the operands of a product have {ranks[0]} and {ranks[-1]} axes, not 4 each")

    def _laid_out(self, found: Sequence[Found]) -> tuple[int, int, int, int]:
        """Return the shape [B, H, S, E] of the context, with numbers put in for symbols.

        Raises:
            NotABlockError: If operands do not fit each other.
        """
        (batch, heads, tokens, size), keys, values = (side.shape for side in found)
        if {keys[0], values[0]} != {batch} or keys[2] != values[2] or keys[3] != size:
            shapes = ", ".join(str(list(side.shape)) for side in found)
            raise NotABlockError(f"queries, keys and values do not fit each other: {shapes}")
        if keys[1] != values[1] or not keys[1] or heads % keys[1]:
            raise NotABlockError(f"queries have {heads} heads, keys {keys[1]}, values {values[1]}")
        return batch, heads, tokens, values[3]

    def _assemble(
        self,
        core: ir.Node,
        found: Sequence[Found],
        scale: float,
        masks: tuple[Mask, ...],
        context: _Context,
        guarded: bool = False,
    ) -> Attention:
        _, heads, _, _ = self._laid_out(found)
        if found[2].scale != 1:
            raise NotABlockError("its values are scaled")
        q, k, v = (_in_role(side.operand, role) for side, role in zip(found, _ROLES, strict=True))
        out = self.products.only_reader(context.value) if context.merged else None
        known = [side.operand.product or self._goals.serving(side.reader) for side in found]
        known.append(out or self._goals.served(context.value))
        return Attention(
            node=core,
            operands=(q, k, v),
            heads=heads,
            scale=float(scale) * found[0].scale * found[1].scale,
            masks=masks,
            context=context.value,
            merged=context.merged,
            tokens_first=context.tokens_first,
            guarded=guarded,
            roles={
                role: product.playing(role)
                for role, product in zip((*_ROLES, "attn_out"), known, strict=True)
                if product is not None
            },
            why=_obstacle(found, context, out),
        )

    def _merged(self, value: ir.Value, laid_out: tuple[int, int, int, int]) -> _Context:
        """Walk forward from the context [B, H, S, E] to where its heads lie side by side, the furthest such value."""
        start = concrete(self.shapes, value, self.sizes)
        batch, heads, tokens, size = laid_out
        if start not in (laid_out, (batch * heads, tokens, size)):
            found = "an unknown shape" if start is None else f"shape {list(start)}"
            raise NotABlockError(f"its context has {found}, not [batch, {heads}, tokens, {size}]")
        first = np.arange(math.prod(laid_out)).reshape(laid_out)
        want = first.transpose(0, 2, 1, 3).reshape(batch, tokens, -1)
        context = _Context(value, "its context does not lead to an output projection")
        positions: np.ndarray | None = first.reshape(start)
        while positions is not None:
            users = [use.node for use in value.uses() if use.node.op_type != "Shape"]
            if len(users) != 1 or not moves(users[0]) or value.is_graph_output():
                break
            value, node = users[0].outputs[0], users[0]
            positions = move(node, positions, value, self.shapes, self.sizes)
            for tokens_first in (False, True):
                if positions is not None and np.array_equal(positions, want.swapaxes(0, 1) if tokens_first else want):
                    context = _Context(value, tokens_first=tokens_first)
        if not context.merged and positions is None:
            context = _Context(context.value, f"what {node.op_type} {node.name} does is not known")
        if not context.merged and len(start) == 3:
            raise NotABlockError(context.why)
        return context


def is_core(node: ir.Node) -> bool:
    """Whether attention may be found around `node`."""
    function = called(node)
    if function is not None:
        return function.family == "attention"
    return not node.domain and node.op_type in ("Softmax", "Attention")


def _in_role(operand: Operand, role: str) -> Operand:
    return operand if operand.product is None else replace(operand, product=operand.product.playing(role))


def _obstacle(found: Sequence[Found], context: _Context, out: Product | None) -> str:
    """Say why heads could not be cut, or give the empty string."""
    why = next((side.why for side in found if side.why), "")
    if why:
        return why
    counts = [side.operand.heads for side in found]
    if len(set(counts)) > 1:
        return f"queries have {counts[0]} heads, keys {counts[1]}, values {counts[2]}"
    if context.why or out is not None:
        return context.why
    return "its context is read by something other than one output projection"
