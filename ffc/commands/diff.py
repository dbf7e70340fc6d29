"""``ffc diff``: what changed between two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.errors import GateError
from ffc.settings import libraries

if TYPE_CHECKING:
    from ffc.ci.diff.diff import Diff

__all__ = ["diff"]

_FORMS = (".json", ".md", ".html")


@click.command()
@click.argument("before", type=shared.PATH, callback=shared.find_model)
@click.argument("after", type=shared.PATH, callback=shared.find_model)
@click.option("--names", is_flag=True, help="Count renamed nodes as changes too.")
@click.option("--numerics", is_flag=True, help="Run both on the same seeded inputs, and compare what they give.")
@shared.rows("Run both on rows of your own too")
@click.option(
    "-o", "--output", "outs", type=shared.OUTPUT, multiple=True, metavar="PATH",
    help="Write the diff as .json, .md or .html too.  [repeatable]",
)  # fmt: skip
@shared.as_json
@click.pass_context
def diff(
    context: click.Context,
    /,
    before: Path,
    after: Path,
    names: bool,
    numerics: bool,
    data: tuple[Path, ...],
    outs: tuple[Path, ...],
    as_json: bool,
    **texts: Any,
) -> None:
    """Say what changed between BEFORE and AFTER, two models, by meaning and not by name.

    Exits with 0 where nothing changed and with 1 where anything did.
    """
    from ffc.graph.files import targets

    for out in outs:
        targets.check_suffix(out, _FORMS, named=f"'{out}'")
        shared.check_file(out, [before, after, *data])
        if out.suffix == ".html":
            libraries.check(libraries.PAGES)
    targets.check_apart(outs, [])
    shared.keep_clean(outs, as_json=as_json)
    from ffc.ci.diff import diff as diffs
    from ffc.ci.reports.terminal import terminal
    from ffc.graph.files import publish

    shared.hush()
    rows = shared.rows_given(data, texts)
    found = diffs.diff(before, after, names=names, numerics=numerics, data=rows, progress=shared.say)
    for out in outs:
        publish.write_text(out, _text(found, out.suffix), f"'{out}'")
    if as_json:
        click.echo(_text(found, ".json"), nl=False)
    else:
        shared.print_rich(terminal(found))
    if not found.equal:
        context.exit(GateError.exit_code)


def _text(found: Diff, form: str) -> str:
    """Write a diff in one of the forms."""
    from ffc.ci.page.page import diff_page
    from ffc.ci.reports.data import to_json
    from ffc.ci.reports.markdown import to_markdown

    return dict(zip(_FORMS, (to_json, to_markdown, diff_page), strict=True))[form](found)
