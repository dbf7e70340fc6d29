"""Delta debugging: of a list, the part without which a test no longer holds.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions on Software
Engineering 28(2), 2002: their removal of complements, in chunks that halve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["first_that_holds", "minimise"]

T = TypeVar("T")


def minimise(items: Sequence[T], holds: Callable[[list[T]], bool], *, least: int = 0) -> list[T]:
    """Return a part of `items`, in order, from which no single one can be taken without `holds` becoming false.

    Args:
        items: The whole, for which `holds` is true.
        holds: Whether what shows with the whole shows with a part.
        least: How many items there must be.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    while len(kept) > least:
        found = False
        end = len(kept)
        while end > 0 and len(kept) > least:  # from the end, since what comes late often hangs on what comes early
            start = max(0, end - size)
            rest = kept[:start] + kept[end:]
            if len(rest) >= least and holds(rest):
                kept, found = rest, True
            end = start
        if size == 1 and not found:
            break
        size = max(1, size // 2)
    return kept


def first_that_holds(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return a number in (`low`, `high`] for which `holds` is true and for the one below it is not, by bisection.

    It is true of `high` and taken to be false of `low`; neither is asked.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
