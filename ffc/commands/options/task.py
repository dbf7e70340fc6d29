"""The options that say which rows to learn from or to score on, shared by the commands that read data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffc.commands.options import settings
from ffc.commands.options.shared import Command
from ffc.errors import UsageError
from ffc.settings import libraries
from ffc.settings.data import Data, Encoding

if TYPE_CHECKING:
    from ffc.train.tasks import Task

__all__ = ["read_task", "task_files", "task_options"]


def task_options(command: Command) -> Command:
    """Add the options that `read_task` reads, and ``--max-length``, to a command."""
    return settings.options(Data)(settings.options(Encoding)(command))


def read_task(**given: Any) -> Task:
    """Read the rows that the options of `task_options` ask for; other options are left alone.

    Raises:
        MissingError: If what training needs is not installed.
        UsageError: If no task is named, it is unknown, or the options do not fit it.
        InputError: If a file is missing or broken; the message names file and line.
    """
    if given["name"] is None:
        raise UsageError("no task is named; name one, such as --task rte, or --task text for files of your own")
    libraries.check(libraries.TRAINING)
    from ffc.train import tasks

    return tasks.load(settings.made(Data, given))


def task_files(given: Mapping[str, Any]) -> list[Path | None]:
    """Return the files and folders that the options of `task_options` name."""
    return [given["folder"], given["train"], given["validation"]]
