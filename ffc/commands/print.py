"""``ffc print``: a model as text."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared
from ffc.errors import InputError, one_line

__all__ = ["print_"]


@click.command("print")
@shared.model
@click.option("--no-weights", is_flag=True, help="Leave out what the weights hold.")
@click.option(
    "--textconv",
    is_flag=True,
    help="As a filter of `git diff`: external data are not looked for, and what is no model is said in a line.",
)
def print_(model: Path, no_weights: bool, textconv: bool) -> None:
    """Print MODEL as text."""
    from ffc.graph import files
    from ffc.graph.text import text

    try:
        click.echo(text(files.load(model, data=not textconv), weights=not no_weights), nl=False)
    except InputError as error:
        if not textconv:  # git gives up on a whole diff or log where its filter fails
            raise
        click.echo(f"# {_pointed_at(model) or one_line(str(error).removeprefix(f'cannot load {model}: '))}")


def _pointed_at(path: Path) -> str:
    """Return which file a pointer of Git LFS stands for, and nothing for any other file."""
    from ffc.graph import files

    if not files.is_pointer(path):
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return one_line(f"kept in Git LFS: {next((line for line in lines if line.startswith('oid ')), '')}")
