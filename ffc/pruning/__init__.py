"""What to keep of a model: importance of its parts, and plans made from it. Needs no torch."""

from __future__ import annotations

from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import LayerPlan, Plan, check, fingerprint, make_plan, stamp, uniform
from ffc.pruning.score import by_norm

__all__ = [
    "Importance",
    "LayerImportance",
    "LayerPlan",
    "Plan",
    "by_norm",
    "check",
    "fingerprint",
    "make_plan",
    "stamp",
    "uniform",
]
