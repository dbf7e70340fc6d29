"""``ffc check``: whether models still compile to what their locks say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.errors import FfcError, GateError, UsageError, one_line

if TYPE_CHECKING:
    from ffc.ci.lock.check import Check, Unfinished
    from ffc.ci.lock.policy import Policy
    from ffc.compiler.proof.rows import Data

__all__ = ["check"]


@click.command()
@click.argument("locks", type=shared.PATH, nargs=-1, metavar="[LOCK]...")
@click.option("--model", type=shared.PATH, metavar="MODEL", help="Compile this one, not the model that the lock names.")
@shared.rows()
@click.option("--accept", is_flag=True, help="Write the locks anew where the models differ from them.")
@click.option(
    "--policy", "policy_file", type=shared.PATH, metavar="FILE.toml", help="Take [tool.ffc.check] from this file."
)
@click.option(
    "--report", "reports", type=shared.OUTPUT, multiple=True, metavar="PATH",
    help="Write what was found as .json, .md, .html (one lock), .xml (JUnit) or .sarif.  [repeatable]",
)  # fmt: skip
@click.option("--annotate", is_flag=True, help="Print what fails as annotations of GitHub Actions too.")
@shared.as_json
@click.pass_context
def check(
    context: click.Context,
    /,
    locks: tuple[Path, ...],
    model: Path | None,
    data: tuple[Path, ...],
    accept: bool,
    policy_file: Path | None,
    reports: tuple[Path, ...],
    annotate: bool,
    as_json: bool,
    **texts: Any,
) -> None:
    """Compile the models of LOCKs again, and hold the results against them by meaning.

    Without LOCK, all those of the project are checked. What may differ is said in [tool.ffc.check] of pyproject.toml.
    Exits with 0 within that policy and with 1 where anything fails; a model that costs less passes, and asks for a
    new lock. Where a lock cannot be checked, the others are, and the exit code is that of the error.
    """
    from ffc.ci.lock import check as checks
    from ffc.ci.lock import policy as policies
    from ffc.ci.reports import writing
    from ffc.graph.files import targets

    shared.hush()
    policy = None if policy_file is None else policies.require(policy_file)
    paths = list(locks) or _of_project(policy)
    for option, given in (("--model", model), ("--data", data)):
        if given and len(paths) > 1:
            raise UsageError(f"{option} is for one lock, and there are {len(paths)}; name the lock")
    for report in reports:
        writing.check_path(report, len(paths))
        shared.check_file(report, [*paths, model, *data], option="--report")
    targets.check_apart(reports, [])
    shared.keep_clean(reports, as_json=as_json)
    rows = shared.rows_given(data, texts)
    done = [_checked(path, model, rows, policy, accept=accept, shown=not as_json) for path in paths]
    for report in reports:
        writing.write(done, report)
    if as_json:
        click.echo(writing.to_json(done), nl=False)
    if annotate:
        click.echo(writing.to_annotations(done), nl=False)
    unfinished = [each for each in done if isinstance(each, checks.Unfinished)]
    if unfinished:
        raise unfinished[0].error
    if not accept and any(not each.passed for each in done):
        context.exit(GateError.exit_code)


def _checked(
    path: Path, model: Path | None, data: Data | None, policy: Policy | None, *, accept: bool, shown: bool
) -> Check | Unfinished:
    """Check a lock, and print what was found; what goes wrong with one is no reason to say nothing of the others."""
    from ffc.ci.lock import check as checks
    from ffc.ci.reports import content
    from ffc.ci.reports.terminal import checked

    shared.say(f"checking {one_line(str(path))}")
    try:
        found = checks.check(path, model=model, policy=policy, data=data, progress=shared.say)
    except FfcError as error:
        failed = checks.Unfinished(path, error)
        click.echo(f"{content.place(path)}: {content.unfinished(failed)}", err=True)
        return failed
    accepted = accept and checks.accept(found)
    if shown:
        shared.print_rich(checked(found, accepted=accepted))
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
