"""What ``ffc train`` and ``ffc distill`` share: options, what is written, and that one process of several speaks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffc.commands.options import settings, shared
from ffc.commands.options.shared import Command
from ffc.errors import UsageError
from ffc.settings import libraries
from ffc.settings.training import Training

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from ffc.settings.losses import Losses
    from ffc.train.encoding import Rows
    from ffc.train.learning.trainer import History
    from ffc.train.tasks import Scores, Task

__all__ = [
    "Fit", "check_outputs", "check_tokenizers", "first", "fit", "learned", "output_options", "several", "tell",
]  # fmt: skip

SCORES = "scores.json"
"""The file in the folder of a model that says how good it is."""

FORMAT = "ffc.scores/1"


def several(example: str) -> str:
    """Return what help says in the end about training in several processes, for a command such as ``distill``."""
    return (
        "On several GPUs, or in several processes, start it with torchrun or accelerate; the result is that of one "
        "process with as many times the --batch-size, but that rows are repeated where they fill no last step:\n\n\b\n"
        f"  torchrun --nproc-per-node 2 -m ffc {example} ...\n"
        f"  accelerate launch --num-processes 2 -m ffc {example} ..."
    )


def output_options(command: Command) -> Command:
    """Add the options that say where results go to a command."""
    onnx = click.option("--onnx", type=shared.OUTPUT, metavar="FILE", help="Also export to ONNX.")
    out = click.option(
        "-o", "--output", "out", type=shared.OUTPUT_FOLDER, required=True, metavar="FOLDER",
        help="Where the model goes.",
    )  # fmt: skip
    return out(onnx(shared.as_json(command)))


def first() -> bool:
    """Return whether this is the first of several processes, or the only one; torchrun and accelerate number them."""
    return os.environ.get("RANK", "0") == "0"


def tell(line: str, done: int = 0, total: int = 0, /) -> None:
    """Print a line on how the work goes to stderr, in the first process alone; lines say what is counted."""
    if first():
        click.echo(line, err=True)


def check_outputs(
    out: Path, onnx: Path | None, models: Iterable[str | None], files: Iterable[Path | None], *, as_json: bool
) -> None:
    """Refuse, before any work, outputs that cannot be written or would destroy an input.

    Args:
        out: The folder of the model.
        onnx: The ONNX file, if any.
        models: The models that are read, as they were named.
        files: What else is read: files, and folders with the files of a task.
        as_json: Whether JSON is printed, which keeps standard output from being one.

    Raises:
        UsageError: If there is one.
    """
    from ffc.graph.files import targets

    targets.check_no_stream(out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"the output '{out}' is a file; name a folder with -o")
    beside = out.resolve().parent
    targets.check_folder(beside, shown=beside if out.is_symlink() else out.parent)
    if out.is_dir():
        targets.check_folder(out, shown=out)
    read = [Path(source) for source in models if source]
    if out.exists() and any(targets.same(out, source) for source in read):
        raise UsageError(f"the output '{out}' is an input; name another folder with -o")
    if onnx:
        shared.check_file(onnx, [*read, *files], option="--onnx")
        shared.keep_clean([onnx], as_json=as_json)
        libraries.check(libraries.EXPORT)


def learned(source: str, task: Task) -> nn.Module:
    """Return a model that has been trained on a task, with its head.

    Raises:
        UsageError: If it has no head for the labels of the task: what a fresh head says would teach nothing.
        InputError: If it is missing or broken.
    """
    from ffc.train.models import blueprint, loading

    model = loading.load(Path(loading.locate(source)))
    if (labels := blueprint.labels(model)) != task.labels:
        raise UsageError(
            f"the model '{source}' is for the labels {', '.join(labels)}, task {task.name} has "
            f"{', '.join(task.labels)}; name a model that `ffc train` has trained on this task"
        )
    return model


def check_tokenizers(student: str, teacher: str) -> None:
    """Refuse a student that reads other ids than its teacher.

    Raises:
        UsageError: If their tokenizers differ.
    """
    from ffc.train.models import pretrained

    if not pretrained.same_tokens(pretrained.tokenizer(student), pretrained.tokenizer(teacher)):
        raise UsageError(
            f"the student '{student}' makes tokens otherwise than the teacher '{teacher}', so that neither can learn "
            "from the other; name a student with the same tokenizer"
        )


@dataclass(frozen=True)
class Fit:
    """What to train, and how.

    Attributes:
        model: The model, trained in place.
        tokenizer: Its tokenizer.
        task: The rows.
        losses: What it learns from.
        provenance: What the exported file says of where it comes from.
        teacher: Whom it learns from, if anyone.
        anneal: In which share of the steps it goes from GELU to ReLU, if gradually.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    task: Task
    losses: Losses
    provenance: Mapping[str, str]
    teacher: nn.Module | None = None
    anneal: float | None = None


def fit(wanted: Fit, out: Path, onnx: Path | None, as_json: bool, given: Mapping[str, Any]) -> None:
    """Train as the options say, then write the model, its scores and its export, and print the scores."""
    from ffc.train.encoding import Collator, encode
    from ffc.train.learning import trainer
    from ffc.train.tasks import metrics

    training, task = settings.made(Training, given), wanted.task
    rows, validation = (encode(part, wanted.tokenizer, given["max_length"]) for part in (task.train, task.validation))
    tell(f"{task.name}: {len(rows)} rows to train on, {len(validation)} to validate")
    scratch = out.resolve().with_name(f".{out.resolve().name}.work")
    history = trainer.train(
        wanted.model,
        rows,
        Collator(wanted.tokenizer),
        training,
        losses=wanted.losses,
        teacher=wanted.teacher,
        validation=validation,
        score=lambda logits: metrics.score(task, logits, task.validation),
        folder=scratch,
        progress=tell,
        anneal=wanted.anneal,
    )
    trainer.leave()
    if not first():
        return
    shutil.rmtree(scratch, ignore_errors=True)
    found = _scores(wanted, history, validation)
    record = _record(wanted, training, history, found, len(rows))
    _save(wanted, out, onnx, record)
    click.echo(record if as_json else _line(task, found, out, onnx), nl=not as_json)


def _scores(wanted: Fit, history: History, validation: Rows) -> Scores:
    """Return what the trained model scores; where no epoch was chosen, the last that was scored may be another."""
    if history.best is not None:
        return history.scores[history.best]
    from ffc.train.encoding import Collator
    from ffc.train.evaluate import predict
    from ffc.train.tasks import metrics

    logits = predict(wanted.model, validation, Collator(wanted.tokenizer))
    return metrics.score(wanted.task, logits, wanted.task.validation)


def _record(wanted: Fit, training: Training, history: History, found: Scores, rows: int) -> str:
    """Return the text of `SCORES`: what a reader needs to judge the model or to train it again."""
    record = {
        "format": FORMAT,
        "task": wanted.task.name,
        "metric": wanted.task.metric,
        "score": found.main,
        "parts": dict(found.parts),
        "train_rows": rows,
        "validation_rows": len(wanted.task.validation),
        "epochs": [each.main for each in history.scores],
        "best": history.best,
        "steps": history.steps,
        "seconds": history.seconds,
        "loss": [list(each) for each in history.loss],
        "training": asdict(training),
        "losses": asdict(wanted.losses),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        **wanted.provenance,
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _save(wanted: Fit, out: Path, onnx: Path | None, record: str) -> None:
    from ffc.graph.files import publish
    from ffc.train.export import export
    from ffc.train.models.checkpoint import save_pruned

    save_pruned(wanted.model, out, wanted.tokenizer)
    publish.write(out / SCORES, record.encode())
    if onnx:
        tell(f"exporting {onnx}")
        export(wanted.model, onnx, task=wanted.task, tokenizer=wanted.tokenizer, provenance=wanted.provenance)


def _line(task: Task, found: Scores, out: Path, onnx: Path | None) -> str:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found.parts.items()) if len(found.parts) > 1 else ""
    files = f"{out} and {onnx}" if onnx else f"{out}"
    return (
        f"{task.name}: {found.main:.2f}{f' ({parts})' if parts else ''} on {len(task.validation)} rows; wrote {files}"
    )
