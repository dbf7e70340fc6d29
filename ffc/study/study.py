"""Studies: a teacher, students, plans and a compile, stated in one TOML file; `ffc.study.running` makes them all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffc.errors import InputError, UsageError, nearest
from ffc.recipe.compiling import Recipe, inputs, listed, of_keys
from ffc.recipe.file import File, parse, read_text
from ffc.settings import libraries
from ffc.settings.data import Data
from ffc.study.keys import PlanKeys, StudyKeys

__all__ = ["FILES", "TEACHER", "Study", "load"]

TEACHER = "teacher"
"""The name of the system that the students learn from."""

FILES = ("folder", "train", "validation")
"""Keys of ``[task]`` that name files."""

_NAME = re.compile("[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Study:
    """A study, ready to run.

    Attributes:
        file: The file, for errors that name a line.
        keys: What it says.
        compiling: How every system is compiled, apart from its model.
        data_folder: The folder that the files of the task are relative to.
    """

    file: File
    keys: StudyKeys
    compiling: Recipe
    data_folder: Path

    @property
    def name(self) -> str:
        """The stem of the file."""
        return self.file.path.stem

    @property
    def out(self) -> Path:
        """The folder of its runs, where no other is given."""
        return Path("build") / self.name

    def students_of(self, plan: str) -> tuple[str, ...]:
        """Return the systems that a plan prunes, in the order of the file."""
        return tuple(listed(self.keys.plans[plan].student)) or tuple(self.keys.students) or (TEACHER,)

    def plans_of(self, student: str) -> Iterator[tuple[str, PlanKeys]]:
        """Yield the plans that prune a system, in the order of the file."""
        for name, plan in self.keys.plans.items():
            if student in self.students_of(name):
                yield name, plan

    def source(self, model: str) -> str:
        """Return a model as `ffc.train.models.loading.locate` takes it: a folder beside the file is meant first."""
        beside = self.file.path.parent / model
        return str(beside) if beside.exists() else model

    @property
    def needs(self) -> tuple[libraries.Need, ...]:
        """What its steps need, the last included."""
        of_the_hub = (libraries.HUB,) if self.keys.task.of_the_hub else ()
        return (libraries.TRAINING, *of_the_hub, libraries.EXPORT, libraries.PLOTS, libraries.PAGES)

    def task(self) -> Data:
        """Return the rows, their files seen from the current folder."""
        keys = self.keys.task
        paths: dict[str, Any] = {name: self._data(getattr(keys, name)) for name in FILES}
        return replace(keys, **paths)

    def check_data(self) -> None:
        """Check that the files that the task and the passes name are there, and the rows that compiles are proved on.

        Raises:
            InputError: If one is not; the message names its key.
        """
        keys = self.keys.task
        for name in FILES:
            path = self._data(getattr(keys, name))
            if path and not path.exists():
                what = "folder" if name == "folder" else "file"
                raise InputError(
                    f"{self.file.place(('task', name))}: there is no {what} {path}, which 'task.{name}' "
                    "names; correct it, or say where the data lies with --data-folder"
                )
        missing = next((path for path in self.compiling.data if not path.is_file()), None)
        if missing:
            raise InputError(
                f"{self.file.place(('data',))}: there is no file {missing}, which 'data' names; correct "
                "it, or leave it out to prove on rows of the task"
            )
        for word, path in inputs(self.compiling).items():
            if not path.exists():
                raise InputError(f"{self.file.place(('passes',))}: there is no file {path} ({word}); correct it")

    def _data(self, path: str | Path | None) -> Path | None:
        return self.data_folder / path if path else None


def load(path: str | os.PathLike[str], *, data_folder: str | os.PathLike[str] | None = None) -> Study:
    """Read a study.

    Args:
        path: The file; its paths are relative to its folder.
        data_folder: What the files of the task are relative to instead.

    Raises:
        InputError: If the file is missing or not TOML, or a file of passes that it names cannot be loaded.
        UsageError: If a key is unknown or of the wrong type, a plan names a student that there is not, the pipeline is
            malformed, or the file states no study; the message names file and line.
    """
    path = Path(path)
    text = read_text(path)
    data = parse(path, text)
    if not data.keys() & {"task", "teacher"}:
        raise UsageError(
            f"{path} has neither [task] nor [teacher], so it is no study; a recipe is for `ffc compile --recipe {path}`"
        )
    file = File(path, text)
    keys = file.read(StudyKeys, data)
    study = Study(file, keys, of_keys(file, keys), Path(data_folder) if data_folder is not None else path.parent)
    _check_names(study)
    return study


def _check_names(study: Study) -> None:
    """Check the names that the file gives, and that each plan prunes what there is."""
    for table, names in (("students", study.keys.students), ("plans", study.keys.plans)):
        for name in names:
            if not _NAME.fullmatch(name):  # it becomes the name of a folder
                what = f"the name {name!r:.60} is not made of at most 64 letters, digits, '-' and '_'"
                study.file.fail((table, name), what)
    if TEACHER in study.keys.students:
        study.file.fail(("students", TEACHER), "a student named 'teacher' hides the teacher; give it another name")
    known = [*study.keys.students, TEACHER]
    for plan in study.keys.plans:
        unknown = next((each for each in study.students_of(plan) if each not in known), None)
        if unknown is not None:
            advice = nearest(unknown, known)
            study.file.fail(("plans", plan, "student"), f"plan '{plan}' names an unknown student '{unknown}'{advice}")
