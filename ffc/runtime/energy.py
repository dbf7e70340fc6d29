"""The energy that the processor used, from the counters that Linux shows (RAPL), where they can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counter", "counters", "joules", "read"]

_MICRO = 1e-6


@dataclass(frozen=True)
class Counter:
    """The energy counter of one processor package: all of its cores and its cache, whoever uses them.

    Attributes:
        path: The file that holds microjoules.
        range: Where it starts again at 0, in microjoules.
    """

    path: Path
    range: int


def counters(folder: Path = Path("/sys/class/powercap")) -> tuple[Counter, ...]:
    """Return the counters of the packages that this process may read; none on most virtual machines."""
    found = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:  # a part of a package, which its own counter includes
            continue
        with contextlib.suppress(OSError, ValueError):
            counter = Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
            int(counter.path.read_text())
            found.append(counter)
    return tuple(found)


def read(found: Sequence[Counter]) -> Mapping[Counter, int]:
    """Return what each counter shows now, in microjoules."""
    return {counter: int(counter.path.read_text()) for counter in found}


def joules(before: Mapping[Counter, int], after: Mapping[Counter, int]) -> float | None:
    """Return the joules used between two readings, less than one turn of the counters apart; None without counters."""
    if not before:
        return None
    return _MICRO * sum((after[counter] - start) % counter.range for counter, start in before.items())
