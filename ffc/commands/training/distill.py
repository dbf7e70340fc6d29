"""``ffc distill``: a smaller model that learns from a larger one, on a task or on plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import shared
from ffc.commands.options.settings import made, names, number, options
from ffc.commands.options.task import read_task, task_files, task_options
from ffc.commands.options.training import (
    Fit,
    check_outputs,
    check_tokenizers,
    first,
    fit,
    learned,
    output_options,
    several,
    tell,
)
from ffc.errors import UsageError, nearest
from ffc.settings import libraries
from ffc.settings.activation import Activation
from ffc.settings.data import Data
from ffc.settings.losses import ON_A_TASK, ON_TEXTS, WEIGHTS, Losses
from ffc.settings.setting import fields, types_of
from ffc.settings.training import Training

if TYPE_CHECKING:
    from torch import nn

__all__ = ["distill", "read_losses"]

_PATH = click.Path(path_type=Path)
_LOSSES = tuple(name for name in fields(Losses) if name != "layers")


@click.command(epilog=several("distill --teacher FOLDER --layers 3"))
@click.option(
    "--teacher", required=True, metavar="FOLDER", help="The model to learn from, as ffc train has written it."
)
@click.option("--layers", metavar="N|I,J,...", help="The student is the teacher with N of its layers, or with these.")
@click.option("--student", metavar="SOURCE", help="The student is another model, with the same tokenizer.")
@click.option("--plan", type=_PATH, metavar="plan.json", help="The student is the teacher, pruned by a plan.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"Weight of a loss: {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}; also temperature and relation_heads.  "
    f"[default: {ON_A_TASK}, on --texts {ON_TEXTS}; repeatable]",
)
@click.option(
    "--layer-map",
    metavar="S:T,...",
    help="From which of the teacher's layers each of the student's learns.  [default: spread evenly]",
)
@options(Activation)
@click.option(
    "--texts",
    type=_PATH,
    metavar="FILE",
    help="Distil for no task, by masked language modelling on these lines of text.",
)
@task_options
@options(Training)
@output_options
def distill(teacher: str, out: Path, onnx: Path | None, as_json: bool, **given: Any) -> None:
    """Distil a student from a teacher, keep its best epoch, and write it with its scores.

    The student is some layers of the teacher (--layers), another checkpoint (--student) or the teacher pruned (--plan).
    A GPU is used if there is one.
    """
    _check_student(given)
    read = [*task_files(given), given["plan"], given["texts"]]
    check_outputs(out, onnx, [teacher, given["student"]], read, as_json=as_json)
    libraries.check(libraries.TRAINING)
    shared.hush()
    if given["texts"] is None:
        _for_task(teacher, out, onnx, as_json, given)
    else:
        _for_none(teacher, out, onnx, as_json, given)


def _check_student(given: dict[str, Any]) -> None:
    """Check what is said of the student, before anything is loaded."""
    named = [f"--{name}" for name in ("layers", "student", "plan") if given[name] is not None]
    if len(named) != 1:
        found = f"{' and '.join(named)} name several" if named else "none is named"
        raise UsageError(f"ffc distill needs one student, by --layers, --student or --plan; {found}")
    made(Activation, given)  # which refuses what does not go together
    if given["texts"] is None:
        return
    if misplaced := shared.given_option(names(Data)):
        raise UsageError(f"--texts distils for no task; leave out --texts or {misplaced}")
    if given["anneal"] is not None:
        raise UsageError("--anneal is for a task; on --texts, give --activation relu alone")


def _for_task(teacher: str, out: Path, onnx: Path | None, as_json: bool, given: dict[str, Any]) -> None:
    task = read_task(**given)
    losses = read_losses(given["losses"], given["layer_map"], ON_A_TASK)
    from ffc.train.models import pretrained

    master = learned(teacher, task)
    wanted = Fit(
        model=_student(teacher, master, given, partial(pretrained.classifier, task=task, seed=given["seed"])),
        tokenizer=pretrained.tokenizer(teacher),
        task=task,
        losses=losses,
        teacher=master,
        anneal=given["anneal"],
        provenance={"teacher": teacher, "student": _described(given)},
    )
    fit(wanted, out, onnx, as_json, given)


def _for_none(teacher: str, out: Path, onnx: Path | None, as_json: bool, given: dict[str, Any]) -> None:
    losses, training = read_losses(given["losses"], given["layer_map"], ON_TEXTS), made(Training, given)
    from ffc.train.export import export
    from ffc.train.learning import mlm, trainer
    from ffc.train.models import pretrained
    from ffc.train.models.loading import load

    texts, tokenizer = mlm.read_texts(given["texts"]), pretrained.tokenizer(teacher)
    master = pretrained.language_model(teacher)
    student = _student(teacher, master, given, pretrained.language_model)
    tell(f"{len(texts)} texts")
    history = mlm.distill_general(
        master, student, texts, tokenizer, training, losses, out, max_length=given["max_length"], progress=tell
    )
    trainer.leave()
    if not first():
        return
    if onnx:
        tell(f"exporting {onnx}")
        told = {"teacher": teacher, "student": _described(given)}
        export(load(out), onnx, tokenizer=tokenizer, provenance=told)
    found = {"loss": [list(each) for each in history.loss], "steps": history.steps, "seconds": history.seconds}
    losses_told = f"loss {history.loss[0][1]:.4g}, then {history.loss[-1][1]:.4g}"
    click.echo(
        json.dumps(found, indent=1) if as_json else f"{losses_told}; wrote {f'{out} and {onnx}' if onnx else out}"
    )


def _student(teacher: str, master: nn.Module, given: dict[str, Any], loaded: Callable[[str], nn.Module]) -> nn.Module:
    """Return the student that the options ask for, made of its teacher or loaded, with ReLU where that is not later."""
    from ffc.pruning import Plan
    from ffc.train.distillation import students
    from ffc.train.learning.activation import relu_for_gelu
    from ffc.train.models import slicing

    if given["layers"] is not None:
        student = students.keep_layers(master, _read_layers(given["layers"]))
    elif given["plan"] is not None:
        student = slicing.apply(master, Plan.load(given["plan"]))
    else:
        check_tokenizers(given["student"], teacher)
        student = loaded(given["student"])
    if given["activation"] is not None and given["anneal"] is None:
        relu_for_gelu(student)
    return student


def _described(given: dict[str, Any]) -> str:
    """Say how the student was made."""
    kind = next(name for name in ("layers", "student", "plan") if given[name] is not None)
    return f"{kind} {given[kind]}"


def _read_layers(text: str) -> int | list[int]:
    """Read a number of layers such as 3, or layers such as 0,2,4."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--layers is '{text}'; give a number of layers such as 3, or layers such as 0,2,4")
    numbers = [int(part) for part in parts]
    return numbers if len(numbers) > 1 else numbers[0]


def read_losses(texts: Sequence[str], layer_map: str | None, default: Losses) -> Losses:
    """Read the losses; of those that are named all others have no weight, and without any the default counts."""
    layers = _read_map(layer_map) if layer_map else None
    if not texts:
        return replace(default, layers=layers)
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in _LOSSES:
            raise UsageError(f"unknown loss '{name}'{nearest(name, _LOSSES)}")
        try:
            found[name] = number(value, types_of(Losses)[name], fields(Losses)[name][1])
        except ValueError as error:
            raise UsageError(f"--loss {name} is {error}, such as {name}=1") from None
    return Losses(**found, layers=layers)


def _read_map(text: str) -> tuple[tuple[int, int], ...]:
    """Read pairs of layers such as 0:1,1:3."""
    pairs = [part.split(":") for part in text.split(",")]
    if not all(len(pair) == 2 and all(end.strip().isdecimal() for end in pair) for pair in pairs):
        raise UsageError(f"--layer-map is '{text}'; give pairs of a student's and a teacher's layer such as 0:1,1:3")
    return tuple((int(student), int(teacher)) for student, teacher in pairs)
