"""The options that say which rows to learn from or to score on, shared by the commands that read data."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ffc.errors import MissingError, UsageError

if TYPE_CHECKING:
    from ffc.train.tasks import Task

__all__ = ["TASK_OPTIONS", "need_libraries", "read_task", "task_files", "task_options"]

TASK_OPTIONS = (
    "task", "data", "train", "validation", "text", "label", "labels", "max_length", "rows", "validation_rows",
)  # fmt: skip
"""Names of what `task_options` adds."""

_LIBRARIES = ("torch", "transformers", "accelerate")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def task_options(command: _Command) -> _Command:
    """Add the options that `read_task` reads, and ``--max-length``, to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--task", metavar="NAME",
        help="boolq, cb, copa, multirc, record, rte or wic from --data; text for files of your own (--train, "
        "--validation); hub:NAME[/CONFIG] for a data set of the datasets hub.",
    ),
    click.option(
        "--data", type=_FILE, metavar="FOLDER", help="The folder of a SuperGLUE task: train.jsonl and val.jsonl."
    ),
    click.option("--train", type=_FILE, metavar="FILE", help="Training rows: .tsv, .csv or .jsonl."),
    click.option(
        "--validation", type=_FILE, metavar="FILE",
        help="Validation rows.  [default: a part of the training rows, the same every time]",
    ),
    click.option("--text", multiple=True, metavar="COLUMN", help="A text column; at most two.  [repeatable]"),
    click.option("--label", default="label", show_default=True, metavar="COLUMN", help="The column of labels."),
    click.option(
        "--labels", metavar="A,B,...",
        help="The labels, in the order of the logits.  [default: those of the training rows, sorted]",
    ),
    click.option("--max-length", default=128, show_default=True, type=click.IntRange(4), help="Tokens a row at most."),
    click.option("--rows", type=click.IntRange(1), metavar="N", help="Use N of the training rows.  [default: all]"),
    click.option(
        "--validation-rows", type=click.IntRange(1), metavar="N", help="Use N of the validation rows.  [default: all]"
    ),
)  # fmt: skip


def read_task(**given: Any) -> Task:
    """Read the rows that the options of `task_options` ask for.

    Args:
        **given: The options of the command by name; those of other kinds are left alone.

    Returns:
        The task with its training and validation rows.

    Raises:
        MissingError: If what training needs is not installed.
        UsageError: If no task is named, it is unknown, or the options do not fit it.
        InputError: If a file is missing or broken; the message names file and line.
    """
    if given["task"] is None:
        raise UsageError("no task is named; name one, such as --task rte, or --task text for files of your own")
    need_libraries()
    from ffc.train import tasks

    return tasks.load(
        given["task"],
        given["data"],
        train=given["train"],
        validation=given["validation"],
        text=given["text"],
        label=given["label"],
        labels=[name.strip() for name in given["labels"].split(",")] if given["labels"] else (),
        train_rows=given["rows"],
        validation_rows=given["validation_rows"],
    )


def task_files(given: Mapping[str, Any]) -> list[Path | None]:
    """Return the files and folders that the options of `task_options` name."""
    return [given["data"], given["train"], given["validation"]]


def need_libraries() -> None:
    """Refuse, before any work, where the libraries of the extra ``train`` are not installed.

    Raises:
        MissingError: If one of them is not.
    """
    lost = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if lost:
        raise MissingError(f"this needs {', '.join(lost)}; install it with pip install 'fastformers-compiler[train]'")
