"""Pruning in steps: score, drop some, score what is left again, until a plan keeps as little as asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ffc.errors import UsageError
from ffc.progress import Tell
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import LayerPlan, Plan
from ffc.pruning.sizes import count_macs
from ffc.train.pruning.importance import Method, Target, score
from ffc.train.pruning.masks import factors, masked
from ffc.train.pruning.plans import layer_sizes

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["prune_in_steps"]

_DROPPED = np.float32(-1e-30)
"""The score of what was dropped: below that of anything kept, yet nothing beside it in a sum."""


def prune_in_steps(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    *,
    steps: int,
    allocate: Callable[[Importance, float], Plan],
    method: Method = "taylor",
    on: Target = "labels",
    progress: Tell | None = None,
) -> Plan:
    """Make a plan in several steps, each of which scores what the steps before left.

    Once some heads and units are gone, others matter that did not before: scoring again between steps is what lets a
    model lose much at once. No weights are changed; what is dropped is masked.

    Args:
        model: A classifier, on any device.
        rows: Rows to score on.
        collator: Makes a batch of some rows.
        steps: How often to score; 1 is a plan from one scoring.
        allocate: Makes a plan from scores and how far the way has come, which ends at 1, such as
            ``lambda scores, way: plan(after(Amount(heads=0.5), way, layers), scores, layers)``.
        method: As for `ffc.train.pruning.importance.score`.
        on: As for `ffc.train.pruning.importance.score`.
        progress: Told after each step.

    Returns:
        The plan of the last step; its heads and units have the numbers that they have in the model as given. What one
        step dropped no later step keeps, so that with a budget of MACs a head's cost of it may be left over.

    Raises:
        UsageError: If there are no steps, or what `allocate` raises.
        InputError: As `score`.
        CannotApplyError: As `score`, or if the plan is for other layers or widths.
    """
    if steps < 1:
        raise UsageError(f"steps={steps} makes no plan; give 1 or more")
    sizes = layer_sizes(model)
    plan = Plan(layers=tuple(LayerPlan(of_heads=layer.heads, of_units=layer.units) for layer in sizes))
    for step in range(1, steps + 1):
        with masked(model, *factors(model, plan)):
            scores = score(model, rows, collator, method=method, on=on)
        plan = _both(plan, allocate(_lowered(scores, plan), step / steps))
        if progress is not None:
            progress(f"{step} of {steps} scorings", step, steps)
    return plan if plan.macs is None else plan.model_copy(update={"macs": count_macs(plan, sizes, plan.macs.length)})


def _lowered(scores: Importance, plan: Plan) -> Importance:
    """Return the scores with what a plan drops below all else."""
    layers = (
        LayerImportance(_low(layer.heads, kept.heads), _low(layer.ffn, kept.units))
        for layer, kept in zip(scores.layers, plan.layers, strict=True)
    )
    return replace(scores, layers=tuple(layers))


def _low(scores: np.ndarray, kept: tuple[int, ...] | None) -> np.ndarray:
    if kept is None:
        return scores
    lowered = np.full_like(scores, _DROPPED)
    lowered[list(kept)] = scores[list(kept)]
    return lowered


def _both(before: Plan, now: Plan) -> Plan:
    """Return the plan of now less what was dropped before."""
    layers = [
        kept.model_copy(update={"heads": _common(old.heads, kept.heads), "units": _common(old.units, kept.units)})
        for old, kept in zip(before.layers, now.layers, strict=True)
    ]
    return now.model_copy(update={"layers": tuple(layers)})


def _common(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if before is None or now is None:
        return before if now is None else now
    return tuple(sorted(set(before) & set(now)))
