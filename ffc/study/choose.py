"""The choice among the systems of a run: the smallest that is accurate enough, as the paper did by hand."""

from __future__ import annotations

from collections.abc import Sequence

from ffc.study.report.summary import System

__all__ = ["choose"]

_ROUNDING = 1e-9
"""Points: a system that loses exactly what it may does not fail by the rounding of a percentage."""


def choose(systems: Sequence[System], budget: float) -> tuple[System, str]:
    """Choose by the compiled forms: within the budget the least bytes, and of equal ones the least work.

    The budget is the points that the choice may lose against the fp32 export of the teacher, the first system.

    Returns:
        The system, and the reason in words. Where none is within the budget, the most accurate one.
    """
    teacher = systems[0].fp32.accuracy
    within = [each for each in systems if teacher - each.compiled.accuracy <= budget + _ROUNDING]
    if within:
        best = min(within, key=lambda each: (each.compiled.bytes, each.compiled.macs))
        what = f"the smallest of {len(within)} of {len(systems)} systems within {budget:g} points of the teacher"
    else:
        best = max(systems, key=lambda each: each.compiled.accuracy)
        what = f"no system is within {budget:g} points of the teacher, and this is the most accurate"
    lost = teacher - best.compiled.accuracy
    reason = f"{what}: {best.compiled.accuracy:.2f}, {abs(lost):.2f} {'below' if lost >= 0 else 'above'} it"
    return best, f"{reason}; its compile was refused, so it is as exported" if best.refused else reason
