"""Allocations: from importance to a plan that keeps as much of each layer, of all layers, or of their MACs as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ffc.errors import CannotApplyError, UsageError
from ffc.graph.blocks.structure import Blocks
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import LayerPlan, Plan
from ffc.pruning.sizes import LayerSizes, count_macs, total_macs
from ffc.settings.amount import LENGTH

__all__ = ["WITHIN_LAYER", "Count", "Floor", "by_macs", "globally", "random_like", "uniform"]

Count = int | float | None
"""How much to keep: a number of heads or units, a share in (0, 1], or None for all."""

Floor = int | float | None
"""What every layer keeps at least: a number, a share in (0, 1], or None for one; never less than one."""

WITHIN_LAYER = ("norm", "forward", "random")
"""Methods whose scores compare heads with heads and units with units of one layer only, up to a factor of the layer."""


def uniform(importance: Importance, heads: Count, ffn: Count, blocks: Blocks | None = None) -> Plan:
    """Keep the same number or share of each layer, those that score highest.

    Args:
        importance: Scores; of equal ones the first is kept.
        heads: Heads to keep per layer: a number, a share in (0, 1] rounded half up to at least one, or None for all.
        ffn: Feed-forward units to keep per layer, likewise.
        blocks: The blocks of the model, to say why a layer has none of what is asked for.

    Returns:
        A plan without fingerprints; `stamp` adds them.

    Raises:
        UsageError: If a number is below one or above what a layer has, or a share is outside (0, 1].
        CannotApplyError: If a layer has no such part at all, or none was found.
    """
    kept_heads, kept_units = [], []
    for index, scores in enumerate(importance.layers):
        kept_heads.append(_top(scores.heads, heads, f"layer {index}: heads", _why_no_heads(blocks, index)))
        kept_units.append(_top(scores.ffn, ffn, f"layer {index}: ffn", _why_no_units(blocks)))
    return _plan(importance, kept_heads, kept_units)


def globally(importance: Importance, *, heads: Count = None, ffn: Count = None, floor: Floor = None) -> Plan:
    """Keep what scores highest in all layers together, so that layers keep different numbers.

    Scores are first divided by the l2 norm of their layer, heads and units apart, as Michel et al. do ("Are Sixteen
    Heads Really Better than One?", arXiv 1905.10650): gradients, and the bounds that `by_norm` gives, have a scale of
    their own in every layer, which would otherwise decide alone. That scale cancels, so any method will do.

    Args:
        importance: Scores; of equal ones the first is kept.
        heads: Heads to keep in all layers together: a number, a share in (0, 1] rounded half up, or None for all.
        ffn: Feed-forward units to keep in all layers together, likewise.
        floor: What every layer keeps at least of what is cut.

    Returns:
        A plan without fingerprints.

    Raises:
        UsageError: If an amount cannot be kept, or is less than the floors of all layers together.
        CannotApplyError: If no layer has what is to be cut.
    """
    kept_heads = _across([layer.heads for layer in importance.layers], heads, floor, "heads")
    kept_units = _across([layer.ffn for layer in importance.layers], ffn, floor, "ffn")
    return _plan(importance, kept_heads, kept_units)


def by_macs(
    importance: Importance,
    layers: Sequence[LayerSizes],
    *,
    macs: float,
    length: int = LENGTH,
    floor: Floor = None,
) -> Plan:
    """Keep the heads and units of all layers that have the highest sum of scores a MAC budget can pay for.

    This is the mask search of Kwon et al. (arXiv 2204.09656, algorithm 1): for every number of heads, the best of them,
    and the best units that the rest of the budget pays for. Where heads cost the same in all layers, and units too, no
    choice has a higher sum; elsewhere those with the highest score per MAC come first.

    Args:
        importance: Scores that add up, over layers as well as heads and units: `taylor` or `fisher`.
        layers: The sizes of the layers.
        macs: The share in (0, 1] of the multiply-accumulates of all layers that the result may cost.
        length: Length of the row to count for, in tokens.
        floor: What every layer keeps at least, of heads and of units.

    Returns:
        A plan without fingerprints that states its MACs: within the budget, and closer to it than one more unit costs,
        as long as one is left out.

    Raises:
        UsageError: If the budget is no share or does not pay for the floors, or scores do not add up.
        CannotApplyError: If the importance is of another shape than the layers.
    """
    if not 0 < macs <= 1:
        raise UsageError(f"macs={macs} is not a share in (0, 1] of the multiply-accumulates of all layers")
    if length < 1:
        raise UsageError(f"length={length} is no number of tokens; give 1 or more")
    if importance.method in WITHIN_LAYER:
        raise UsageError(
            f"scores by {importance.method} compare within a layer only, and a MAC budget weighs heads against units "
            "of all layers; score by taylor or fisher"
        )
    if reason := importance.misfit([(layer.heads, layer.units) for layer in layers]):
        raise CannotApplyError(f"the importance is not of these layers: {reason}")
    heads = _Ranked([s.heads for s in importance.layers], [s.head_macs(length) for s in layers], floor, "heads")
    units = _Ranked([s.ffn for s in importance.layers], [s.unit_macs(length) for s in layers], floor, "units")
    whole = total_macs(layers, length)
    budget = math.floor(macs * whole + 1e-6)  # 0.7 is a little less than seven tenths
    if heads.macs[0] + units.macs[0] > budget:
        least = (heads.macs[0] + units.macs[0]) / whole
        raise UsageError(
            f"macs={macs:g} does not pay for what every layer keeps at least, a share of {least:.4f}; "
            "raise macs or lower the floor"
        )
    count = heads.macs[: int(np.searchsorted(heads.macs, budget - units.macs[0], side="right"))]
    fitting = np.searchsorted(units.macs, budget - count, side="right") - 1
    gains = heads.gains[: len(count)] + units.gains[fitting]
    best = int(np.lexsort((count + units.macs[fitting], gains))[-1])  # of equal gains, what uses more of the budget
    plan = _plan(importance, heads.first(best), units.first(int(fitting[best])))
    return plan.model_copy(update={"macs": count_macs(plan, layers, length)})


def random_like(importance: Importance, seed: int) -> Importance:
    """Return random scores of the same shape, from which the allocations make the plans to compare others with."""
    random = np.random.default_rng(seed)
    layers = tuple(
        LayerImportance(*(random.random(len(scores), np.float32) for scores in (layer.heads, layer.ffn)))
        for layer in importance.layers
    )
    return Importance(layers, method="random", seed=seed)


_Kept = tuple[int, ...] | None


def _plan(importance: Importance, heads: Sequence[_Kept], units: Sequence[_Kept]) -> Plan:
    rows = zip(importance.layers, heads, units, strict=True)
    return Plan(
        layers=tuple(
            LayerPlan(heads=h, units=u, of_heads=len(scores.heads), of_units=len(scores.ffn)) for scores, h, u in rows
        )
    )


class _Ranked:
    """The heads or the units of all layers, those of the floors first, then by falling score per MAC.

    Attributes:
        macs: What those of the floors cost together, with one more, with two more, ...
        gains: The sums of their scores.
    """

    def __init__(self, scores: Sequence[np.ndarray], costs: Sequence[int], floor: Floor, what: str) -> None:
        """Rank what has these scores by layer, and in each layer these costs."""
        layers, indices, flat = _flat(scores)
        cost = np.asarray(costs, np.int64)[layers]
        reserved = _reserved(scores, floor, what)
        order = np.lexsort((-flat / np.maximum(cost, 1), ~reserved))  # stable: of equal scores the first comes first
        self._layers, self._indices, self._widths = layers[order], indices[order], [len(layer) for layer in scores]
        self._floor = int(reserved.sum())
        self.macs, self.gains = (np.concatenate([[0], np.cumsum(each[order])])[self._floor :] for each in (cost, flat))

    def first(self, extra: int) -> list[_Kept]:
        """Return by layer those of the floors and so many more; None where a layer has none."""
        count = self._floor + extra
        return _by_layer(self._layers[:count], self._indices[:count], self._widths)


def _across(scores: Sequence[np.ndarray], count: Count, floor: Floor, what: Literal["heads", "ffn"]) -> list[_Kept]:
    """Return by layer the highest scores of all layers, each divided by the norm of its layer's."""
    if count is None:
        return [None] * len(scores)
    total = sum(map(len, scores))
    if not total:
        raise CannotApplyError(f"{what}={count} was asked for and no layer has any that could be found")
    wanted = _number(count, total, what, "all layers together have")
    scaled = [layer / (np.linalg.norm(layer.astype(np.float64)) or 1.0) for layer in scores]
    layers, indices, flat = _flat(scaled)
    reserved = _reserved(scores, floor, what)
    if wanted < reserved.sum():
        raise UsageError(
            f"{what}={count} keeps {wanted} of {total}, and the floors of {len(scores)} layers need "
            f"{reserved.sum()}; keep more or lower the floor"
        )
    order = np.lexsort((-flat, ~reserved))[:wanted]
    return _by_layer(layers[order], indices[order], [len(layer) for layer in scores])


def _flat(scores: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return layer, number and score of everything in all layers, float64."""
    layers = np.repeat(np.arange(len(scores)), [len(layer) for layer in scores])
    indices = np.concatenate([np.arange(len(layer)) for layer in scores])
    return layers, indices, np.concatenate([np.asarray(layer, np.float64) for layer in scores])


def _reserved(scores: Sequence[np.ndarray], floor: Floor, what: str) -> np.ndarray:
    """Return which of everything in all layers the floors keep, bool: the highest of each layer."""
    kept = []
    for layer in scores:
        number = min(len(layer), _number(1 if floor is None else floor, max(len(layer), 1), f"floor of {what}", None))
        mask = np.zeros(len(layer), bool)
        mask[np.argsort(-layer, kind="stable")[:number]] = True
        kept.append(mask)
    return np.concatenate(kept)


def _by_layer(layers: np.ndarray, indices: np.ndarray, widths: Sequence[int]) -> list[_Kept]:
    return [
        tuple(sorted(int(index) for index in indices[layers == layer])) if width else None
        for layer, width in enumerate(widths)
    ]


def _number(count: int | float, there: int, where: str, have: str | None) -> int:
    """Return how many a number or a share of those that are there are, at least one.

    Errors call it `where`, and say who `have` them where more than there are is an error; None where it is not.
    """
    if isinstance(count, float):
        if not 0 < count <= 1:
            raise UsageError(f"{where}={count} is not a share in (0, 1]; a number of parts has no decimal point")
        return max(1, int(count * there + 0.5))
    if count < 1 or (have is not None and count > there):
        limit = f", {have} {there}; give 1 to {there}" if have is not None else "; give 1 or more"
        raise UsageError(f"{where}={count} cannot be kept{limit}")
    return count


def _top(scores: np.ndarray, count: Count, where: str, why: str) -> _Kept:
    """Return the indices of the highest scores, ascending; `why` there are none."""
    if count is None:
        return None
    if not len(scores):
        raise CannotApplyError(
            f"{where}={count} was asked for and this layer has none that could be found{why}; "
            "plan it by hand, or leave this part whole in all layers"
        )
    number = _number(count, len(scores), where, "the layer has")
    best = np.argsort(-scores, kind="stable")[:number]  # stable: of equal scores the lower index wins
    return tuple(sorted(int(index) for index in best))


def _why_no_heads(blocks: Blocks | None, index: int) -> str:
    attention = None if blocks is None or index >= len(blocks.layers) else blocks.layers[index].attention
    if attention is None or not attention.why:
        return ""
    return f" ({attention.node.op_type} {attention.node.name}: {attention.why})"


def _why_no_units(blocks: Blocks | None) -> str:
    missed = () if blocks is None else blocks.unmatched
    return next((f" ({miss.where}: {miss.why})" for miss in missed if miss.kind == "feed-forward"), "")
