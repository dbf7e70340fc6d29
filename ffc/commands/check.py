"""``ffc check``: whether models still compile to what their locks say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffc.commands.options import shared
from ffc.errors import GateError, InputError, UsageError, one_line

if TYPE_CHECKING:
    from ffc.ci.lock.check import Check
    from ffc.ci.lock.policy import Policy

__all__ = ["check"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("locks", type=_PATH, nargs=-1, metavar="[LOCK]...")
@click.option("--model", type=_PATH, metavar="MODEL", help="Compile this one, not the model that the lock names.")
@click.option("--accept", is_flag=True, help="Write the locks anew where the models differ from them.")
@click.option("--policy", "policy_file", type=_PATH, metavar="FILE.toml", help="Take [tool.ffc.check] from this file.")
@click.option(
    "--report",
    "reports",
    type=_PATH,
    multiple=True,
    metavar="PATH",
    help="Write what was found as .json, .md, .html (one lock), .xml (JUnit) or .sarif.  [repeatable]",
)
@click.option("--annotate", is_flag=True, help="Print what fails as annotations of GitHub Actions too.")
@shared.as_json
@click.pass_context
def check(
    context: click.Context,
    locks: tuple[Path, ...],
    model: Path | None,
    accept: bool,
    policy_file: Path | None,
    reports: tuple[Path, ...],
    annotate: bool,
    as_json: bool,
) -> None:
    """Compile the models of LOCKs again, and hold the results against them by meaning.

    Without LOCK, all those of the project are checked. What may differ is said in [tool.ffc.check] of pyproject.toml.
    Exits with 0 within that policy and with 1 where anything fails; a model that costs less passes, and asks for a
    new lock.
    """
    from ffc.ci.lock import check as checks
    from ffc.ci.reports import writing
    from ffc.ci.reports.terminal import checked

    shared.hush()
    for report in reports:
        writing.check_path(report)
        shared.check_file(report, [*locks, model], option="--report")
    policy = None if policy_file is None else _policy(policy_file)
    paths = list(locks) or _of_project(policy)
    if model is not None and len(paths) > 1:
        raise UsageError(f"--model is for one lock, and there are {len(paths)}; name the lock")
    done: list[Check] = []
    for path in paths:
        click.echo(f"checking {one_line(str(path))}", err=True)
        found = checks.check(path, model=model, policy=policy, progress=lambda line: click.echo(line, err=True))
        done.append(found)
        if not as_json:
            shared.print_rich(checked(found, accepted=accept and checks.accept(found)))
        elif accept:
            checks.accept(found)
    for report in reports:
        writing.write(done, report)
    if as_json:
        click.echo(writing.to_json(done), nl=False)
    if annotate:
        click.echo(writing.to_annotations(done), nl=False)
    if not accept and any(not each.passed for each in done):
        context.exit(GateError.exit_code)


def _policy(path: Path) -> Policy:
    from ffc.ci.lock import policy as policies

    found = policies.load(path)
    if found is None:
        raise InputError(f"{path} has no table [tool.ffc.check]; add one, or leave out --policy")
    return found


def _of_project(policy: Policy | None) -> list[Path]:
    """Return the locks of the project that the current folder is in."""
    from ffc.ci.lock import policy as policies

    rules = policy or policies.find()
    found = sorted({path for pattern in rules.locks for path in rules.folder.glob(pattern) if path.is_file()})
    if not found:
        patterns = ", ".join(rules.locks)
        raise UsageError(f"no lock matches {patterns} in '{rules.folder}'; write one with `ffc lock`, or name it")
    return found
