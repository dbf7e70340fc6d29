"""What to keep of a model: importance of its parts, and plans made from it. Needs no torch."""

from __future__ import annotations

from ffc.pruning.allocate import by_macs, globally, random_like, uniform
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import LayerPlan, Macs, Plan, check, fingerprint, stamp
from ffc.pruning.planning import make_plan
from ffc.pruning.score import by_norm
from ffc.pruning.search import search
from ffc.pruning.sizes import LayerSizes, count_macs, sizes

__all__ = [
    "Importance", "LayerImportance", "LayerPlan", "LayerSizes", "Macs", "Plan", "by_macs", "by_norm", "check",
    "count_macs", "fingerprint", "globally", "make_plan", "random_like", "search", "sizes", "stamp", "uniform",
]  # fmt: skip
