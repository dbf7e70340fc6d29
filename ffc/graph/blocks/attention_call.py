"""Putting a call of an ``ffc`` function in the place of an attention."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.graph.blocks.masks import FLOOR, HIDDEN, is_at_least, is_of_products, is_same_for_all_queries, lows
from ffc.graph.blocks.structure import Attention, Mask, Operand
from ffc.graph.dialect import ops
from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.function import Function
from ffc.graph.dialect.trace import Op
from ffc.graph.shapes.dim import Dim

__all__ = ["AttentionCalls"]

_VANISHING = -1e9
"""Beside this scores are nothing: added to it, they all become the same."""

_SHIFT = -1000.0
"""What positions add to scores is more than this."""

_LOWEST = float(np.finfo(np.float32).min)
_SQUEEZED = 1e-4
"""What is left of numbers below `HIDDEN`: they keep their order, and their sums are finite."""

_RANGE = 1e7
"""How far below `HIDDEN` levels go: sums of a few stay above `FLOOR`."""

_RULE = "attention"

_Key = tuple[tuple[Mask, ...], bool, Dim | ir.Value, Dim | ir.Value]


@dataclass(frozen=True, eq=False)
class AttentionCalls:
    """Writes calls into one graph.

    Attributes:
        editor: The editor of the graph.
        masks: Masks made so far, each for all attentions of the same lengths that it serves.
    """

    editor: Editor
    masks: dict[_Key, ir.Value] = field(default_factory=dict)

    def put(self, core: Attention) -> None:
        """Replace all between the operands of `core` and its context by a call."""
        inputs = [self._side_by_side(_cheaper(operand, core), core) for operand in core.operands]
        attributes: dict[str, Any] = {"heads": core.heads, "scale": core.scale}
        function = self._function(core)
        if core.masks:
            inputs.append(self._mask(core, inputs[0], inputs[1]))
        if core.merged and not core.tokens_first:
            self.editor.splice(function.call, inputs, attributes, replaces=core.context, rule=_RULE)
            return
        name = core.context.name or "context"
        merged = self._at(core, f"{name}.merged").ffc.node(function.name, *inputs, **attributes)
        if core.tokens_first:
            self.editor.replace(core.context, self._at(core, f"{name}.ordered").Transpose(merged, perm=[1, 0, 2]))
            return
        apart = self._at(core, f"{name}.heads").Reshape(merged, [0, 0, core.heads, -1])
        self.editor.replace(core.context, self._at(core, f"{name}.ordered").Transpose(apart, perm=[0, 2, 1, 3]))

    def _at(self, core: Attention, hint: str) -> Op:
        """Return what records operators where the context of `core` is computed."""
        before = core.context.producer()
        assert before is not None
        return self.editor.at(before, hint)

    def _side_by_side(self, operand: Operand, core: Attention) -> ir.Value:
        """Return an operand as [B, S, heads * size], with as many heads as there are queries'."""
        value, name = self._own(operand), operand.value.name
        apart = operand.axes is not None and len(operand.axes) == 4
        if operand.axes is not None and operand.axes != (0, 1, 2, 3):
            value = self._at(core, f"{name}.tokens").Transpose(value, perm=list(operand.axes))
        if not apart and operand.heads != core.heads:
            value = self._at(core, f"{name}.heads").Reshape(value, [0, 0, operand.heads, -1])
        if operand.heads != core.heads:
            each = np.repeat(np.arange(operand.heads), core.heads // operand.heads)
            value = self._at(core, f"{name}.repeated").Gather(value, each, axis=2)
        if not apart and operand.heads == core.heads:
            return value
        return self._at(core, f"{name}.merged").Reshape(value, [0, 0, -1])

    def _own(self, operand: Operand) -> ir.Value:
        """Return the value of an operand; where its product feeds others too, that of one of its own columns alone."""
        product = operand.product
        if product is None or product.columns is None:
            return operand.value
        weight, bias, node = np.ascontiguousarray(product.matrix()), product.vector(), product.out.producer()
        assert node is not None
        bias = np.zeros(weight.shape[1], weight.dtype) if bias is None else bias
        return self.editor.at(node, f"{product.name}.{product.role}").ffc.Linear(product.x, weight, bias)

    def _mask(self, core: Attention, q: ir.Value, k: ir.Value) -> ir.Value:
        """Return the mask of a call, one for all attentions that have the same masks and as many tokens."""
        key = (core.masks, core.guarded, self._tokens(core.operands[0]), self._tokens(core.operands[1]))
        if key not in self.masks:
            self.masks[key] = self._spelled_out(core, q, k)
        return self.masks[key]

    def _tokens(self, operand: Operand) -> Dim | ir.Value:
        """Return the number of tokens of an operand; the operand itself where that is not known."""
        shape = self.editor.shapes.of(operand.value)
        return operand.value if shape is None else shape[1 if operand.axes is None else operand.axes[1]]

    def _function(self, core: Attention) -> Function:
        if not core.masks:
            return ops.Attention
        return ops.AttentionOrZero if self._gives_zero(core) else ops.AttentionMasked

    def _gives_zero(self, core: Attention) -> bool:
        """Whether a query may see nothing, among others that see something, and then gets 0."""
        return core.guarded and any(self._hides_from_some(mask) for mask in core.masks)

    def _hides_from_some(self, mask: Mask) -> bool:
        """Whether a mask may hide keys from some queries alone."""
        finite = (mask.factor == 1 and is_at_least(mask.value, HIDDEN)) or self._only_shifts(mask)
        return not finite and not is_same_for_all_queries(mask.value, self.editor.shapes)

    def _spelled_out(self, core: Attention, q: ir.Value, k: ir.Value) -> ir.Value:
        """Return what the masks add to scores, spelled out over queries and keys.

        Where nothing gives 0 it is finite, and a token that two masks hide stays below one that only one of them does.
        """
        name, others = core.masks[0].value.name or "mask", core.masks[1:]
        op, lasting, levels = self._at(core, f"{name}.sum"), self._gives_zero(core), self._levels(core)
        total: ir.Value | None = None
        for mask in core.masks:
            value = self._laid_out(mask, core)
            if self._is_bool(mask):
                low = max(mask.low, _LOWEST) if levels is None and math.isfinite(mask.low) else mask.low
                choice = [np.float32(low if levels is None else levels[low]), 0.0 if total is None else total]
                total = op.Where(value, *(choice if mask.inverted else choice[::-1]))
                continue
            if levels is not None and not lasting and (core.guarded or others) and not self._only_shifts(mask):
                least = min((levels[low] for low in self._lows(mask) or ()), default=HIDDEN)
                value = self._at(core, f"{name}.finite").Max(value, least)
            total = value if total is None else op.Add(total, value)
        assert total is not None
        if levels is None:
            op = self._at(core, f"{name}.order")
            total = op.Max(total, op.Add(op.Mul(total, np.float32(_SQUEEZED)), HIDDEN))
            total = total if lasting else op.Max(total, FLOOR)
        shape = self.editor.shapes.of(core.masks[0].value)
        wanted = [self._tokens(operand) for operand in core.operands[:2]]
        if not others and shape is not None and len(shape) == 4 and list(shape[2:]) == wanted:
            return total
        # Broadcast to [its batch, its heads, S, S].
        # Read off the inputs of products, whose outputs then have no other readers.
        sources = [
            (side, 1) if operand.product is None else (operand.product.x, operand.axes[1] if operand.axes else 1)
            for operand, side in zip(core.operands[:2], (q, k), strict=True)
        ]
        lengths = {
            (value, axis): self._at(core, f"{name}.tokens").Shape(value, start=axis, end=axis + 1)
            for value, axis in dict.fromkeys(sources)
        }
        target = self._at(core, f"{name}.target").Concat([1, 1], *(lengths[source] for source in sources), axis=0)
        return self._at(core, f"{name}.expanded").Expand(total, target)

    def obstacle(self, core: Attention) -> str:
        """Say why no mask of a call does what those of `core` do, or give the empty string.

        To a query that sees nothing it matters which numbers hide, and what they are added to or put in place of.
        """
        high = [place for place, mask in enumerate(core.masks) if self._is_bool(mask) and mask.low > _VANISHING]
        floats = [place for place, mask in enumerate(core.masks) if not self._is_bool(mask)]
        mixed = any(place > min(high) or not self._only_shifts(core.masks[place]) for place in floats if high)
        if not mixed or not self._sees_nothing(core):
            return ""
        low = core.masks[high[0]].low
        return f"a mask puts {low:g} in place of its scores, another is added, and a query may see nothing"

    def _levels(self, core: Attention) -> dict[float, float] | None:
        """Return what added to scores does what each low number of the masks does, in their order.

        None where not all of them are known: their sum is then brought to where nothing gets lost.
        """
        lasting, blind = self._gives_zero(core), self._sees_nothing(core)
        filled = {mask.low for mask in core.masks if self._is_bool(mask)}
        floats = [mask for mask in core.masks if not self._is_bool(mask) and not self._only_shifts(mask)]
        added = [self._lows(mask) for mask in floats]
        plain = {low: _added(low, lasting) for low in filled.union(*(found or () for found in added))}
        if not blind:
            return plain
        if not added:
            return plain if len(filled) <= 1 else _apart(filled, lasting)
        deep = {low for low in plain if low < HIDDEN}
        holding = sum(low < HIDDEN for low in filled) + sum(bool(found) for found in added)
        summed = lasting and holding > 1 and deep != {-math.inf}  # which may come to minus infinity, and then count
        if summed or added.count(None) + bool(deep) > 1 or any(len(found or ()) > 1 for found in added):
            return None
        return plain | _apart(deep, lasting)

    def _lows(self, mask: Mask) -> frozenset[float] | None:
        """Return the numbers below `HIDDEN` that a float adds; None where they are not known."""
        if mask.floor > -math.inf:
            return frozenset([-math.inf])
        return lows(mask.value) if mask.factor == 1 else None

    def _only_shifts(self, mask: Mask) -> bool:
        """Whether a float moves scores, as positions do, and hides nothing."""
        if self._is_bool(mask) or mask.factor <= 0:
            return False
        least = _SHIFT / mask.factor
        return is_at_least(mask.value, least) or is_of_products(mask.value, least)

    def _sees_nothing(self, core: Attention) -> bool:
        """Whether a query may see nothing where others see something."""
        hiding = [mask.value for mask in core.masks if not self._only_shifts(mask)]
        return not all(is_same_for_all_queries(value, self.editor.shapes) for value in hiding)

    def _is_bool(self, mask: Mask) -> bool:
        return self.editor.shapes.dtype(mask.value) == ir.DataType.BOOL

    def _laid_out(self, mask: Mask, core: Attention) -> ir.Value:
        """Return a mask that broadcasts to [B, heads, Q, S], a float as it is added to the scores."""
        value, op = mask.value, self._at(core, f"{mask.value.name}.float")
        if mask.floor > -math.inf and self._gives_zero(core):
            value = op.Where(op.Less(value, np.float32(mask.floor)), np.float32(-np.inf), value)
        if mask.factor != 1:
            value = op.Mul(value, np.float32(mask.factor))
        if not mask.flat:
            return value
        return op.Reshape(value, op.Concat([-1, core.heads], op.Shape(value, start=1, end=3), axis=0))


def _added(low: float, lasting: bool) -> float:
    """Return what added to scores does what `low` in their place does; minus infinity only where that is `lasting`."""
    if lasting and math.isinf(low):
        return low
    # What is no larger than _VANISHING keeps its place among what other masks add.
    return max(low, HIDDEN) if low <= _VANISHING else HIDDEN


def _apart(found: Iterable[float], lasting: bool) -> dict[float, float]:
    """Return levels in the order of low numbers, from `HIDDEN` on, as far apart as sums of a few need."""
    numbers = sorted(found, reverse=True)
    levels = {low: HIDDEN * _RANGE ** (place / len(numbers)) for place, low in enumerate(numbers)}
    return levels | ({-math.inf: -math.inf} if lasting and -math.inf in levels else {})


def _cheaper(operand: Operand, core: Attention) -> Operand:
    """Return an operand as the graph computes it, if a product of its own columns would be in addition to the whole."""
    product = operand.product
    if product is None or product.columns is None or operand.apart is None:
        return operand
    return operand if _feeds_only(product.out, core) else operand.apart


def _feeds_only(start: ir.Value, core: Attention) -> bool:
    """Whether all that comes of `start` goes into the context of `core` alone, and into nothing that a call reads."""
    kept = {mask.value for mask in core.masks} | {operand.value for operand in core.operands if not operand.product}
    pending, seen = [start], {start}
    for value in pending:  # grows while it is walked
        if value is core.context:
            continue
        if value in kept or value.is_graph_output():
            return False
        fresh = [out for use in value.uses() for out in use.node.outputs if out not in seen]
        seen.update(fresh)
        pending += dict.fromkeys(fresh)
    return True
