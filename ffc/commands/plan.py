"""``ffc plan``: which heads and feed-forward units to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands import shared
from ffc.errors import UsageError

if TYPE_CHECKING:
    from ffc.pruning import Plan

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


def _read_share(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read a share such as 0.7; 1 is all."""
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if 0 < share <= 1:
        return share
    raise click.BadParameter(f"{text!r} is no share such as 0.7", context, parameter)


@click.command()
@shared.model_or_folder
@click.option("--heads", callback=_read_amount, metavar="N|R", help="Heads that each layer keeps: a count or a share.")
@click.option(
    "--ffn", callback=_read_amount, metavar="N|R", help="Feed-forward units that each layer keeps: a count or a share."
)
@click.option("--global", "across", is_flag=True, help="Take --heads and --ffn of all layers together.")
@click.option(
    "--macs",
    callback=_read_share,
    metavar="R",
    help="Keep what is worth most for this share of all layers' multiply-accumulates.",
)
@click.option(
    "--length",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    metavar="TOKENS",
    help="Count multiply-accumulates for rows of this length.",
)
@click.option(
    "--floor",
    callback=_read_amount,
    metavar="N|R",
    help="What every layer keeps at least with --global or --macs.  [default: 1]",
)
@click.option("--importance", type=click.Path(path_type=Path), metavar="FILE", help="Scores: importance.safetensors.")
@click.option("--by", type=click.Choice(["norm"]), help="Score by the weights themselves.")
@shared.output("plan.json")
@shared.as_json
def plan(model: Path, importance: Path | None, by: str | None, out: Path, as_json: bool, **amount: Any) -> None:
    """Choose which heads and feed-forward units of MODEL to keep, for the pass prune.

    MODEL is an ONNX file, or the folder of a checkpoint that it is going to be exported from. Say how much each layer
    keeps by --heads and --ffn, or all layers together with --global, or what they may cost by --macs.
    """
    if (importance is None) == (by is None):
        raise UsageError("ffc plan needs one of --importance FILE and --by norm")
    if amount["heads"] is None and amount["ffn"] is None and amount["macs"] is None:
        raise UsageError("ffc plan needs --heads, --ffn or --macs, or it would keep everything")
    shared.check_file(out, [importance, *(file for file in shared.parts(model) if not _is_plan(file))])
    is_folder = model.is_dir()
    made = _of_checkpoint(model, importance, by, amount) if is_folder else _of_file(model, out, importance, by, amount)
    made.save(out)
    click.echo(made.to_json() if as_json else made.summary(), nl=not as_json)


def _of_file(model: Path, out: Path, importance: Path | None, by: str | None, amount: dict[str, Any]) -> Plan:
    """Make the plan of an ONNX file."""
    from ffc.graph import files, publish
    from ffc.pruning import make_plan

    publish.check_apart([out], files.parts(model, [out]))  # the file of its weights, if it has one
    return make_plan(model, importance=importance, by=by, **amount)


def _of_checkpoint(folder: Path, importance: Path | None, by: str | None, amount: dict[str, Any]) -> Plan:
    """Make the plan of a checkpoint, which needs torch."""
    from ffc.commands.task_options import need_libraries
    from ffc.pruning import Amount

    wanted = Amount(**amount)
    need_libraries()
    from ffc.train.plans import make_plan

    return make_plan(folder, wanted, importance=importance, by=by)


def _is_plan(file: Path) -> bool:
    """Whether a file is a plan that was made before, over which another may go."""
    if file.suffix != ".json":
        return False
    from ffc.errors import InputError
    from ffc.pruning import Plan

    try:
        Plan.load(file)
    except InputError:
        return False
    return True
