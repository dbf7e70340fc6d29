"""What a process takes from start to end: seconds, processor time and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one process took from start to end, imports included.

    Attributes:
        seconds: Wall time.
        processor: Seconds of processor time, user and system.
        megabytes: Largest resident memory, in 10^6 bytes.
    """

    seconds: float
    processor: float
    megabytes: float


def cost(command: Sequence[str], good: Collection[int] = (0,)) -> Cost:
    """Run a command, silently, and measure it.

    Args:
        command: Its words.
        good: The exit codes with which it may end.

    Raises:
        SystemExit: If it ends with another.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode not in good:
        raise SystemExit(f"exit code {process.returncode}: run {' '.join(command)} to see why")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        statistics.median(one.seconds for one in costs),
        statistics.median(one.processor for one in costs),
        statistics.median(one.megabytes for one in costs),
    )
