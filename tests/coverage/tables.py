"""Tables whose rows tests give as properties of their own, and that are printed when all have run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_PREFIX = "table: "

TABLES: dict[str, list[Mapping[str, str]]] = {}
"""Rows by title, each a cell by heading."""


def named(title: str) -> str:
    """Return the name of a property that holds a row of the table with this title."""
    return _PREFIX + title


def collect(properties: Iterable[tuple[str, object]]) -> None:
    """Take the rows out of the properties that a test recorded, in this process or another."""
    for name, row in properties:
        if name.startswith(_PREFIX) and isinstance(row, Mapping):
            TABLES.setdefault(name.removeprefix(_PREFIX), []).append(row)


def lines(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return rows as text, in order, columns as wide as what they hold."""
    body = sorted(list(row.values()) for row in rows)
    found = [list(next(iter(rows))), *body]
    widths = [max(len(row[column]) for row in found) for column in range(len(found[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in found]
