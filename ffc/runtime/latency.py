"""How long a query takes: systems timed side by side, one query at a time, on one thread."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ffc.errors import UsageError
from ffc.runtime import energy
from ffc.study.report.summary import COMPILED, EAGER, FP32, PADDED, Measurement, Measurements, Run

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from ffc.train.encoding import Collator, Rows

__all__ = [
    "Answer",
    "latency",
    "measure",
    "onnx_answer",
    "sample",
    "torch_answer",
]

Name = TypeVar("Name")
Answer = Callable[[int], object]
"""A system ready to be timed: it answers the query of the number given."""


def measure(
    run: Run,
    folder: Path,
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    *,
    queries: int = 100,
    rounds: int = 3,
    dollars_per_hour: float = 0.0,
    progress: Callable[[str], None] | None = None,
) -> Measurements:
    """Time all systems of a run on a sample of its validation rows, making tokens left out.

    The teacher is served in all four ways, students without padding, what is pruned in the two of ONNX.

    Args:
        run: What was made.
        folder: The folder that its paths are relative to.
        rows: The encoded validation rows.
        tokenizer: The tokenizer of all systems.
        queries: Size of the sample.
        rounds: How many rounds count.
        dollars_per_hour: Price of the machine, all its cores; 0 leaves costs out.
        progress: Called with a line before each round.

    Raises:
        UsageError: If there is no row or no round.
    """
    from ffc.train.encoding import Collator
    from ffc.train.models.checkpoint import load_pruned

    chosen = sample(len(rows), queries)
    short, padded = Collator(tokenizer), Collator(tokenizer, pad_to=rows.max_length)
    answers: dict[tuple[str, str], Answer] = {}
    for system in run.systems:
        if system.kind != "pruned":
            model = load_pruned(folder / system.weights)
            answers[system.name, EAGER] = torch_answer(model, rows, short, chosen)
            if system.kind == "teacher":
                answers[system.name, PADDED] = torch_answer(model, rows, padded, chosen)
        for way, form in ((FP32, system.fp32), (COMPILED, system.compiled)):
            answers[system.name, way] = onnx_answer(folder / form.file, rows, short, chosen)
    found: dict[str, dict[str, Measurement]] = {}
    for (name, way), taken in latency(answers, len(chosen), rounds=rounds, progress=progress).items():
        found.setdefault(name, {})[way] = taken
    return Measurements(len(chosen), rows.max_length, dollars_per_hour, found)


def sample(rows: int, queries: int) -> tuple[int, ...]:
    """Return the numbers of `queries` rows, spread evenly over `rows`, or of all if there are no more."""
    count = min(rows, queries)
    return tuple(index * rows // count for index in range(count))


def latency(
    systems: Mapping[Name, Answer],
    queries: int,
    *,
    rounds: int = 5,
    progress: Callable[[str], None] | None = None,
) -> dict[Name, Measurement]:
    """Time systems on the same queries, interleaved round by round in an order that turns.

    A machine that slows down for a while slows all systems down; medians over rounds leave out what hits one alone.

    Args:
        systems: By name, what answers query 0, 1, ... Each is expected to keep to one thread; PyTorch is kept to it.
        queries: Number of queries in a round.
        rounds: How many rounds count, after one that does not.
        progress: Called with a line before each round.

    Returns:
        What each system took.

    Raises:
        UsageError: If there is no query or no round.
    """
    if queries < 1 or rounds < 1:
        raise UsageError(f"cannot measure {queries} queries in {rounds} rounds; ask for one of each at least")
    names, counters = list(systems), energy.counters()
    taken: dict[Name, list[_Round]] = {name: [] for name in names}
    with _one_thread():
        for turn in range(rounds + 1):
            if progress:
                progress(f"measuring, round {turn} of {rounds}" if turn else "measuring, a round to warm up")
            shift = turn % len(names) if names else 0
            for name in names[shift:] + names[:shift]:
                taken[name].append(_round(systems[name], queries, counters))
    return {name: _summary(each[1:]) for name, each in taken.items()}


def torch_answer(model: nn.Module, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return a PyTorch model as a system, in evaluation mode, on the processor, without gradients.

    Args:
        model: The model, which is moved to the processor.
        rows: The encoded rows.
        collator: Pads, to the length of the row itself or to a fixed one.
        chosen: Number of the row that each query asks about.
    """
    import torch

    from ffc.train.models.pretrained import takes

    model = model.eval().to("cpu")
    names = takes(model)
    feeds = [_feed(rows, collator, row, names) for row in chosen]

    def answer(query: int) -> object:
        with torch.inference_mode():
            return model(**feeds[query])

    return answer


def onnx_answer(path: Path, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return an ONNX file as a system, in stock onnxruntime on one thread.

    Args:
        path: The file.
        rows: The encoded rows.
        collator: Pads, to the length of the row itself or to a fixed one.
        chosen: Number of the row that each query asks about.

    Raises:
        InputError: If onnxruntime cannot load it.
    """
    from ffc.train.evaluate import session

    opened = session(path, threads=1)
    names = [each.name for each in opened.get_inputs()]
    feeds = [{name: value.numpy() for name, value in _feed(rows, collator, row, names).items()} for row in chosen]
    return lambda query: opened.run(None, feeds[query])


def _feed(rows: Rows, collator: Collator, row: int, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what a model is given for one row, by name: int64 [1, length], spans [1, spans, 2]."""
    batch = collator([rows[row]])
    return {name: batch[name] for name in names if name in batch}


@dataclass(frozen=True)
class _Round:
    seconds: float
    core_seconds: float
    joules: float | None


def _round(answer: Answer, queries: int, counters: Sequence[energy.Counter]) -> _Round:
    """Answer all queries once."""
    before, core, start = energy.read(counters), time.process_time(), time.perf_counter()
    for query in range(queries):
        answer(query)
    seconds, core_seconds = time.perf_counter() - start, time.process_time() - core
    return _Round(seconds, core_seconds, energy.joules(before, energy.read(counters)))


def _summary(rounds: Sequence[_Round]) -> Measurement:
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
