"""What a run of a study found, as data: ``run.json``, from which table, plots and page are made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ffc.errors import InputError
from ffc.graph.files import publish
from ffc.runtime.latency import Measurement
from ffc.runtime.machine import Machine

__all__ = [
    "COMPILED", "EAGER", "FORMAT", "FP32", "NAME", "PADDED", "Form", "Measurements", "Run", "System", "TaskFacts",
    "load", "save", "to_json",
]  # fmt: skip

FORMAT = "ffc.run/2"
NAME = "run.json"
"""The file in a run's folder."""

PADDED, EAGER, FP32, COMPILED = "padded", "eager", "fp32", "compiled"
"""The ways to serve a system: PyTorch with every row padded to the longest that there may be, as programs do out of the
box; PyTorch with each row at its own length; the ONNX export; and that compiled."""


@dataclass(frozen=True)
class TaskFacts:
    """The task of a run.

    Attributes:
        name: Such as ``rte``; of rows of the user's own, the name of the study.
        metric: Its metric.
        labels: Names of its classes.
        train_rows: Number of rows trained on.
        validation_rows: Number of rows that accuracies are of.
        max_length: Tokens that longer rows are cut to.
        digest: sha256 of the rows.
    """

    name: str
    metric: str
    labels: tuple[str, ...]
    train_rows: int
    validation_rows: int
    max_length: int
    digest: str


@dataclass(frozen=True)
class Form:
    """A system as one ONNX file.

    Attributes:
        file: Its path, relative to the run's folder.
        accuracy: The main score on the validation rows, in percent.
        parts: The scores that it is made of, in percent.
        agreement: Share of validation rows on which it decides as the teacher's fp32 export does.
        parameters: Number of parameters.
        macs: Multiply-accumulates of one row of 128 tokens.
        bytes: Size of all weights.
    """

    file: str
    accuracy: float
    parts: dict[str, float]
    agreement: float
    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class System:
    """One model of a run: the teacher, a student, or a pruned student.

    Attributes:
        name: ``teacher``, the student's name, or ``student+plan``.
        kind: ``teacher``, ``student`` or ``pruned``.
        student: The student that it is or was pruned from; ``teacher`` for the teacher.
        plan: The plan, or "".
        words: What was done to make it, for people.
        weights: The folder with its PyTorch weights, relative to the run's folder.
        heads: Attention heads, by layer.
        units: Feed-forward units, by layer.
        fp32: As exported.
        compiled: As compiled; where the compile was refused, as exported.
        passes: The pipeline that it was compiled with, "" where that was refused.
        refused: Why the compile was refused, or "".
        seconds: What each step took: ``train``, ``distil``, ``plan``, ``export``, ``compile`` and so on.
        seed: Seed of its training.
    """

    name: str
    kind: str
    student: str
    plan: str
    words: str
    weights: str
    heads: tuple[int, ...]
    units: tuple[int, ...]
    fp32: Form
    compiled: Form
    passes: str
    seconds: dict[str, float]
    seed: int
    refused: str = ""

    def form(self, way: str) -> Form:
        """Return the form whose accuracy is that of the system served in some way."""
        return self.compiled if way == COMPILED else self.fp32


@dataclass(frozen=True)
class Measurements:
    """What was measured of a run.

    Attributes:
        queries: Size of the sample.
        max_length: Tokens that `PADDED` pads to.
        dollars_per_hour: Price of the machine, all its cores; 0 where it was not given.
        systems: By system and way to serve it, such as ``systems["teacher"]["padded"]``.
    """

    queries: int
    max_length: int
    dollars_per_hour: float
    systems: dict[str, dict[str, Measurement]]


@dataclass(frozen=True)
class Run:
    """A whole run.

    Attributes:
        study: Name of the study's file.
        task: The task.
        budget: Points that the chosen system may lose against the teacher's fp32 export.
        chosen: Name of the system chosen, by its compiled form.
        reason: Why that one, in words.
        systems: All, the teacher first, each student followed by its pruned ones.
        machine: The class of the machine, and the versions of the libraries that shape the result.
        versions: Versions of ffc and Python; those of libraries stand with the machine.
        seconds: What all steps took, those of former runs that were kept included.
        measurements: What `ffc.study.measure.measure` found, or None before that.
    """

    study: str
    task: TaskFacts
    budget: float
    chosen: str
    reason: str
    systems: tuple[System, ...]
    machine: Machine
    versions: dict[str, str]
    seconds: float
    measurements: Measurements | None = None
    format: str = field(default=FORMAT, kw_only=True)

    def system(self, name: str) -> System:
        """Return the system of that name."""
        return next(each for each in self.systems if each.name == name)

    def measured(self, system: System, way: str) -> Measurement | None:
        """Return what was measured of a system served in some way, or None."""
        return self.measurements.systems.get(system.name, {}).get(way) if self.measurements else None


def save(run: Run, folder: Path) -> Path:
    """Write ``run.json`` into the folder of a run and return its path."""
    publish.write(folder / NAME, to_json(run).encode())
    return folder / NAME


def to_json(run: Run) -> str:
    """Return a run in the form of its file."""
    return json.dumps(dataclasses.asdict(run), indent=1, ensure_ascii=False) + "\n"


def load(folder: Path) -> Run:
    """Read the ``run.json`` of a run's folder.

    Raises:
        InputError: If there is none, or it is not one.
    """
    path = folder / NAME
    try:
        data: Mapping[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; `ffc study run` makes one") from error
    except ValueError as error:
        raise InputError(f"{path} is not a run that `ffc study run` writes: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise InputError(f"{path}: format is '{found}', expected '{FORMAT}'; run the study again")
    try:
        return TypeAdapter(Run).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{path} is not a run that `ffc study run` writes: {where}: {first['msg']}") from error
