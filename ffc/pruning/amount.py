"""An amount to keep, shared out among the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ffc.graph.blocks.structure import Blocks
from ffc.pruning.allocate import Count, by_macs, globally, uniform
from ffc.pruning.importance import Importance
from ffc.pruning.plan import Plan
from ffc.pruning.sizes import LayerSizes, count_macs
from ffc.settings.amount import Amount

__all__ = ["after", "plan"]


def plan(
    amount: Amount, importance: Importance, layers: Sequence[LayerSizes], blocks: Blocks | None = None
) -> Plan:
    """Return a plan without fingerprints, its MACs stated; `blocks` tell why a layer has none of what is asked for.

    Raises:
        UsageError: If an amount cannot be kept.
        CannotApplyError: If the layers have no such part, or the importance is of another shape.
    """
    if amount.macs is not None:
        return by_macs(importance, layers, macs=amount.macs, length=amount.length, floor=amount.floor)
    if amount.across:
        made = globally(importance, heads=amount.heads, ffn=amount.ffn, floor=amount.floor)
    else:
        made = uniform(importance, amount.heads, amount.ffn, blocks)
    return made.model_copy(update={"macs": count_macs(made, layers, amount.length)})


def after(amount: Amount, progress: float, layers: Sequence[LayerSizes]) -> Amount:
    """Return what to keep on the way to an amount: all at progress 0, the amount itself at 1."""
    together = sum if amount.across else min
    heads, units = together(layer.heads for layer in layers), together(layer.units for layer in layers)
    return replace(
        amount,
        heads=_towards(amount.heads, heads, progress),
        ffn=_towards(amount.ffn, units, progress),
        macs=None if amount.macs is None else _between(1.0, amount.macs, progress),
    )


def _towards(count: Count, there: int, progress: float) -> Count:
    """Return a number or share part of the way from everything that is there to `count`."""
    if count is None or isinstance(count, float):
        return count if count is None else _between(1.0, count, progress)
    return round(_between(there, count, progress))


def _between(start: float, end: float, progress: float) -> float:
    """Return what lies part of the way from `start` to `end`: these themselves, to the last bit, at 0 and 1."""
    return (1 - progress) * start + progress * end
