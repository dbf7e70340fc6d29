"""A TOML file whose tables are settings, with errors that name the line."""

from __future__ import annotations

import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from ffc.errors import InputError, UsageError, nearest
from ffc.settings.setting import Setting, SettingError, fields, members, refused, types_of

__all__ = ["File", "parse", "projects", "read_text", "table_of"]

_PROJECT = "pyproject.toml"

_T = TypeVar("_T")


@dataclass(frozen=True)
class File:
    """A TOML file, or one table of it.

    Attributes:
        path: The file.
        text: What it holds.
        table: The table that is meant; empty for all of it.
    """

    path: Path
    text: str
    table: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"[{'.'.join(self.table)}] of {self.path}" if self.table else str(self.path)

    def fail(self, key: Sequence[str], message: str) -> NoReturn:
        """Raise a `UsageError` that points at the line of `key`, or of the nearest table around it that has a line."""
        raise UsageError(f"{self.place(key)}: {message}")

    def place(self, key: Sequence[str]) -> str:
        """Return the file and the line of `key`."""
        lines: dict[tuple[str, ...], int] = {}
        for line, found in _keys(self.text):
            lines.setdefault(found, line)
        full = (*self.table, *key)
        at = next((lines[full[:end]] for end in range(len(full), len(self.table), -1) if full[:end] in lines), None)
        at = at or lines.get(full)
        return f"{self.path}:{at}" if at else str(self.path)

    def read(self, kind: type[_T], data: Mapping[str, Any]) -> _T:
        """Return what the file holds as a dataclass of settings, in which tables are dataclasses in their turn.

        Raises:
            UsageError: If a key is unknown, missing, or of the wrong type or range; the message names the line.
        """
        return self._table(kind, data, ())

    def _table(self, kind: type[_T], data: Mapping[str, Any], key: tuple[str, ...]) -> _T:
        known = fields(kind)
        for name in data:  # an unknown key explains what is missing, so it comes first
            if name not in known:
                where = f" in [{'.'.join(key)}]" if key else ""
                self.fail((*key, name), f"unknown key '{name}'{where}{nearest(name, known)}")
        whole = f"[{'.'.join(key)}]" if key else "the file"
        for name, (field, said) in known.items():
            if name not in data and field.default is MISSING and field.default_factory is MISSING:
                self.fail(key, f"{whole} has no '{name}'; give {said.wanted.words}")
        hints = types_of(kind)
        values = {name: self._value(data[name], hints[name], known[name][1], (*key, name)) for name in data}
        try:
            return kind(**values)
        except SettingError as error:
            if error.at:
                self.fail((*key, error.at), error.spelled(lambda name: f"'{'.'.join((*key, name))}'"))
            self.fail(key, f"{whole}: {error}")

    def _value(self, value: Any, hint: Any, said: Setting, key: tuple[str, ...]) -> Any:
        """Return a value with its tables read; all else is left to the dataclass that it is for."""
        for each in members(hint):
            if is_dataclass(each) and isinstance(value, dict):
                return self._table(cast(type[Any], each), value, key)
            if typing.get_origin(each) is Mapping and isinstance(value, dict):
                inner = typing.get_args(each)[1]
                return {name: self._entry(item, inner, said, (*key, name)) for name, item in value.items()}
        return value

    def _entry(self, value: Any, hint: Any, said: Setting, key: tuple[str, ...]) -> Any:
        """Return an entry of a table whose names are the user's own."""
        found = self._value(value, hint, replace(said, wanted=said.entries or said.wanted), key)
        if reason := refused(found, hint, said):
            self.fail(key, f"'{'.'.join(key)}' is {reason}")
        return found


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: If it is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not TOML: it is not text in UTF-8") from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return what the text of a file says.

    Raises:
        InputError: If it is not TOML; the message names line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        line = re.match(r"line (\d+), column (\d+)", where)
        place = f"{path}:{line[1]}:{line[2]}" if line else str(path)
        raise InputError(f"{place}: not TOML: {what[:1].lower()}{what[1:]}") from error
    except RecursionError as error:
        raise InputError(f"{path}: it is nested too deep") from error


def projects(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the ``pyproject.toml`` of a folder and of those above it, the nearest first, seen from the current one."""
    start = Path(folder).resolve()
    for each in (start, *start.parents):
        if (each / _PROJECT).is_file():
            yield Path(os.path.relpath(each / _PROJECT))


def table_of(path: Path, table: tuple[str, ...]) -> tuple[File, dict[str, Any]] | None:
    """Return a table of ffc's in a ``pyproject.toml`` and what it holds, or None where there is none.

    Raises:
        InputError: If the file is missing or not TOML.
        UsageError: If it is no table.
    """
    text = read_text(path)
    if "ffc" not in text:  # so that a project's broken file is no concern of those who do not use it
        return None
    data: Any = parse(path, text)
    for key in table:
        data = data.get(key) if isinstance(data, dict) else None
    file = File(path, text, table)
    if data is not None and not isinstance(data, dict):
        file.fail((), f"'{'.'.join(table)}' is {data!r}, wanted a table")
    return None if data is None else (file, data)


def _keys(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line of each key and of each table, with its full name; text that spans lines is not told apart."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
            table = _dotted(header[1])
            yield from ((number, table[:end]) for end in range(1, len(table) + 1))
        elif key := re.match(r"\s*([^=#]+)=", line):
            names = _dotted(key[1])
            yield from ((number, (*table, *names[:end])) for end in range(1, len(names) + 1))


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
