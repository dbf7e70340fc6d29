"""``ffc diff``: what changed between two models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffc.commands.options import shared
from ffc.errors import GateError, UsageError

if TYPE_CHECKING:
    from ffc.ci.diff.diff import Diff

__all__ = ["diff"]

_MODEL = click.Path(path_type=Path)


@click.command()
@click.argument("before", type=_MODEL, callback=shared.find_model)
@click.argument("after", type=_MODEL, callback=shared.find_model)
@click.option("--names", is_flag=True, help="Count renamed nodes as changes too.")
@click.option("--numerics", is_flag=True, help="Run both on the same seeded inputs, and compare what they give.")
@click.option(
    "-o",
    "--output",
    "outs",
    type=_MODEL,
    multiple=True,
    metavar="PATH",
    help="Write the diff as .json, .md or .html too.  [repeatable]",
)
@shared.as_json
@click.pass_context
def diff(
    context: click.Context,
    before: Path,
    after: Path,
    names: bool,
    numerics: bool,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Say what changed between BEFORE and AFTER, two models, by meaning and not by name.

    Exits with 0 where nothing changed and with 1 where anything did.
    """
    for out in outs:
        if out.suffix not in _FORMS:
            raise UsageError(f"'{out}' has the suffix {out.suffix!r}; known: {', '.join(_FORMS)}")
        shared.check_file(out, [before, after])
    from ffc.ci.diff import diff as diffs
    from ffc.ci.reports.terminal import terminal
    from ffc.graph.files import publish

    shared.hush()
    found = diffs.diff(before, after, names=names, numerics=numerics)
    for out in outs:
        publish.write_text(out, _FORMS[out.suffix](found), f"'{out}'")
    if as_json:
        click.echo(_json(found), nl=False)
    else:
        shared.print_rich(terminal(found))
    if not found.equal:
        context.exit(GateError.exit_code)


def _json(found: Diff) -> str:
    from ffc.ci.reports.data import to_json

    return to_json(found)


def _markdown(found: Diff) -> str:
    from ffc.ci.reports.markdown import to_markdown

    return to_markdown(found)


def _html(found: Diff) -> str:
    from ffc.ci.page.page import diff_page

    return diff_page(found)


_FORMS: dict[str, Callable[[Diff], str]] = {".json": _json, ".md": _markdown, ".html": _html}
