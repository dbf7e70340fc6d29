"""``ffc plan``: which heads and feed-forward units to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.commands.options.settings import made, options
from ffc.errors import UsageError
from ffc.settings.amount import Amount

if TYPE_CHECKING:
    from ffc.pruning import Plan

__all__ = ["plan"]


@click.command()
@shared.model_or_folder
@options(Amount)
@click.option("--importance", type=shared.PATH, metavar="FILE", help="Scores: importance.safetensors.")
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
    wanted = made(Amount, amount)
    shared.check_file(out, [importance, *shared.but_plans(model)])
    shared.keep_clean([out], as_json=as_json)
    is_folder = model.is_dir()
    found = _of_checkpoint(model, importance, by, wanted) if is_folder else _of_file(model, out, importance, by, wanted)
    found.save(out)
    click.echo(found.to_json() if as_json else found.summary(), nl=not as_json)


def _of_file(model: Path, out: Path, importance: Path | None, by: str | None, amount: Amount) -> Plan:
    """Make the plan of an ONNX file."""
    from ffc.compiler.chain import open_model, ready_for
    from ffc.compiler.library import Library
    from ffc.graph import files
    from ffc.graph.files import targets
    from ffc.pruning import make_plan

    targets.check_apart([out], files.parts(model, [out]))  # the file of its weights, if it has one
    ready = ready_for("prune", open_model(model), Library.default())
    return make_plan(ready, amount, importance=importance, by=by)


def _of_checkpoint(folder: Path, importance: Path | None, by: str | None, amount: Amount) -> Plan:
    """Make the plan of a checkpoint, which needs torch."""
    from ffc.settings import libraries

    libraries.check(libraries.TRAINING)
    from ffc.train.pruning.plans import make_plan

    return make_plan(folder, amount, importance=importance, by=by)
