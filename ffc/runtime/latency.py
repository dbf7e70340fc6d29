"""How long an answer takes: systems timed side by side, one query at a time, on one thread."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ffc.errors import UsageError
from ffc.progress import Tell
from ffc.runtime import energy

__all__ = ["Answer", "Measurement", "latency", "sample"]

Name = TypeVar("Name")
Answer = Callable[[int], object]
"""A system ready to be timed: it answers the query of the number given."""


@dataclass(frozen=True)
class Measurement:
    """What a sample of queries cost, one at a time on one thread.

    Attributes:
        seconds: Of the whole sample, by the clock: the median of `rounds`.
        rounds: Of the whole sample, by the clock, in each round.
        core_seconds: Of the whole sample, the processor time of the process: the median over rounds.
        joules: Of the whole sample, the energy of the processor packages, other work on them included: the median
            over rounds. None where it cannot be read.
    """

    seconds: float
    rounds: tuple[float, ...]
    core_seconds: float
    joules: float | None = None


def sample(rows: int, queries: int) -> tuple[int, ...]:
    """Return the numbers of `queries` rows, spread evenly over `rows`, or of all if there are no more."""
    count = min(rows, queries)
    return tuple(index * rows // count for index in range(count))


def latency(
    systems: Mapping[Name, Answer],
    queries: int,
    *,
    rounds: int = 5,
    progress: Tell | None = None,
) -> dict[Name, Measurement]:
    """Time systems on the same queries, interleaved round by round in an order that turns.

    A machine that slows down for a while slows all systems down; medians over rounds leave out what hits one alone.

    Args:
        systems: By name, what answers query 0, 1, ... Each is expected to keep to one thread; PyTorch is kept to it.
        queries: Number of queries in a round.
        rounds: How many rounds count, after one that does not.
        progress: Told before each round.

    Returns:
        What each system took.

    Raises:
        UsageError: If there is no query or no round.
    """
    if queries < 1 or rounds < 1:
        raise UsageError(f"cannot measure {queries} queries in {rounds} rounds; ask for one of each at least")
    names, counters = list(systems), energy.counters()
    taken: dict[Name, list[Measurement]] = {name: [] for name in names}
    with _one_thread():
        for turn in range(rounds + 1):
            if progress:
                which = f"round {turn} of {rounds}" if turn else "a round to warm up"
                progress(f"measuring, {which}", turn, rounds if turn else 0)
            shift = turn % len(names) if names else 0
            for name in names[shift:] + names[:shift]:
                taken[name].append(_round(systems[name], queries, counters))
    return {name: _summary(each[1:]) for name, each in taken.items()}


def _round(answer: Answer, queries: int, counters: Sequence[energy.Counter]) -> Measurement:
    """Answer all queries once."""
    before, core, start = energy.read(counters), time.process_time(), time.perf_counter()
    for query in range(queries):
        answer(query)
    seconds, core_seconds = time.perf_counter() - start, time.process_time() - core
    return Measurement(seconds, (seconds,), core_seconds, energy.joules(before, energy.read(counters)))


def _summary(rounds: Sequence[Measurement]) -> Measurement:
    used = [each.joules for each in rounds if each.joules is not None]
    return Measurement(
        seconds=statistics.median(each.seconds for each in rounds),
        rounds=tuple(each.seconds for each in rounds),
        core_seconds=statistics.median(each.core_seconds for each in rounds),
        joules=statistics.median(used) if used else None,
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread, where it is in use, and give it back those that it had."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
