"""``ffc search``: what to keep of a checkpoint that is not trained again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ffc.commands.options import shared
from ffc.commands.options.gradients import draw, gradient_options, tenths
from ffc.commands.options.settings import options
from ffc.commands.options.task import task_files, task_options
from ffc.errors import UsageError
from ffc.settings.amount import Amount

__all__ = ["search"]


@click.command()
@shared.model_or_folder
@options(Amount, but=("heads", "ffn", "across"), required=("macs",))
@task_options
@gradient_options
@shared.output("plan.json")
@shared.as_json
def search(model: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Choose what to keep of MODEL without training it again.

    MODEL is the folder of a classifier, as ffc train writes it. Which heads and feed-forward units it can spare is
    searched on the training rows of --task, of which some hundred do, and what is kept gets scales that make up for
    what is dropped. The plan is for the pass prune, which folds the scales into the weights.
    """
    if not model.is_dir():
        raise UsageError("a search takes gradients, which an ONNX file does not give; name the folder of a checkpoint")
    shared.check_file(out, [*shared.but_plans(model), *task_files(given)])
    shared.keep_clean([out], as_json=as_json)
    shared.hush()
    started = time.monotonic()
    drawn = draw(model, given)
    from ffc.train.models import slicing
    from ffc.train.pruning import plans

    made = plans.search(
        drawn.model,
        drawn.rows,
        drawn.collator,
        macs=given["macs"],
        length=given["length"],
        floor=given["floor"],
        on=given["on"],
        first_token=not drawn.task.spans,
        progress=tenths(),
    )
    made = slicing.stamp(made, drawn.model)
    made.save(out)
    click.echo(f"{len(drawn.rows)} rows in {time.monotonic() - started:.1f} s", err=True)
    click.echo(made.to_json() if as_json else made.summary(), nl=not as_json)
