"""``ffc plan``: which heads and feed-forward units to keep."""

from __future__ import annotations

from pathlib import Path

import click

from ffc.commands import shared
from ffc.errors import UsageError

__all__ = ["plan"]


def _read_amount(context: click.Context, parameter: click.Parameter, text: str | None) -> int | float | None:
    """Read a count such as 6 or a share such as 0.5; the spelling tells one head from a share of 1.0."""
    if text is None:
        return None
    try:
        amount = int(text) if text.isdecimal() else float(text)
    except ValueError:
        amount = -1
    if (isinstance(amount, int) and amount >= 1) or (isinstance(amount, float) and 0 < amount <= 1):
        return amount
    raise click.BadParameter(f"{text!r} is neither a count such as 6 nor a share such as 0.5", context, parameter)


@click.command()
@shared.model
@click.option("--heads", callback=_read_amount, metavar="N|R", help="Heads that each layer keeps: a count or a share.")
@click.option(
    "--ffn", callback=_read_amount, metavar="N|R", help="Feed-forward units that each layer keeps: a count or a share."
)
@click.option("--importance", type=click.Path(path_type=Path), metavar="FILE", help="Scores: importance.safetensors.")
@click.option("--by", type=click.Choice(["norm"]), help="Score by the weights themselves.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("plan.json"),
    show_default=True,
    metavar="OUT",
)
@shared.as_json
def plan(
    model: Path,
    heads: int | float | None,
    ffn: int | float | None,
    importance: Path | None,
    by: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Choose which heads and feed-forward units of MODEL to keep, for the pass prune."""
    if (importance is None) == (by is None):
        raise UsageError("ffc plan needs one of --importance FILE and --by norm")
    if heads is None and ffn is None:
        raise UsageError("ffc plan needs --heads or --ffn, or it would keep everything")
    if not out.parent.is_dir():
        raise UsageError(f"the folder '{out.parent}' of the output does not exist; create it first")
    from ffc.graph import files, publish
    from ffc.pruning import make_plan

    publish.check_apart([out], [*files.parts(model, [out]), *([importance] if importance else [])])
    made = make_plan(model, heads=heads, ffn=ffn, importance=importance, by=by)
    made.save(out)
    click.echo(made.to_json() if as_json else made.summary(), nl=not as_json)
