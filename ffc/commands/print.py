"""``ffc print``: a model as text."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands.options import shared

__all__ = ["print_"]


@click.command("print")
@shared.model
@click.option("--no-weights", is_flag=True, help="Leave out what the weights hold.")
def print_(model: Path, no_weights: bool) -> None:
    """Print MODEL as text."""
    from ffc.graph.files import load
    from ffc.graph.text import text

    click.echo(text(load(model), weights=not no_weights), nl=False)
