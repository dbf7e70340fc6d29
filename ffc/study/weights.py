"""The steps that make weights: the teacher, students, plans, and what is pruned by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ffc.errors import InputError, located
from ffc.settings.losses import ON_LABELS, Losses
from ffc.settings.training import Training
from ffc.study.keys import PlanKeys, TeacherKeys
from ffc.study.resources import Resources
from ffc.study.steps import Done, Job
from ffc.study.study import TEACHER

if TYPE_CHECKING:
    from torch import nn

    from ffc.pruning import Plan
    from ffc.pruning.sizes import LayerSizes
    from ffc.train.learning.callbacks import History

__all__ = ["IMPORTANCE", "MODEL", "ONNX", "PLAN", "distil", "model_of", "plan", "prune", "score", "student", "teacher"]

MODEL = "model"
"""The folder of a step that holds weights and tokenizer."""
ONNX = "model.onnx"
"""The file of a step that holds an ONNX model."""
IMPORTANCE = "importance.safetensors"
PLAN = "plan.json"


def model_of(step: Done) -> nn.Module:
    """Return the model that a step has saved, on the GPU if there is one."""
    from ffc.train.models.loading import load, on_gpu

    return on_gpu(load(step.folder / MODEL))


def teacher(resources: Resources, keys: TeacherKeys, training: Mapping[str, Any], job: Job) -> Mapping[str, Any]:
    """Train the teacher on labels; with 0 epochs it is taken as it is."""
    from ffc.train.models import pretrained

    source = resources.study.source(keys.model)
    model = pretrained.classifier(source, resources.task, seed=training["seed"])
    pretrained.check_length(resources.study.keys.max_length, model)
    if not training["epochs"]:
        other = pretrained.classifier(source, resources.task, seed=training["seed"] + 1)
        _check_head(resources, keys, model, other)
    _rehearse(resources, TEACHER, model)
    for name in resources.study.keys.students:
        _rehearse(resources, name, _fresh(resources, name, model, training["seed"]))
    return _trained(resources, job, model, training, ON_LABELS)


def _check_head(resources: Resources, keys: TeacherKeys, one: nn.Module, other: nn.Module) -> None:
    """Refuse a model without a head of its own: a fresh one, which knows nothing, differs from seed to seed."""
    if all(a.equal(b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)):
        return
    place, labels = resources.study.file.place(("teacher", "epochs")), ", ".join(resources.task.labels)
    raise InputError(
        f"{place}: epochs = 0 takes {keys.model} as it is, and it has no head for the labels {labels}; train it, with "
        "epochs = 3, say, or name a model that is trained"
    )


def _rehearse(resources: Resources, name: str, model: nn.Module) -> None:
    """Draw up the plans of a system before it is trained, so that what it cannot keep is not found hours later."""
    from ffc.pruning import amount
    from ffc.train.pruning import plans

    study = resources.study
    for plan, keys in study.plans_of(name):
        scores = replace(plans.by_norm(model), method="rehearsal")  # any will do
        with located(study.file.place(("plans", plan))):
            amount.plan(keys.amount, scores, plans.layer_sizes(model))


def student(
    resources: Resources, name: str, training: Mapping[str, Any], taught_by: str, job: Job
) -> Mapping[str, Any]:
    """Make the student `name` and distil it from the step `taught_by`."""
    from ffc.train.learning import activation

    keys = resources.study.keys.students[name]
    master = model_of(job.done[taught_by])
    model = _fresh(resources, name, master, training["seed"])
    _rehearse(resources, name, model)
    if keys.activation and keys.anneal is None:
        activation.relu_for_gelu(model)
    return _trained(resources, job, model, training, keys.losses, teacher=master, anneal=keys.anneal)


def _fresh(resources: Resources, name: str, master: nn.Module, seed: int) -> nn.Module:
    """Return a student that has learned nothing yet."""
    from ffc.train.distillation import students
    from ffc.train.models import pretrained

    study = resources.study
    keys = study.keys.students[name]
    if keys.layers is not None:
        with located(study.file.place(("students", name, "layers"))):
            return students.keep_layers(master, keys.layers)
    assert keys.model is not None  # StudentKeys wants one of the two
    source = study.source(keys.model)
    with located(study.file.place(("students", name, "model"))):
        resources.same_tokenizer(source)
        return pretrained.classifier(source, resources.task, seed=seed)


def score(resources: Resources, keys: PlanKeys, seed: int, scored: str, job: Job) -> Mapping[str, Any]:
    """Score heads and units of the step `scored` by gradients on training rows."""
    from ffc.train.pruning import importance

    rows = resources.sample(keys.rows, seed)
    found = importance.score(
        model_of(job.done[scored]),
        rows,
        resources.collator,
        method="fisher" if keys.by == "fisher" else "taylor",
        on=keys.on,
        data=f"{resources.task.name} train",
        seed=seed,
        progress=job.tell,
    )
    found.save(job.folder / IMPORTANCE)
    return {"samples": found.samples}


def plan(
    resources: Resources, keys: PlanKeys, seed: int, scored: str, scores: str | None, job: Job
) -> Mapping[str, Any]:
    """Plan what to keep of the step `scored` by the scores of the step `scores`, None where the plan needs none."""
    from ffc.pruning import Importance, allocate, amount
    from ffc.train.models import slicing
    from ffc.train.pruning import plans

    model = model_of(job.done[scored])
    layers = plans.layer_sizes(model)
    if keys.by == "search":
        made = _searched(resources, keys, seed, job, model)
    elif keys.steps > 1:
        made = _iterated(resources, keys, seed, job, model, layers)
    else:
        found = plans.by_norm(model) if scores is None else Importance.load(job.done[scores].folder / IMPORTANCE)
        found = allocate.random_like(found, seed) if keys.by == "random" else found
        made = amount.plan(keys.amount, found, layers)
    slicing.stamp(made, model).save(job.folder / PLAN)
    return {"summary": made.summary().splitlines()}


def prune(resources: Resources, scored: str, planned: str, job: Job) -> Mapping[str, Any]:
    """Cut the step `scored` down to the plan of the step `planned`."""
    from ffc.pruning import Plan
    from ffc.train.models import slicing
    from ffc.train.models.checkpoint import save_pruned

    model = model_of(job.done[scored])
    pruned = slicing.apply(model, Plan.load(job.done[planned].folder / PLAN))
    save_pruned(pruned.to("cpu"), job.folder / MODEL, resources.tokenizer)
    return {}


def distil(
    resources: Resources, losses: Losses, training: Mapping[str, Any], pruned: str, taught_by: str, job: Job
) -> Mapping[str, Any]:
    """Distil the step `pruned` from the step `taught_by`."""
    model = model_of(job.done[pruned])
    master = model_of(job.done[taught_by])
    return _trained(resources, job, model, training, losses, teacher=master)


def _trained(
    resources: Resources, job: Job, model: nn.Module, training: Mapping[str, Any], losses: Losses, **given: Any
) -> Mapping[str, Any]:
    """Train a model unless 0 epochs are asked for, save it, and say how it went.

    The weights of the last epoch are kept: to choose an epoch by the rows that are reported would flatter the report.
    """
    from ffc.train.learning import trainer
    from ffc.train.models.checkpoint import save_pruned

    history: History | None = None
    if training["epochs"]:
        history = trainer.train(
            model,
            resources.training,
            resources.collator,
            Training(**training),
            losses=losses,
            folder=job.scratch,
            progress=job.tell,
            **given,
        )
    save_pruned(model.to("cpu"), job.folder / MODEL, resources.tokenizer)
    return {} if history is None else {"loss": [list(point) for point in history.loss], "steps": history.steps}


def _searched(resources: Resources, keys: PlanKeys, seed: int, job: Job, model: nn.Module) -> Plan:
    """Return the plan of a Fisher search, with scales, which does without training again."""
    from ffc.train.pruning import plans

    assert keys.macs is not None  # PlanKeys sees to it
    return plans.search(
        model,
        resources.sample(keys.rows, seed),
        resources.collator,
        macs=keys.macs,
        floor=keys.amount.floor,
        on=keys.on,
        first_token=not resources.task.spans,
        progress=job.tell,
    )


def _iterated(
    resources: Resources, keys: PlanKeys, seed: int, job: Job, model: nn.Module, layers: Sequence[LayerSizes]
) -> Plan:
    """Return the plan of several scorings, each of what the one before left."""
    from ffc.pruning import amount
    from ffc.train.pruning import iterative

    return iterative.prune_in_steps(
        model,
        resources.sample(keys.rows, seed),
        resources.collator,
        steps=keys.steps,
        allocate=lambda scores, way: amount.plan(amount.after(keys.amount, way, layers), scores, layers),
        method="fisher" if keys.by == "fisher" else "taylor",
        on=keys.on,
        progress=job.tell,
    )
