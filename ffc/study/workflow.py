"""The workflow of a study: its systems, and the steps that make them, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ffc.compiler import syntax
from ffc.recipe.compiling import inputs, listed
from ffc.settings.losses import ON_A_TASK, Losses
from ffc.study import outputs, weights
from ffc.study.keys import PlanKeys, StudentKeys
from ffc.study.resources import Resources
from ffc.study.steps import Step, Work
from ffc.study.study import FILES, TEACHER, Study

__all__ = ["DATA", "PlannedSystem", "Workflow", "workflow"]

DATA = "data"
_VERSION = 1
_OF_MODELS = (".json", ".safetensors", ".bin", ".txt", ".model")
"""Suffixes of the files of a checkpoint."""


@dataclass(frozen=True)
class PlannedSystem:
    """A system that will be made, and the names of its steps.

    Attributes:
        name: Of the system.
        kind: ``teacher``, ``student`` or ``pruned``.
        student: The system that it is, or was pruned from.
        plan: The plan, or "".
        words: How it is made, for people.
        seed: Of its training.
        weights: The step with its final weights.
    """

    name: str
    kind: str
    student: str
    plan: str
    words: str
    seed: int
    weights: str

    def step(self, what: str) -> str:
        """Return the name of one of its steps."""
        return _step(self.name, what)


@dataclass(frozen=True)
class Workflow:
    """All that will be made.

    Attributes:
        systems: The teacher first, each student followed by what is pruned from it.
        steps: In an order in which each follows those that it needs.
    """

    systems: tuple[PlannedSystem, ...]
    steps: tuple[Step, ...]


def workflow(study: Study) -> Workflow:
    """Return the workflow of a study; nothing is done, and nothing of what it takes is loaded.

    Raises:
        InputError: If a model that the study names is not there.
        MissingError: If a package that it names is not installed.
    """
    made = _Maker(study)
    made.whole()
    return Workflow(tuple(made.systems), tuple(made.steps.values()))


class _Maker:
    """Lays out systems and steps one after the other."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.resources = Resources(study)
        self.encoding = {"max_length": study.keys.max_length}
        self.systems: list[PlannedSystem] = []
        self.steps: dict[str, Step] = {}

    def whole(self) -> None:
        task = asdict(self.study.task())
        task |= {name: listed(task[name]) for name in ("text", "labels")}  # as JSON has them, however they are written
        files = {name: path for name in FILES if (path := task.pop(name))}
        settings = {**task, "seed": self.study.keys.seed, **self.encoding}
        self._add(DATA, "data", partial(outputs.data, self.resources), settings, (), files)
        self._teacher()
        for name, student in self.study.keys.students.items():
            self._student(name, student)

    def _add(
        self,
        name: str,
        title: str,
        work: Work,
        settings: Mapping[str, Any],
        needs: tuple[str, ...],
        inputs: Mapping[str, Path] | None = None,
    ) -> str:
        """Add a step, unless it is there, and return its name."""
        self.steps.setdefault(name, Step(name, title, _VERSION, work, settings, inputs or {}, needs))
        return name

    def _teacher(self) -> None:
        keys = self.study.keys.teacher
        training = keys.training(self.study.keys.seed)
        made = self._add(
            _step(TEACHER, "train"),
            "teacher: train" if keys.epochs else "teacher: take",
            partial(weights.teacher, self.resources, keys, training),
            {"model": keys.model, "training": training, **self.encoding},
            (DATA,),
            self._sources(keys.model),
        )
        words = "fine-tuned on the labels" if keys.epochs else "as it is"
        self._system(PlannedSystem(TEACHER, "teacher", TEACHER, "", words, training["seed"], made))
        self._plans(TEACHER, made)

    def _student(self, name: str, keys: StudentKeys) -> None:
        training = keys.training(self.study.keys.seed)
        master = _step(TEACHER, "train")
        settings = {name: getattr(keys, name) for name in ("layers", "model", "activation", "anneal")}
        made = self._add(
            _step(name, "distil"),
            f"{name}: distil",
            partial(weights.student, self.resources, name, training, master),
            {**settings, "losses": _stated(keys.losses), "training": training, **self.encoding},
            (DATA, master),
            self._sources(keys.model) if keys.model else {},
        )
        self._system(PlannedSystem(name, "student", name, "", _student_words(keys), training["seed"], made))
        self._plans(name, made, keys.losses)

    def _plans(self, student: str, made: str, losses: Losses = ON_A_TASK) -> None:
        """Lay out what is pruned from a system whose weights the step `made` has."""
        for name, keys in self.study.plans_of(student):
            system = f"{student}+{name}"
            training = keys.training(self.study.keys.seed)
            pruned = self._pruned(system, student, keys, made, training["seed"])
            if keys.epochs:
                master = made if keys.teacher == "student" else _step(TEACHER, "train")
                learned = keys.losses or losses
                pruned = self._add(
                    _step(system, "distil"),
                    f"{system}: distil again",
                    partial(weights.distil, self.resources, learned, training, pruned, master),
                    {"losses": _stated(learned), "training": training, **self.encoding},
                    (DATA, pruned, master),
                )
            self._system(PlannedSystem(system, "pruned", student, name, _plan_words(keys), training["seed"], pruned))

    def _pruned(self, system: str, student: str, keys: PlanKeys, made: str, seed: int) -> str:
        """Add the steps that score, plan and prune, and return the last."""
        scored: str | None = None
        if keys.by in ("taylor", "fisher") and keys.steps == 1:  # plans that go by the same scores share them
            scored = self._add(
                _step(student, f"score-{keys.by}-{keys.on}-{keys.rows}-{seed}"),
                f"{student}: score by {keys.by} on {keys.rows} rows",
                partial(weights.score, self.resources, keys, seed, made),
                {"by": keys.by, "on": keys.on, "rows": keys.rows, "seed": seed, **self.encoding},
                (DATA, made),
            )
        planned = self._add(
            _step(system, "plan"),
            f"{system}: plan",
            partial(weights.plan, self.resources, keys, seed, made, scored),
            {**_planned_by(keys), "seed": seed, **self.encoding},
            (DATA, made, *([scored] if scored else [])),
        )
        prune = partial(weights.prune, self.resources, made, planned)
        return self._add(_step(system, "prune"), f"{system}: prune", prune, {}, (made, planned))

    def _system(self, system: PlannedSystem) -> None:
        """Add the steps that every system goes through once its weights are there."""
        self.systems.append(system)
        compiling = self.study.compiling
        exported = self._add(
            system.step("export"),
            f"{system.name}: export",
            partial(outputs.export, self.resources, system.weights, f"{system.name}: {system.words}"),
            {"words": system.words},
            (DATA, system.weights),
        )
        compiled = self._add(
            system.step("compile"),
            f"{system.name}: compile",
            partial(outputs.compile, self.resources, exported, DATA),
            {"passes": syntax.unparse(compiling.passes), "target": compiling.target},
            (DATA, exported),
            inputs(compiling),
        )
        self._add(
            system.step("evaluate"),
            f"{system.name}: evaluate",
            partial(outputs.evaluate, self.resources, exported, compiled),
            self.encoding,
            (DATA, exported, compiled),
        )

    def _sources(self, model: str) -> dict[str, Path]:
        """Return the files of a model that lies in a folder; what lies below it, such as this run, is none of them."""
        from ffc.train.models import loading

        place = Path(loading.locate(self.study.source(model)))
        files = sorted(place.iterdir()) if place.is_dir() else []
        return {f"model {file.name}": file for file in files if file.suffix in _OF_MODELS and file.is_file()}


def _step(system: str, what: str) -> str:
    return f"systems/{system}/{what}"


def _planned_by(keys: PlanKeys) -> dict[str, Any]:
    """Return what a plan depends on besides scores."""
    names = ("heads", "ffn", "macs", "by", "on", "floor", "steps", "rows")
    return {name: getattr(keys, name) for name in names} | {"allocate": keys.allocation}


def _stated(losses: Losses) -> dict[str, Any]:
    """Return losses as JSON; the pairs of layers where some are stated."""
    return {name: value for name, value in asdict(losses).items() if value is not None}


def _student_words(keys: StudentKeys) -> str:
    if keys.model is not None:
        made = f"{keys.model}, "
    else:
        kept = keys.layers if isinstance(keys.layers, int) else len(keys.layers or ())
        made = f"{kept} {'layer' if kept == 1 else 'layers'}, "
    activation = "ReLU, " if keys.activation else ""
    return f"{made}{activation}{'distilled' if keys.epochs else 'not distilled'}"


def _plan_words(keys: PlanKeys) -> str:
    amounts = {"heads": keys.heads, "units": keys.ffn, "MACs": keys.macs}
    kept = ", ".join(f"{_amount(value)} {name}" for name, value in amounts.items() if value is not None)
    again = ", distilled again" if keys.epochs else ""
    return f"{kept} by {keys.by}{again}"


def _amount(value: int | float) -> str:
    return f"{value}" if isinstance(value, int) else f"{100 * value:g} %"
