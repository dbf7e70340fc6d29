"""Any classification of texts or pairs of texts, from records with a column for each text and one for the label."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ffc.errors import InputError
from ffc.rows.columns import check_columns
from ffc.rows.records import Record
from ffc.train.tasks.base import Example, Unit

__all__ = ["derive_labels", "units"]

UNKNOWN = "-1"
"""How a label is written that is not known, as in the test splits of GLUE."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MOST_LABELS = 1000


_MISSPELT = 0.75
"""How like the column of labels, by difflib's ratio, a name is that stands for it: "Label" and "lable" are."""


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
