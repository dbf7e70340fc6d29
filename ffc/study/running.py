"""A study from data to a compiled model: all steps, the choice, what was measured, and the report."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ffc.graph.files import publish
from ffc.runtime.machine import machine
from ffc.settings import libraries
from ffc.study import outputs, steps, weights
from ffc.study.choose import choose
from ffc.study.report import page, summary
from ffc.study.report.summary import Form, Measurements, Run, System, TaskFacts
from ffc.study.resources import Resources
from ffc.study.steps import Done, Job, Progress, State, Step
from ffc.study.study import Study
from ffc.study.workflow import DATA, PlannedSystem, Workflow, workflow
from ffc.version import version

__all__ = ["MODEL", "run", "states"]

MODEL = weights.ONNX
"""The file of a run's folder that holds the chosen system."""
_MEASURE = "measure"
_MEASUREMENTS = "measurements"
_TOKENIZER = "tokenizer.json"


def run(study: Study, folder: Path, progress: Progress) -> Run:
    """Do all that a study states; what former runs in the same folder have finished is kept.

    In the end `folder` holds ``run.json``; the chosen system as ``model.onnx``, its tokenizer as ``tokenizer.json``,
    the report of its compile as ``compile.html`` and ``compile.json``; and the report of the study, ``report.html``.

    Raises:
        MissingError: If a library that any step needs is not installed.
        UsageError: If the folder holds something that is no run of a study.
        FfcError: If a step fails; its title stands before the message.
    """
    libraries.check(*study.needs)
    study.check_data()
    planned = workflow(study)
    done = steps.run(_steps(study, planned), folder, progress)
    measured = TypeAdapter(Measurements).validate_python(done[_MEASURE].result[_MEASUREMENTS])
    measured = dataclasses.replace(measured, dollars_per_hour=study.keys.report.dollars_per_hour)
    found = _assembled(study, folder, planned, done, measured)
    _publish(found, folder)
    summary.save(found, folder)
    page.write(found, folder)
    return found


def states(study: Study, folder: Path) -> list[tuple[Step, State, float]]:
    """Return, for each step of a study, how it stands in `folder`, and the seconds that it took last.

    Raises:
        MissingError: If what training needs is not installed.
        InputError: If a file that the study names is not there.
    """
    libraries.check(libraries.TRAINING)
    study.check_data()
    return steps.states(_steps(study, workflow(study)), folder)


def _steps(study: Study, planned: Workflow) -> Sequence[Step]:
    """Return all steps, the measurement last."""
    keys = study.keys.report
    needs = [DATA]
    for system in planned.systems:
        needs += [system.weights, *(system.step(what) for what in ("export", "compile", "evaluate"))]
    settings = {"queries": keys.queries, "rounds": keys.rounds}
    on = dataclasses.asdict(machine())
    measure = Step(
        name=_MEASURE,
        title="measure all systems",
        version=1,
        work=lambda job: _measure(study, planned, job, settings),
        settings={**settings, "machine": on},
        needs=tuple(dict.fromkeys(needs)),
    )
    return (*planned.steps, measure)


def _measure(study: Study, planned: Workflow, job: Job, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Measure how fast the systems answer."""
    from ffc.study import measure

    folder = job.folder.parent
    resources = Resources(study)
    run = _assembled(study, folder, planned, job.done, None)
    found = measure.measure(run, folder, resources.validation, resources.tokenizer, progress=job.tell, **settings)
    return {_MEASUREMENTS: dataclasses.asdict(found)}


def _assembled(
    study: Study, folder: Path, planned: Workflow, done: Mapping[str, Done], measured: Measurements | None
) -> Run:
    """Put together what the steps have found."""
    decisions = _logits(done[planned.systems[0].step("evaluate")])["fp32"].argmax(axis=1)
    systems = tuple(_system(system, folder, done, decisions) for system in planned.systems)
    budget = study.keys.choose.accuracy
    chosen, reason = choose(systems, budget)
    return Run(
        study=study.file.path.name,
        task=_task(study, done[DATA]),
        budget=budget,
        chosen=chosen.name,
        reason=reason,
        systems=systems,
        machine=machine(),
        versions={"ffc": version(), "python": platform.python_version()},
        seconds=sum(each.seconds for each in done.values()),
        measurements=measured,
    )


def _task(study: Study, data: Done) -> TaskFacts:
    """Return the task; rows of a user's own are called by the study, since all of them are of the task ``text``."""
    facts = TypeAdapter(TaskFacts).validate_python(data.result)
    return dataclasses.replace(facts, name=study.name) if facts.name == "text" else facts


def _system(system: PlannedSystem, folder: Path, done: Mapping[str, Done], decisions: np.ndarray) -> System:
    evaluated = done[system.step("evaluate")]
    logits = _logits(evaluated)
    forms = {}
    for name, step in (("fp32", "export"), ("compiled", "compile")):
        agreement = float((logits[name].argmax(axis=1) == decisions).mean())
        file = (done[system.step(step)].folder / weights.ONNX).relative_to(folder).as_posix()
        forms[name] = Form(file=file, agreement=agreement, **evaluated.result[name])
    prefix = system.step("")
    return System(
        name=system.name,
        kind=system.kind,
        student=system.student,
        plan=system.plan,
        words=system.words,
        weights=(done[system.weights].folder / weights.MODEL).relative_to(folder).as_posix(),
        heads=tuple(evaluated.result["heads"]),
        units=tuple(evaluated.result["units"]),
        fp32=forms["fp32"],
        compiled=forms["compiled"],
        passes=done[system.step("compile")].result["pipeline"],
        refused=done[system.step("compile")].result["refused"],
        seconds={name.removeprefix(prefix): each.seconds for name, each in done.items() if name.startswith(prefix)},
        seed=system.seed,
    )


def _logits(done: Done) -> dict[str, np.ndarray]:
    with np.load(done.folder / outputs.LOGITS) as archive:
        return {name: archive[name] for name in archive.files}


def _publish(run: Run, folder: Path) -> None:
    """Put copies of the chosen model and what belongs to it at the top of the folder."""
    chosen = run.system(run.chosen)
    compiled = (folder / chosen.compiled.file).parent
    # The model, and where it is large the file of its weights.
    wanted = {file.name: file for file in compiled.iterdir() if file.name.startswith(MODEL)}
    if not chosen.refused:
        wanted |= {f"compile{Path(name).suffix}": compiled / name for name in outputs.REPORTS}
    for name, file in wanted.items():
        publish.copy(file, folder / name)
    publish.copy(folder / chosen.weights / _TOKENIZER, folder / _TOKENIZER)
    # What a former run has put there would be taken for this model's.
    for former in (*folder.glob(f"{MODEL}*"), *folder.glob("compile.*")):
        if former.name not in wanted:
            former.unlink()
