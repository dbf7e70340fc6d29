"""The tables of a report: what each method adds to speed and takes from accuracy, and several tasks side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ffc.errors import UsageError
from ffc.study.report.summary import COMPILED, EAGER, FP32, PADDED, Run, System
from ffc.tables.table import Table, columns, number

__all__ = ["Row", "TaskRow", "kept", "method_rows", "method_table", "system_table", "task_rows", "task_table"]

_QUERIES = 100_000_000
"""Queries whose cost is stated, as in the paper."""

_NOT_MEASURED = "several instances at once (not measured: part of serving)"


@dataclass(frozen=True)
class Row:
    """One row of the table of methods; None stands for what was not measured.

    Attributes:
        method: What is added.
        system: The system that it is found in; "" where there is none.
        seconds: For the sample, one query at a time.
        milliseconds: For a query.
        step: How many times faster than the method before; for several systems of one method, than that before them.
        total: How many times faster than PyTorch out of the box.
        accuracy: In percent.
        dollars: Cost of 100 million queries; None also where no price was given.
        core_seconds: Processor time for 1,000 queries.
        joules: Energy for 1,000 queries; None also where it could not be read.
    """

    method: str
    system: str = ""
    seconds: float | None = None
    milliseconds: float | None = None
    step: float | None = None
    total: float | None = None
    accuracy: float | None = None
    dollars: float | None = None
    core_seconds: float | None = None
    joules: float | None = None


@dataclass(frozen=True)
class TaskRow:
    """One row of the table of tasks: the chosen system of a task against its teacher in PyTorch out of the box.

    Attributes:
        task: Name of the task, or ``"overall"``.
        metric: What accuracy means here.
        before: Accuracy of the teacher, in percent.
        accuracy: Accuracy of the chosen system, compiled, in percent.
        speed_up: How many times faster a query is.
        core_seconds_before: Processor time of the teacher for 1,000 queries.
        core_seconds: Processor time of the chosen system for 1,000 queries.
        joules_before: Energy of the teacher for 1,000 queries, or None if it could not be read.
        joules: Energy of the chosen system for 1,000 queries, or None if it could not be read.
    """

    task: str
    metric: str
    before: float
    accuracy: float
    speed_up: float
    core_seconds_before: float
    core_seconds: float
    joules_before: float | None
    joules: float | None


def kept(run: Run, system: System) -> tuple[float, float]:
    """Return the shares of attention heads and of feed-forward units that are left, of those before pruning."""
    whole = run.system(system.student)
    return sum(system.heads) / sum(whole.heads), sum(system.units) / sum(whole.units)


def method_rows(run: Run) -> tuple[Row, ...]:
    """Return the table of methods as data, in the paper's order (Table 3 of arXiv 2010.13382).

    PyTorch out of the box, each row at its own length, the student of the chosen system in PyTorch, fused and in int8,
    several instances, and all that was pruned from that student.
    """
    teacher = run.systems[0]
    student = run.system(run.system(run.chosen).student)
    rows = [_row(run, "PyTorch out of the box", teacher, PADDED)]
    rows.append(_row(run, "+ dynamic length", teacher, EAGER, rows[-1]))
    if student != teacher:
        rows.append(_row(run, f"+ distilled to {student.name}", student, EAGER, rows[-1]))
    passes = student.passes or "refused, so as exported"
    whole = _row(run, f"+ compiled ({passes})", student, COMPILED, rows[-1])
    rows += [whole, Row(f"+ {_NOT_MEASURED}")]
    pruned = [each for each in run.systems if each.kind == "pruned" and each.student == student.name]
    for each in pruned:
        refused = ", not compiled" if each.refused else ""
        rows.append(_row(run, f"+ pruned to {_shares(run, each)}{refused}", each, COMPILED, whole))
    return tuple(rows)


def _row(run: Run, method: str, system: System, way: str, before: Row | None = None) -> Row:
    """Return the row of a system served in some way, whose step is counted from `before`."""
    form = system.form(way)
    taken = run.measured(system, way)
    if taken is None or run.measurements is None:
        return Row(method, system.name, accuracy=form.accuracy)
    first = run.measured(run.systems[0], PADDED)
    queries, price = run.measurements.queries, run.measurements.dollars_per_hour
    seconds_before = before.seconds if before else None
    # A query keeps one core busy; the other cores of the machine answer others meanwhile.
    dollars = _QUERIES * taken.seconds / queries / 3600 * price / run.machine.cores
    return Row(
        method=method,
        system=system.name,
        seconds=taken.seconds,
        milliseconds=1e3 * taken.seconds / queries,
        step=seconds_before / taken.seconds if seconds_before else None,
        total=first.seconds / taken.seconds if first else None,
        accuracy=form.accuracy,
        dollars=dollars if price else None,
        core_seconds=1e3 * taken.core_seconds / queries,
        joules=None if taken.joules is None else 1e3 * taken.joules / queries,
    )


def _shares(run: Run, system: System) -> str:
    heads, units = kept(run, system)
    return f"{heads:.0%} of heads, {units:.0%} of units ({system.plan})"


def task_rows(runs: Sequence[Run]) -> tuple[TaskRow, ...]:
    """Return the table of tasks as data: a row for each run, then ``overall`` (Table 4 of arXiv 2010.13382).

    Overall, the speed-up is the geometric mean, and accuracy, processor time and energy are the mean of the tasks.

    Raises:
        UsageError: If there is no run, or one did not measure its teacher or its chosen system.
    """
    if not runs:
        raise UsageError("a table of tasks needs the run of one at least; `ffc study run` makes one")
    found = [_task_row(run) for run in runs]
    overall = TaskRow(
        task="overall",
        metric="mean",
        before=statistics.fmean(row.before for row in found),
        accuracy=statistics.fmean(row.accuracy for row in found),
        speed_up=statistics.geometric_mean(row.speed_up for row in found),
        core_seconds_before=statistics.fmean(row.core_seconds_before for row in found),
        core_seconds=statistics.fmean(row.core_seconds for row in found),
        joules_before=_mean_of_all([row.joules_before for row in found]),
        joules=_mean_of_all([row.joules for row in found]),
    )
    return (*found, overall)


def _task_row(run: Run) -> TaskRow:
    before, chosen = run.systems[0], run.system(run.chosen)
    first = _row(run, "", before, PADDED)
    last = _row(run, "", chosen, COMPILED)
    if last.total is None or first.core_seconds is None or last.core_seconds is None:
        raise UsageError(
            f"the run of {run.task.name} by {run.study} did not measure both '{before.name}' and '{chosen.name}'; "
            "run its study to the end"
        )
    return TaskRow(
        task=run.task.name,
        metric=run.task.metric,
        before=before.fp32.accuracy,
        accuracy=chosen.compiled.accuracy,
        speed_up=last.total,
        core_seconds_before=first.core_seconds,
        core_seconds=last.core_seconds,
        joules_before=first.joules,
        joules=last.joules,
    )


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None unless all values are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def method_table(run: Run) -> Table:
    """Lay out the table of methods; what is not known is left blank."""
    found = method_rows(run)
    energy, price = any(row.joules is not None for row in found), any(row.dollars is not None for row in found)
    queries = run.measurements.queries if run.measurements else 0
    titles = [f"seconds for {queries:,}", "ms a query", "step", "total", run.task.metric]
    titles += ["core-s for 1,000"] + ["J for 1,000"] * energy + ["$ for 100 M"] * price
    cells = []
    for row in found:
        numbers = [_known(row.seconds), _known(row.milliseconds), _times(row.step), _times(row.total)]
        numbers += [_percent(row.accuracy), _known(row.core_seconds)]
        numbers += [_known(row.joules)] * energy + [_known(row.dollars)] * price
        cells.append((row.method, *numbers))
    last = max(index for index, row in enumerate(found) if row.system == run.chosen)
    notes = tuple(_method_notes(run, energy, price))
    return Table(columns("method", numbers=titles), tuple(cells), frozenset([last]), notes)


def _method_notes(run: Run, energy: bool, price: bool) -> Iterator[str]:
    if run.measurements is None:
        yield "Latency was not measured."
        return
    rounds = len(next(iter(run.measurements.systems[run.systems[0].name].values())).rounds)
    yield (
        f"One query at a time on one thread, making tokens left out; median of {rounds} interleaved rounds; out of the "
        f"box, rows are padded to {run.measurements.max_length} tokens. {run.task.metric} on "
        f"{run.task.validation_rows:,} validation rows. 'step' counts from the method before; of what was pruned, from "
        "the unpruned student, compiled."
    )
    yield "Energy is that of the whole processor package." if energy else "Energy could not be read on this machine."
    if price:
        yield (
            f"Dollars: a query keeps one core busy, of a machine with {run.machine.cores} cores for "
            f"${run.measurements.dollars_per_hour:g} an hour."
        )


def system_table(run: Run) -> Table:
    """Lay out all systems of a run, each as exported and as compiled."""
    titles = (
        "heads", "units", "M parameters", "M MACs", "MB", "fp32", "compiled", "agreement", "ms fp32", "ms compiled",
    )  # fmt: skip
    cells = []
    for each in run.systems:
        fp32, compiled = (_row(run, "", each, way).milliseconds for way in (FP32, COMPILED))
        cells.append((
            each.name, _range(each.heads), _range(each.units),
            number(each.compiled.parameters / 1e6), number(each.compiled.macs / 1e6), number(each.compiled.bytes / 1e6),
            _percent(each.fp32.accuracy), _percent(each.compiled.accuracy), f"{each.compiled.agreement:.1%}",
            _known(fp32), _known(compiled),
        ))  # fmt: skip
    chosen = [index for index, each in enumerate(run.systems) if each.name == run.chosen]
    note = (
        f"fp32 and compiled: {run.task.metric} as exported and as compiled. Sizes are those of the compiled model, "
        "MACs for a row of 128 tokens. Agreement: the share of validation rows on which the compiled model decides as "
        "the teacher's export does. Heads and units are a layer's, and as many in all layers unless there is a range."
    )
    refused = (f"Not compiled, so as exported: {each.name}: {each.refused}" for each in run.systems if each.refused)
    return Table(columns("system", numbers=titles), tuple(cells), frozenset(chosen), (note, *refused))


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{len(counts)} × {least}" if least == most else f"{len(counts)} × {least}–{most}"


def task_table(runs: Sequence[Run]) -> Table:
    """Lay out the table of tasks.

    Raises:
        UsageError: As `task_rows`.
    """
    found = task_rows(runs)
    energy = all(row.joules is not None and row.joules_before is not None for row in found)
    titles = ["PyTorch", "chosen", "change", "speed-up", "core-s for 1,000, before", "after"]
    titles += ["J for 1,000, before", "after"] * energy
    cells = []
    for row in found:
        numbers = [row.metric, _percent(row.before), _percent(row.accuracy), f"{row.accuracy - row.before:+.2f}"]
        numbers += [_times(row.speed_up), _known(row.core_seconds_before), _known(row.core_seconds)]
        numbers += [_known(row.joules_before), _known(row.joules)] * energy
        cells.append((row.task, *numbers))
    notes = (
        "PyTorch is the teacher out of the box, rows padded; chosen is what the study of the task chose, compiled. "
        "One query at a time on one thread. Overall: the geometric mean of speed-ups, the mean of the rest.",
        "Energy is that of the whole processor package." if energy else "Energy was not measured for all tasks.",
    )
    return Table(columns("task", "metric", numbers=titles), tuple(cells), frozenset([len(cells) - 1]), notes)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{number(value)}×"


def _known(value: float | None) -> str:
    return "" if value is None else number(value)
