"""``ffc study``: a study from data to a compiled model, as one TOML file states it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffc.commands.options import shared
from ffc.errors import GateError, UsageError

if TYPE_CHECKING:
    from ffc.study.steps import State, Step
    from ffc.study.study import Study

__all__ = ["study"]


def _options(command: shared.Command) -> shared.Command:
    """Add what both commands take."""
    for add in (
        shared.as_json,
        click.option(
            "--data-folder", type=shared.PATH, metavar="DIR",
            help="What the files of [task] are relative to.  [default: the folder of FILE]",
        ),
        shared.output(
            kind=shared.OUTPUT_FOLDER, help="The folder of the run.  [default: build/ and the stem of FILE]"
        ),
        click.argument("file", type=shared.PATH),
    ):  # fmt: skip
        command = add(command)
    return command


@click.group()
def study() -> None:
    """Make a compiled model from data, as one TOML file states it."""


@study.command()
@_options
def run(file: Path, out: Path | None, data_folder: Path | None, as_json: bool) -> None:
    """Do all that FILE states: teacher, students, pruning, compile, choice and report.

    What a former run in the same folder has finished is kept, as long as nothing that it was made from has changed. The
    exit code is 1 where the chosen system could not be compiled, and is there as it was exported.
    """
    from ffc.commands.options.progress import progress

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "ffc study runs in one process, which uses one GPU; on several train with `torchrun -m ffc train` and "
            "`torchrun -m ffc distill`, and name the result as the teacher's model"
        )
    wanted = _load(file, data_folder)
    from ffc.study import running
    from ffc.study.report import page, summary, table
    from ffc.tables.terminal import text

    shared.hush()
    place = out or wanted.out
    with progress() as told:
        found = running.run(wanted, place, told)
    if as_json:
        click.echo(summary.to_json(found), nl=False)
    else:
        click.echo(text(table.method_table(found)))
        click.echo(f"chosen: {found.chosen}, {found.reason}")
        click.echo(f"{place / running.MODEL}, {place / page.PAGE}")
    chosen = found.system(found.chosen)
    if chosen.refused:
        raise GateError(f"{chosen.name}, which was chosen, could not be compiled: {chosen.refused}")


@study.command()
@_options
def show(file: Path, out: Path | None, data_folder: Path | None, as_json: bool) -> None:
    """List the steps of FILE: those that are done, those to do again since something changed, and those to do."""
    wanted = _load(file, data_folder)
    from ffc.study import running

    shared.hush()
    place = out or wanted.out
    found = running.states(wanted, place)
    if as_json:
        steps = [{"step": step.name, "title": step.title, "state": state, "seconds": s} for step, state, s in found]
        click.echo(json.dumps({"folder": str(place), "steps": steps}, indent=1))
        return
    _print(found)


@study.command()
@click.argument("runs", nargs=-1, required=True, type=shared.PATH, metavar="RUN...")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def table(runs: tuple[Path, ...], markdown: bool) -> None:
    """Print the chosen systems of several runs side by side, each against its teacher, and the overall row.

    RUN is the folder of a run.
    """
    from ffc.study.report import summary
    from ffc.study.report.table import task_table
    from ffc.tables.markdown import lines
    from ffc.tables.terminal import text

    found = task_table([summary.load(folder) for folder in runs])
    click.echo("\n".join([*lines(found), ""]) if markdown else text(found), nl=False)


def _load(file: Path, data_folder: Path | None) -> Study:
    from ffc.study import study as studies

    return studies.load(file, data_folder=data_folder)


def _print(found: list[tuple[Step, State, float]]) -> None:
    from rich.padding import Padding

    from ffc.tables.table import Table, columns
    from ffc.tables.terminal import grid

    rows = tuple(
        (str(number), step.title, state, f"{seconds:.0f}" if state == "done" else "")
        for number, (step, state, seconds) in enumerate(found, 1)
    )
    table = Table(columns("", "step", "state", "seconds"), rows)
    shared.print_rich(Padding(grid(table, ruled=False), (0, 1), expand=False))
