"""``ffc explain``: what a pass takes of a model, and why it leaves the rest alone."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared
from ffc.errors import CannotApplyError

__all__ = ["explain"]


@click.command()
@shared.model
@click.option(
    "--pass", "passes", default="fuse", show_default=True, metavar="TEXT",
    help="The pass, such as 'int8{skip=head}'; of a pipeline the last one.",
)  # fmt: skip
@shared.plugins
@shared.as_json
@click.pass_context
def explain(context: click.Context, model: Path, passes: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Say block by block what a pass takes of MODEL, and which condition failed for the rest.

    The pass runs, after those that it needs; nothing is proved and nothing is written.
    """
    from ffc.compiler.explain import explanation
    from ffc.compiler.explain.table import explained

    shared.hush()
    found = explanation.explain(model, passes, plugins=plugins, progress=shared.say)
    if as_json:
        click.echo(explanation.to_json(found), nl=False)
    else:
        shared.print_rich(explained(found))
    if found.refused is not None:
        context.exit(CannotApplyError.exit_code)
