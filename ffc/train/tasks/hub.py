"""Text classifications from the hub, through the package `datasets` where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffc.errors import InputError, UsageError, nearest, one_line
from ffc.rows.records import Record
from ffc.settings import libraries
from ffc.settings.data import OF_THE_HUB

__all__ = ["HubData", "load"]

_VALIDATION = ("validation", "validation_matched", "dev", "valid", "val")


@dataclass(frozen=True)
class HubData:
    """What the hub holds under a name.

    Attributes:
        train: The rows to train on.
        validation: The rows to judge by; None where the data set has none.
        text: The one or two columns of text.
        labels: Names of the labels where they were given or the data set says them, else none.
    """

    train: list[Record]
    validation: list[Record] | None
    text: tuple[str, ...]
    labels: tuple[str, ...]


def load(name: str, text: Sequence[str], label: str, labels: Sequence[str]) -> HubData:
    """Load a data set by name.

    Args:
        name: ``hub:NAME`` or ``hub:NAME/CONFIG``, where NAME may be ``OWNER/NAME``.
        text: The columns of text; none for the columns of type string beside the label, if these are one or two.
        label: The column of the label.
        labels: Names to use in place of those of the data set.

    Raises:
        MissingError: If `datasets` is not installed.
        UsageError: If the name is malformed, or the text columns are not clear.
        InputError: If there is no such data set, it cannot be reached, or it has no rows to train on or no such column.
    """
    splits = _splits(name)
    if "train" not in splits:
        raise InputError(f"{name} has no split 'train' but {', '.join(sorted(splits))}; choose another data set")
    if not len(splits["train"]):
        raise InputError(f"{name} has no rows in its split 'train'; choose another data set")
    validation = next((split for split in _VALIDATION if split in splits), None)
    features = splits["train"].features
    for column in (label, *text):
        if column not in features:
            raise InputError(f"{name} has no column '{column}'{nearest(column, features)}")
    names = labels or getattr(features[label], "names", None) or ()
    return HubData(
        train=_records(name, "train", splits["train"], names, label),
        validation=_records(name, validation, splits[validation], names, label) if validation else None,
        text=tuple(text) or _text(name, features, label),
        labels=tuple(names),
    )


def _splits(name: str) -> Mapping[str, Any]:
    """Return the splits of a data set."""
    libraries.check(libraries.HUB)
    import datasets

    failure: Exception | None = None
    for path, config in _readings(name):
        try:
            return dict(datasets.load_dataset(path, config))
        except Exception as error:  # whatever hub, network, cache and data set come up with; ffc has no part in it
            failure = failure or error
    why = one_line(f"{type(failure).__name__}: {failure}", 300)
    advice = f"check name, configuration and network, {libraries.HUB.instead}"
    raise InputError(f"cannot load {name} ({why}); {advice}") from failure


def _readings(name: str) -> list[tuple[str, str | None]]:
    """Return what a name may mean, as path and configuration: ``a/b`` is a data set of an owner, or a configuration."""
    parts = name[len(OF_THE_HUB) :].split("/")
    if not all(parts) or len(parts) > 3:
        raise UsageError(f"'{name}' is no name on the hub; write hub:NAME or hub:NAME/CONFIG, such as hub:glue/sst2")
    if len(parts) == 1:
        return [(parts[0], None)]
    if len(parts) == 2:
        return [("/".join(parts), None), (parts[0], parts[1])]
    return [("/".join(parts[:2]), parts[2])]


def _text(name: str, features: Mapping[str, Any], label: str) -> tuple[str, ...]:
    found = [key for key, kind in features.items() if key != label and getattr(kind, "dtype", None) == "string"]
    if len(found) not in (1, 2):
        raise UsageError(
            f"{name}: which columns hold the text? name one or two of {', '.join(found) or 'none'} as text"
        )
    return tuple(found)


def _records(name: str, split: str, rows: Any, names: Sequence[str], label: str) -> list[Record]:
    """Return the rows of a split; a label that is an index becomes its name, which may look like another index."""
    made = []
    for number, row in enumerate(rows):
        value = row.get(label)
        if names and isinstance(value, int) and 0 <= value < len(names):
            row = row | {label: names[value]}
        made.append(Record(f"{name}, {split}", f"row {number}", row))
    return made
