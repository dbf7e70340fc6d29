"""``ffc reduce``: the smallest model and the shortest pipeline that still go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared

if TYPE_CHECKING:
    from ffc.ci.reduce import Reduction

__all__ = ["reduce"]


@click.command()
@shared.model
@click.option("--passes", metavar="TEXT", help="The pipeline that fails.  [default: fuse,int8]")
@shared.sets
@shared.plugins
@shared.target
@click.option(
    "--when", metavar="COMMAND",
    help="A command that exits with status 0 where a model still shows it, such as 'python check.py {model}'. {inputs} "
    "is an .npz file of inputs, {passes} the pipeline.  [default: the compile fails as that of MODEL does]",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60, show_default=True, metavar="SECONDS",
    help="How long one candidate may take; a compile that takes longer counts as one that hangs.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=600, show_default=True, metavar="SECONDS",
    help="When to stop with the smallest found so far.",
)  # fmt: skip
@shared.output(kind=shared.OUTPUT_FOLDER, metavar="FOLDER", help="The folder to write.  [default: <stem>.reduced]")
@shared.as_json
def reduce(model: Path, out: Path | None, as_json: bool, **given: Any) -> None:
    """Reduce MODEL to the smallest that still goes wrong, and write a folder that shows it to others.

    What goes wrong is its compile, or what --when tells. The folder holds the model, inputs, a script that shows the
    fault, the passes of your own that it needs, and a README.
    """
    from ffc.ci import reduce as reducing

    shared.hush()
    folder = out or Path(f"{model.stem}.reduced")
    found = reducing.reduce(model, out=folder, progress=shared.say, **given)
    if found.reproduced is False:
        click.echo(f"warning: {folder}/reproduce.py does not show it in a process of its own", err=True)
    click.echo(json.dumps(_as_data(found, folder), indent=2) if as_json else _in_words(found, folder))


def _in_words(found: Reduction, folder: Path) -> str:
    pipeline = f" with {found.pipeline!r}" if found.pipeline else ""
    unfinished = "" if found.finished else ", stopped by --seconds"
    return (
        f"{folder}: {found.nodes} of {found.nodes_before} nodes{pipeline}, "
        f"{found.tried} candidates in {found.seconds:.0f} s{unfinished}"
    )


def _as_data(found: Reduction, folder: Path) -> dict[str, object]:
    return {
        "format": "ffc.reduction/1",
        "folder": str(folder),
        "pipeline": found.pipeline,
        "failure": {
            "kind": found.failure.kind, "exit_code": found.failure.exit_code, "pass": found.failure.step or None,
            "message": found.failure.message,
        },
        "nodes": {"before": found.nodes_before, "after": found.nodes},
        "weights": {"before": found.weights_before, "after": found.weights},
        "tried": found.tried,
        "seconds": round(found.seconds, 3),
        "finished": found.finished,
        "reproduced": found.reproduced,
    }  # fmt: skip
