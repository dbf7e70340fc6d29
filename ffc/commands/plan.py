"""``ffc plan``: which heads and feed-forward units to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.errors import UsageError

if TYPE_CHECKING:
    from ffc.pruning import Plan

__all__ = ["plan"]


@click.command()
@shared.model_or_folder
@click.option(
    "--heads", callback=shared.read_amount, metavar="N|R", help="Heads that each layer keeps: a count or a share."
)
@click.option(
    "--ffn",
    callback=shared.read_amount,
    metavar="N|R",
    help="Feed-forward units that each layer keeps: a count or a share.",
)
@click.option("--global", "across", is_flag=True, help="Take --heads and --ffn of all layers together.")
@click.option(
    "--macs",
    callback=shared.read_share,
    metavar="R",
    help="Keep what is worth most for this share of all layers' multiply-accumulates.",
)
@shared.length
@click.option(
    "--floor",
    callback=shared.read_amount,
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
    shared.check_file(out, [importance, *shared.but_plans(model)])
    is_folder = model.is_dir()
    made = _of_checkpoint(model, importance, by, amount) if is_folder else _of_file(model, out, importance, by, amount)
    made.save(out)
    click.echo(made.to_json() if as_json else made.summary(), nl=not as_json)


def _of_file(model: Path, out: Path, importance: Path | None, by: str | None, amount: dict[str, Any]) -> Plan:
    """Make the plan of an ONNX file."""
    from ffc.graph import files
    from ffc.graph.files import publish
    from ffc.pruning import make_plan

    publish.check_apart([out], files.parts(model, [out]))  # the file of its weights, if it has one
    return make_plan(model, importance=importance, by=by, **amount)


def _of_checkpoint(folder: Path, importance: Path | None, by: str | None, amount: dict[str, Any]) -> Plan:
    """Make the plan of a checkpoint, which needs torch."""
    from ffc.commands.options.task import need_libraries
    from ffc.pruning import Amount

    wanted = Amount(**amount)
    need_libraries()
    from ffc.train.pruning.plans import make_plan

    return make_plan(folder, wanted, importance=importance, by=by)
