"""A recipe's file: TOML, checked against declared keys, with errors that name the line."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ffc.errors import InputError, UsageError, nearest

__all__ = ["File", "Keys", "parse", "read_text"]


class Keys(BaseModel):
    """Declared keys of a recipe or of a table in it; the description of each says what is wanted.

    Where entries of a dictionary have another description than the dictionary, it stands in ``json_schema_extra``
    under ``entries``.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


_K = TypeVar("_K", bound=Keys)


@dataclass(frozen=True)
class File:
    """A TOML file, or one table of it.

    Attributes:
        path: The file.
        text: What it holds.
        table: The table that is the recipe; empty for all of it.
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

    def validate(self, keys: type[_K], data: dict[str, Any]) -> _K:
        """Check what the file holds against the declared keys.

        Raises:
            UsageError: If a key is unknown, missing, or of the wrong type or range; the message names the line.
        """
        try:
            return keys.model_validate(data)
        except ValidationError as error:
            self._fail_as(keys, error)

    def _fail_as(self, keys: type[Keys], error: ValidationError) -> NoReturn:
        """Say in one line which key is wrong."""
        # An unknown key explains what is missing, so it comes first.
        found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")[0]
        loc = tuple(str(step) for step in found["loc"])
        key, fields, wanted = _walk(keys, loc)
        if found["type"] == "extra_forbidden":
            self.fail(loc, f"unknown key '{loc[-1]}'{_in(loc[:-1])}{nearest(loc[-1], fields)}")
        if found["type"] == "missing":
            self.fail(loc[:-1], f"{_table(loc[:-1])} has no '{loc[-1]}'; give {wanted}")
        if found["type"] == "value_error":
            self.fail(key, f"{_table(key)}: {found['ctx']['error']}")
        value: Any = found["input"]
        near = nearest(value, typing.get_args(wanted_literals)) if (wanted_literals := _literal(keys, key)) else ""
        if near and isinstance(value, str):
            self.fail(key, f"'{'.'.join(key)}' is {value!r:.60}{near}")
        self.fail(key, f"'{'.'.join(key)}' is {value!r:.60}, wanted {wanted}")


def read_text(path: Path) -> str:
    """Return the text of a recipe.

    Raises:
        InputError: If it is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {path} is not TOML: it is not text in UTF-8") from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return what the text of a recipe says.

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
        raise InputError(f"{path}: not a recipe: it is nested too deep") from error


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


def _walk(keys: type[Keys], loc: tuple[str, ...]) -> tuple[tuple[str, ...], list[str], str]:
    """Follow the place of an error into the declared keys.

    Returns:
        The key that a user can change, the keys known beside it, and what is wanted of it.
    """
    model: type[Keys] | None = keys
    known: list[str] = []
    wanted = ""
    at = 0
    while at < len(loc) and model is not None:
        known = sorted(model.model_fields)
        field = model.model_fields.get(loc[at])
        if field is None:
            return loc[: at + 1], known, wanted
        at, wanted = at + 1, field.description or ""
        model, named = _inner(field)
        at += named and at < len(loc)  # the name that a user gives to a table of its own
        extra = field.json_schema_extra
        if isinstance(extra, dict) and len(loc) > at + 1:
            at, wanted = at + 2, str(extra["entries"])
    return loc[:at], known, wanted


def _inner(field: FieldInfo) -> tuple[type[Keys] | None, bool]:
    """Return the keys of the table that a field holds, if any, and whether it is a table of such tables."""
    choices = [field.annotation]
    named = False
    while choices:
        each = choices.pop()
        if isinstance(each, type) and not isinstance(each, types.GenericAlias) and issubclass(each, Keys):
            return each, named
        if typing.get_origin(each) is dict:
            named = True
        choices += [argument for argument in typing.get_args(each) if argument is not str]
    return None, False


def _literal(keys: type[Keys], key: tuple[str, ...]) -> Any:
    """Return the ``Literal`` that `key` is declared as, or None."""
    model: type[Keys] | None = keys
    for step in key:
        field = model.model_fields.get(step) if model else None
        if field is None:
            continue
        literal = next(
            (each for each in (field.annotation, *typing.get_args(field.annotation)) if _is_literal(each)), None
        )
        if literal is not None:
            return literal
        model, _ = _inner(field)
    return None


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal


def _table(key: Sequence[str]) -> str:
    return f"[{'.'.join(key)}]" if key else "the recipe"


def _in(key: Sequence[str]) -> str:
    return f" in [{'.'.join(key)}]" if key else ""
