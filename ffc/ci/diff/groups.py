"""Changes that say the same, gathered: one line for all the layers of an encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ffc.ci.diff.changes import KINDS, Change, Kind

__all__ = ["Group", "groups"]

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Group:
    """Changes of one kind that say the same.

    Attributes:
        kind: Their kind.
        what: What changed.
        by: The pass and rule that made the new nodes, where that is known.
        where: Where, in one line: numbers in which the names differ as ranges, as in ``layer.{0..11}/Add``.
        changes: The changes, in canonical order.
    """

    kind: Kind
    what: str
    by: str
    where: str
    changes: tuple[Change, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.changes)


def groups(changes: Sequence[Change]) -> list[Group]:
    """Gather changes of the same kind, text, origin and scope, kinds in the order of `KINDS`."""
    found: dict[tuple[Kind, str, str, str], list[Change]] = {}
    for change in sorted(changes, key=lambda change: KINDS.index(change.kind)):
        key = (change.kind, change.what, change.by, _NUMBER.sub("0", change.scope))
        found.setdefault(key, []).append(change)
    return [
        Group(kind, what, by, _where([_place(change) for change in members]), tuple(members))
        for (kind, what, by, _), members in found.items()
    ]


def _place(change: Change) -> str:
    return ": ".join(dict.fromkeys(part for part in (change.scope, change.where) if part))


def _where(names: Sequence[str]) -> str:
    """Return names that differ in numbers alone as one, and else the first with the number of the others."""
    first = names[0]
    alike = [name for name in names if _NUMBER.sub("0", name) == _NUMBER.sub("0", first)]
    columns = list(zip(*(_NUMBER.findall(name) for name in alike), strict=True))
    pieces = _NUMBER.split(first)
    text = pieces[0] + "".join(_range(column) + piece for column, piece in zip(columns, pieces[1:], strict=True))
    return text if len(alike) == len(names) else f"{text} and {len(names) - len(alike)} more"


def _range(column: Sequence[str]) -> str:
    numbers = sorted({int(each) for each in column})
    if len(numbers) == 1:
        return column[0]
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    shown = ",".join(map(str, numbers[:12]))
    return f"{{{shown}{',...' if len(numbers) > 12 else ''}}}"
