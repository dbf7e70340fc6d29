"""Any classification of texts or pairs of texts, from records with a column for each text and one for the label."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ffc.errors import InputError, UsageError, nearest
from ffc.train.tasks.base import Example, Unit
from ffc.train.tasks.rows import Record

__all__ = ["check_columns", "derive_labels", "text_columns", "units"]

UNKNOWN = "-1"
"""How a label is written that is not known, as in the test splits of GLUE."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MOST_LABELS = 1000


def text_columns(records: Sequence[Record], text: Sequence[str], label: str) -> tuple[str, ...]:
    """Return the one or two columns of text: those named, or the only one beside the label.

    Raises:
        UsageError: If none is named and there is not just one, or more than two are named, or one twice.
    """
    if text:
        if len(text) > 2 or len(set(text)) < len(text) or label in text:
            raise UsageError(f"text={', '.join(text)} must name one or two columns, each once and not the label")
        return tuple(text)
    others = [name for name in records[0].values if name != label]
    if len(others) != 1:
        raise UsageError(
            f"{records[0].where}: which columns hold the text? name one or two of {', '.join(others) or 'none'} as text"
        )
    return (others[0],)


_MISSPELT = 0.75
"""How like the column of labels, by difflib's ratio, a name is that stands for it: "Label" and "lable" are."""


def check_columns(record: Record, columns: Sequence[str]) -> None:
    """Check that columns are there, by the first record of a file.

    Raises:
        InputError: If one is not; the message offers the nearest.
    """
    for name in columns:
        if name not in record.values:
            raise record.error(f"there is no column '{name}'{nearest(name, record.values)}")


def derive_labels(records: Sequence[Record], label: str) -> tuple[str, ...]:
    """Return the distinct labels of a training file, sorted; as numbers where all are.

    Raises:
        InputError: If there are fewer than two, or so many that the column must be another.
    """
    names = {name for record in records if (name := _name(record, label)) not in (None, UNKNOWN)}
    where = f"{records[0].where}: the column '{label}'"
    if len(names) < 2:
        found = f"only the label {names.pop()!r}" if names else "no label at all"
        raise InputError(f"{where} has {found} from here on; a task needs two (if -1 is one, name all in labels)")
    if len(names) > _MOST_LABELS:
        raise InputError(f"{where} has {len(names)} different values, which cannot be labels; name another column")
    if all(_INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def units(records: Sequence[Record], text: Sequence[str], label: str, labels: Sequence[str]) -> list[Unit]:
    """Turn records into examples.

    Args:
        records: The rows.
        text: One or two columns of text.
        label: The column of the label: a name, an index into `labels` where these are no numbers themselves, or -1,
            empty or missing where it is unknown.
        labels: Names of the labels.

    Raises:
        InputError: If a text is missing, the label is none of the labels, or its column is misspelt; the message names
            file and line.
    """
    check_columns(records[0], text)
    if difflib.get_close_matches(label, records[0].values, cutoff=_MISSPELT):  # a file without labels has none
        check_columns(records[0], [label])
    places = {name: place for place, name in enumerate(labels)}
    made = []
    for record in records:
        first, *rest = (record.text(column) for column in text)
        example = Example(first, rest[0] if rest else None, _index(record, label, places))
        made.append(Unit(record.where, (first,), (example,)))
    return made


def _name(record: Record, column: str) -> str | None:
    value = record.values.get(column)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | str):
        return (record.text(column) if isinstance(value, str) else str(value)).strip() or None
    if value is None:
        return None
    raise record.error(f"the label is {str(value)[:60]}, expected a name or an integer")


def _index(record: Record, column: str, places: dict[str, int]) -> int | None:
    name = _name(record, column)
    if name is None:
        return None
    if name in places:
        return places[name]
    if name == UNKNOWN:
        return None
    numbered = any(_INTEGER.fullmatch(each) for each in places)
    if _INTEGER.fullmatch(name) and not numbered and 0 <= int(name) < len(places):
        return int(name)
    shown = ", ".join(list(places)[:10]) + (", ..." if len(places) > 10 else "")
    raise record.error(f"the label '{name[:60]}' is none of {shown}")
