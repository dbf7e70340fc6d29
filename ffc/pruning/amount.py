"""How much of a model to keep, and how that is shared out among its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ffc.errors import UsageError
from ffc.graph.blocks.structure import Blocks
from ffc.pruning.allocate import Count, Floor, by_macs, globally, uniform
from ffc.pruning.importance import Importance
from ffc.pruning.plan import Plan
from ffc.pruning.sizes import LENGTH, LayerSizes, count_macs

__all__ = ["Amount"]


@dataclass(frozen=True)
class Amount:
    """How much to keep, and how it is shared out: of each layer, over all layers, or by what it costs.

    Attributes:
        heads: Heads to keep: a number, a share in (0, 1], or None for all.
        ffn: Feed-forward units to keep, likewise.
        across: Whether `heads` and `ffn` are of all layers together; otherwise of each layer.
        macs: The share of the multiply-accumulates of all layers to keep, in place of `heads` and `ffn`.
        length: The length of the row for which these are counted, in tokens.
        floor: What every layer keeps at least where layers may differ: a number or a share; None for one.

    Raises:
        UsageError: If nothing is said, or things that contradict each other.
    """

    heads: Count = None
    ffn: Count = None
    across: bool = False
    macs: float | None = None
    length: int = LENGTH
    floor: Floor = None

    def __post_init__(self) -> None:
        """Refuse what says nothing, or two things."""
        parts = self.heads is not None or self.ffn is not None
        if not parts and self.macs is None:
            raise UsageError(
                "the plan would keep everything; say how much to keep, such as --heads 0.5 --ffn 0.5 or --macs 0.7"
            )
        if parts and self.macs is not None:
            raise UsageError("--macs says how much to keep of all together; leave --heads and --ffn out, or --macs")
        if self.across and self.macs is not None:
            raise UsageError("--macs chooses among all layers already; leave --global out")
        if self.floor is not None and not self.across and self.macs is None:
            raise UsageError("--floor is for --global and --macs; otherwise every layer keeps --heads and --ffn")

    def plan(self, importance: Importance, layers: Sequence[LayerSizes], blocks: Blocks | None = None) -> Plan:
        """Choose what to keep.

        Args:
            importance: Scores of the layers.
            layers: Their sizes.
            blocks: The blocks of the model, to say why a layer has none of what is asked for.

        Returns:
            A plan without fingerprints, its MACs stated.

        Raises:
            UsageError: If an amount cannot be kept.
            CannotApplyError: If the layers have no such part, or the importance is of another shape.
        """
        if self.macs is not None:
            return by_macs(importance, layers, macs=self.macs, length=self.length, floor=self.floor)
        if self.across:
            plan = globally(importance, heads=self.heads, ffn=self.ffn, floor=self.floor)
        else:
            plan = uniform(importance, self.heads, self.ffn, blocks)
        return plan.model_copy(update={"macs": count_macs(plan, layers, self.length)})

    def after(self, progress: float, layers: Sequence[LayerSizes]) -> Amount:
        """Return what to keep on the way to this amount: all at progress 0, the amount itself at 1.

        Args:
            progress: How far, in [0, 1].
            layers: The sizes of the layers.
        """
        together = sum if self.across else min
        heads, units = together(layer.heads for layer in layers), together(layer.units for layer in layers)
        return replace(
            self,
            heads=_towards(self.heads, heads, progress),
            ffn=_towards(self.ffn, units, progress),
            macs=None if self.macs is None else _between(1.0, self.macs, progress),
        )


def _towards(count: Count, there: int, progress: float) -> Count:
    """Return a number or share part of the way from everything that is there to `count`."""
    if count is None or isinstance(count, float):
        return count if count is None else _between(1.0, count, progress)
    return round(_between(there, count, progress))


def _between(start: float, end: float, progress: float) -> float:
    """Return what lies part of the way from `start` to `end`: these themselves, to the last bit, at 0 and 1."""
    return (1 - progress) * start + progress * end
