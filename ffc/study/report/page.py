"""The report of a run as one HTML page that needs nothing else, and its plots as PNG."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from ffc.graph.files import publish
from ffc.study.report import plots, table
from ffc.study.report.summary import Run
from ffc.tables.html import render
from ffc.tables.table import Table, columns

__all__ = ["PAGE", "PLOTS", "to_html", "write"]

PAGE = "report.html"
PLOTS = ("sizes.png", "throughput.png")
"""Files that `write` makes."""


def write(run: Run, folder: Path) -> Path:
    """Write the page and the plots of a run into a folder, and return the path of the page.

    Raises:
        MissingError: If matplotlib is not installed.
        UsageError: If nothing was measured, or the folder cannot be written.
    """
    pictures = (plots.sizes(run), plots.throughput(run))
    contents = dict(zip(PLOTS, pictures, strict=True)) | {PAGE: to_html(run, pictures).encode()}
    with publish.asked_for(f"the report to {folder}", "choose another folder"):
        for name, content in contents.items():
            publish.write(folder / name, content)
    return folder / PAGE


def to_html(run: Run, pictures: tuple[bytes, bytes]) -> str:
    """Write a run as one HTML page, with the plots of `ffc.study.report.plots` as PNG: of sizes, and of throughput."""
    titles = ("What pruning saves and what it costs", "What a core answers in a second")
    return render(
        Path(__file__).with_name("run.html"),
        title=f"{run.study}: {run.task.name}",
        facts=dict(_facts(run)),
        methods=table.method_table(run),
        pictures=[(title, base64.b64encode(png).decode()) for title, png in zip(titles, pictures, strict=True)],
        systems=table.system_table(run),
        making=_making(run),
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what a reader needs to judge the numbers or to take them again."""
    task, chosen, teacher = run.task, run.system(run.chosen), run.systems[0]
    form = "as exported" if chosen.refused else "compiled"
    yield "chosen", f"{run.chosen}: {run.reason}"
    yield (
        "accuracy",
        (
            f"{chosen.compiled.accuracy:.2f}, {form}; {teacher.fp32.accuracy:.2f} of the teacher, fp32; "
            f"{run.budget:g} points may be lost"
        ),
    )
    yield "task", f"{task.name}, {task.metric}, labels {', '.join(task.labels)}"
    yield "rows", f"{task.train_rows:,} to train on, {task.validation_rows:,} to validate, sha256 {task.digest[:16]}"
    yield "tokens", f"at most {task.max_length} a row"
    yield "seeds", _seeds(run)
    yield "machine", str(run.machine)
    yield "versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield "time", f"{run.seconds / 60:.0f} minutes for all steps"


def _seeds(run: Run) -> str:
    """Say which seed made which system, those alike together."""
    by_seed: dict[int, list[str]] = {}
    for system in run.systems:
        by_seed.setdefault(system.seed, []).append(system.name)
    if len(by_seed) == 1:
        return f"{next(iter(by_seed))} throughout"
    return ", ".join(f"{seed} ({', '.join(names)})" for seed, names in by_seed.items())


def _making(run: Run) -> Table:
    """Lay out how each system was made and what that took."""
    cells = []
    for system in run.systems:
        steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in system.seconds.items())
        cells.append((system.name, system.words, steps))
    chosen = frozenset(index for index, system in enumerate(run.systems) if system.name == run.chosen)
    return Table(columns("system", "made by", "steps"), tuple(cells), chosen)
