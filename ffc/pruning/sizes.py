"""The sizes of encoder layers, and the multiply-accumulates that their heads and feed-forward units cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ffc.graph.blocks.structure import Attention, Blocks, FeedForward, Layer
from ffc.pruning.importance import head_count, unit_count
from ffc.pruning.plan import LayerPlan, Macs, Plan, check_sizes
from ffc.settings.amount import LENGTH

__all__ = ["LayerSizes", "count_macs", "sizes", "total_macs"]


@dataclass(frozen=True)
class LayerSizes:
    """How many heads and units a layer has, and what one of each costs.

    Attributes:
        heads: Number of heads.
        units: Number of feed-forward units.
        head_weights: Weights of one head, each used once for every token: 4·W·E at width W and head size E.
        head_products: Multiply-accumulates of one head for every pair of tokens: E for the scores, E for the context.
        unit_weights: Weights of one unit: 2·W, or 3·W with a gate.
    """

    heads: int
    units: int
    head_weights: int
    head_products: int
    unit_weights: int

    @classmethod
    def of(cls, heads: int, units: int, *, width: int, head_size: int) -> LayerSizes:
        """Return the sizes of an ordinary layer: queries, keys and values of one size, no gate."""
        return cls(heads, units, 4 * width * head_size, 2 * head_size, 2 * width)

    def head_macs(self, length: int) -> int:
        """Return the multiply-accumulates of one head on a row of `length` tokens."""
        return length * (self.head_weights + self.head_products * length)

    def unit_macs(self, length: int) -> int:
        """Return the multiply-accumulates of one unit on a row of `length` tokens."""
        return length * self.unit_weights


def sizes(blocks: Blocks) -> tuple[LayerSizes, ...]:
    """Return the sizes of every layer of an ONNX model."""
    return tuple(_sizes(layer) for layer in blocks.layers)


def total_macs(layers: Sequence[LayerSizes], length: int) -> int:
    """Return the multiply-accumulates of whole layers on one row of `length` tokens."""
    return sum(layer.heads * layer.head_macs(length) + layer.units * layer.unit_macs(length) for layer in layers)


def count_macs(plan: Plan, layers: Sequence[LayerSizes], length: int = LENGTH) -> Macs:
    """Count what the layers of a model cost with a plan.

    Args:
        plan: What to keep.
        layers: The sizes of the layers before.
        length: Length of the row to count for, in tokens.

    Returns:
        The multiply-accumulates of all products in the layers, for one row.

    Raises:
        CannotApplyError: If the plan is for other layers or widths.
    """
    check_sizes(plan, [(layer.heads, layer.units) for layer in layers])
    kept = sum(_kept(part, layer, length) for part, layer in zip(plan.layers, layers, strict=True))
    return Macs(kept=kept, of=total_macs(layers, length), length=length)


def _kept(plan: LayerPlan, layer: LayerSizes, length: int) -> int:
    heads = layer.heads if plan.heads is None else len(plan.heads)
    units = layer.units if plan.units is None else len(plan.units)
    return heads * layer.head_macs(length) + units * layer.unit_macs(length)


def _sizes(layer: Layer) -> LayerSizes:
    weights, products = _of_head(layer.cuttable)
    return LayerSizes(head_count(layer), unit_count(layer), weights, products, _of_unit(layer.ffn))


def _of_head(attention: Attention | None) -> tuple[int, int]:
    if attention is None:
        return 0, 0
    weights = sum(inner * outer for inner, outer in (product.sizes for product in attention.roles.values()))
    products = attention.roles["q"].sizes[1] + attention.roles["v"].sizes[1]
    return weights // attention.heads, products // attention.heads


def _of_unit(ffn: FeedForward | None) -> int:
    if ffn is None:
        return 0
    gate = 0 if ffn.gate is None else ffn.gate.sizes[0]
    return ffn.ffn_in.sizes[0] + gate + ffn.ffn_out.sizes[1]
