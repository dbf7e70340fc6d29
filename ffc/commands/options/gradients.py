"""What ``ffc score`` and ``ffc search`` share: a checkpoint, and training rows drawn by a seed to take gradients on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ffc.commands.options.settings import options
from ffc.commands.options.task import read_task
from ffc.commands.options.training import learned
from ffc.progress import Tell
from ffc.settings.setting import setting
from ffc.settings.wanted import ANY, SEED

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ffc.train.encoding import Collator, Rows
    from ffc.train.tasks import Task

__all__ = ["Drawn", "choose", "draw", "gradient_options", "tenths"]


@dataclass(frozen=True)
class _Gradients:
    on: Literal["labels", "model"] = setting(
        ANY, "Whose labels the gradients are taken on: of the rows, or the model's own.", default="labels"
    )
    seed: int = setting(SEED, "Which of the rows --rows chooses.", default=0)


gradient_options = options(_Gradients)
"""Adds ``--on`` and ``--seed`` to a command."""


@dataclass(frozen=True)
class Drawn:
    """A classifier and the rows to take its gradients on.

    Attributes:
        task: The task that the rows are of.
        model: The classifier, on a GPU where there is one.
        rows: The rows, in the order of the task.
        collator: Makes a batch of some rows.
    """

    task: Task
    model: nn.Module
    rows: Rows
    collator: Collator


def draw(folder: Path, given: Mapping[str, Any]) -> Drawn:
    """Load a checkpoint, and draw training rows of its task, as `task_options` and `gradient_options` say.

    Raises:
        MissingError: If what training needs is not installed.
        UsageError: If the options do not fit a task, or the model was not trained on it.
        InputError: If a file is missing or broken.
    """
    task = read_task(**{**given, "train_rows": None})  # rows are drawn here, by the seed that the result names
    from ffc.train.encoding import Collator, encode
    from ffc.train.models import pretrained
    from ffc.train.models.loading import on_gpu

    tokenizer, model = pretrained.tokenizer(folder), learned(str(folder), task)
    number = len(task.train)
    chosen = choose(number, min(given["train_rows"] or number, number), given["seed"])
    rows = encode([task.train[index] for index in chosen], tokenizer, given["max_length"])
    return Drawn(task, on_gpu(model), rows, Collator(tokenizer))


def choose(number: int, rows: int, seed: int) -> list[int]:
    """Return the numbers of `rows` of `number` rows, ascending, the same for the same seed."""
    import numpy as np

    drawn: np.ndarray = np.random.default_rng(seed).choice(number, rows, replace=False)
    return sorted(drawn.tolist())


def tenths() -> Tell:
    """Return what says on stderr, at every tenth of the way, how many are done."""

    def tell(line: str, done: int = 0, total: int = 0, /) -> None:
        step = max(1, total // 10)
        if done <= before[0]:  # another count begins
            before[0] = 0
        if done == total or done // step > before[0] // step:
            click.echo(line, err=True)
        before[0] = done

    before = [0]
    return tell
