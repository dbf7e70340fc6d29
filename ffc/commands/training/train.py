"""``ffc train``: a classifier trained on the labels of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ffc.commands.options import shared
from ffc.commands.options.settings import options
from ffc.commands.options.task import read_task, task_files, task_options
from ffc.commands.options.training import Fit, check_outputs, fit, output_options, several
from ffc.settings.losses import ON_LABELS
from ffc.settings.training import Training

__all__ = ["train"]


@click.command(epilog=several("train --model SOURCE"))
@click.option(
    "--model",
    "source",
    required=True,
    metavar="SOURCE",
    help="What to start from: a folder, package:NAME of an installed package, or a name on the hub.",
)
@task_options
@options(Training)
@output_options
def train(source: str, out: Path, onnx: Path | None, as_json: bool, **given: Any) -> None:
    """Train a classifier on the labels of a task, keep its best epoch, and write it with its scores.

    FOLDER then holds the model as transformers saves it, and scores.json. A GPU is used if there is one.
    """
    check_outputs(out, onnx, [source], task_files(given), as_json=as_json)
    task = read_task(**given)
    from ffc.train.models import pretrained

    shared.hush()
    wanted = Fit(
        model=pretrained.classifier(source, task, seed=given["seed"]),
        tokenizer=pretrained.tokenizer(source),
        task=task,
        losses=ON_LABELS,
        provenance={"source": source},
    )
    fit(wanted, out, onnx, as_json, given)
