"""Tasks by name: SuperGLUE's from their folder, any text classification from files, and those of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffc.errors import InputError, UsageError, nearest
from ffc.rows.columns import check_columns, text_columns
from ffc.rows.records import Record, read
from ffc.settings.data import Data
from ffc.train.tasks import hub, sample, superglue, text
from ffc.train.tasks.base import Task, Unit

__all__ = ["TEXT", "load"]

TEXT = "text"


@dataclass(frozen=True)
class _Source:
    """A task before it is split and sampled; `validation` is None where the training file must give it."""

    labels: tuple[str, ...]
    train: list[Unit]
    validation: list[Unit] | None
    metric: str = "accuracy"
    spans: int = 0


def load(data: Data, *, seed: int = 0) -> Task:
    """Load a task.

    Args:
        data: Which rows, and where they come from.
        seed: Of split and samples.

    Returns:
        The task. Its training rows all have labels; its validation rows may lack them, to be predicted and not scored.

    Raises:
        UsageError: If the name is unknown, or a setting is missing or not for this task.
        InputError: If a file is missing or broken; the message names file and line.
        MissingError: If the hub is asked for and `datasets` is not installed.
    """
    name, kind = data.name, data.name.lower()
    files = _path(data.train), _path(data.validation)
    columns = [data.text] if isinstance(data.text, str) else data.text
    if kind in superglue.TASKS:
        _refuse(name, text=columns, labels=data.labels, label=data.label if data.label != "label" else "")
        source = _superglue(kind, data.folder, *files)
    elif kind == TEXT:
        _refuse(name, folder=data.folder)
        source = _text(*files, columns, data.label, data.labels)
    elif data.of_the_hub:
        _refuse(name, folder=data.folder, train=data.train, validation=data.validation)
        found = hub.load(name, columns, data.label, data.labels)
        source, kind = _table(found.train, found.validation, found.text, data.label, found.labels), name
    else:
        known = (*superglue.TASKS, TEXT)
        raise UsageError(f"there is no task '{name}' here; hub:NAME is one of the hub{nearest(kind, known)}")
    if source.validation is None:
        first, second = sample.split(source.train, data.validation_share, seed)
    else:
        first, second = tuple(source.train), tuple(source.validation)
    _check_labelled(first)
    return Task(
        name=kind,
        labels=source.labels,
        metric=source.metric,
        train=sample.take([row for unit in first for row in unit.examples], data.train_rows, seed),
        validation=sample.take([row for unit in second for row in unit.examples], data.validation_rows, seed),
        spans=source.spans,
    )


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _refuse(name: str, **given: object) -> None:
    for argument, value in given.items():
        if value:
            raise UsageError(f"task {name} takes no {argument}; leave it out")


def _superglue(name: str, folder: str | Path | None, train: Path | None, validation: Path | None) -> _Source:
    form = superglue.TASKS[name]
    if folder is not None:
        _refuse(f"{name} with a folder", train=train, validation=validation)
        inside = (Path(folder) / name for name in ("train.jsonl", "val.jsonl"))
        train, validation = (path if path.exists() else None for path in inside)
        if train is None and validation is None:
            raise InputError(f"there is neither train.jsonl nor val.jsonl in {folder}; name the folder of task {name}")
    if train is None and validation is None:
        raise UsageError(f"task {name} needs data; name the folder where its train.jsonl and val.jsonl lie")
    first, second = (
        [form.read(record, form.labels) for record in read(path)] if path else None for path in (train, validation)
    )
    return _Source(form.labels, first or [], second, form.metric, form.spans)


def _text(
    train: Path | None, validation: Path | None, columns: Sequence[str], label: str, labels: Sequence[str]
) -> _Source:
    if train is None and validation is None:
        raise UsageError("task text needs files; name a training file, a validation file or both (.tsv, .csv, .jsonl)")
    if train is None and not labels:
        raise UsageError("task text without a training file needs the names of the labels; give labels")
    records = read(train) if train else None
    judged = read(validation) if validation else None
    return _table(records, judged, columns, label, labels)


def _table(
    train: list[Record] | None,
    validation: list[Record] | None,
    columns: Sequence[str],
    label: str,
    labels: Sequence[str],
) -> _Source:
    """Make a source of records with columns; one of train and validation may be None."""
    if labels and (len(set(labels)) < len(labels) or len(labels) < 2):
        raise UsageError(f"labels={', '.join(labels)} must be two or more different names")
    columns = text_columns((train or validation or [])[0], columns, label)
    if train:
        check_columns(train[0], (*columns, label))
    names = tuple(labels) or text.derive_labels(train or [], label)
    return _Source(
        labels=names,
        train=text.units(train, columns, label, names) if train else [],
        validation=text.units(validation, columns, label, names) if validation else None,
    )


def _check_labelled(train: Sequence[Unit]) -> None:
    for unit in train:
        if any(example.label is None for example in unit.examples):
            raise InputError(f"{unit.where}: has no label, or -1, and cannot be trained on; leave the row out")
