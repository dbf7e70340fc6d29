"""The smallest model and the shortest pipeline that still go wrong, and a folder that shows it."""

from __future__ import annotations

from ffc.ci.reduce.cases.case import Reduction
from ffc.ci.reduce.cases.failure import Failure
from ffc.ci.reduce.reduction import reduce

__all__ = ["Failure", "Reduction", "reduce"]
