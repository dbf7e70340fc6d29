"""Option values as text: what an annotation accepts, how a text becomes a value, and how a value is spelled."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from ffc.errors import UsageError
from ffc.settings.setting import Wanted, members
from ffc.settings.wanted import ANY

if TYPE_CHECKING:
    from ffc.compiler.passes import Pass

__all__ = ["OPTION", "Kind", "Part", "choices", "describe", "read", "spell"]

OPTION = r"[^\W\d]\w*="
"""The pattern of what starts an option: a value that does is quoted."""

_BARE = re.compile(rf'(?!{OPTION})[^\s,;{{}}"\\]+')
_INTEGER = re.compile(r"[+-]?[0-9]+")
_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "none",
}


@dataclass(frozen=True)
class Part:
    """A piece of a value between commas, as written."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Kind:
    """What an option of a pass accepts.

    Attributes:
        type: The resolved annotation.
        text: The annotation as written.
        default: What it is when not given, or `dataclasses.MISSING` where it must be.
        wanted: What it must be besides of that type.
    """

    type: Any
    text: str
    default: Any
    wanted: Wanted = ANY

    @classmethod
    def of(cls, kind: type[Pass], field: dataclasses.Field[Any]) -> Kind:
        """Resolve the annotation of one field of a pass, in the module of the class that declares it.

        Raises:
            UsageError: If the annotation names what that module does not hold at run time.
        """
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        wanted = field.metadata.get("wanted", ANY)
        if not isinstance(field.type, str):
            return cls(field.type, getattr(field.type, "__name__", str(field.type)), default, wanted)
        owner = next(base for base in kind.__mro__ if field.name in vars(base).get("__annotations__", {}))
        holder = types.SimpleNamespace(__annotations__={field.name: field.type})
        try:
            resolved = typing.get_type_hints(holder, globalns=vars(sys.modules[owner.__module__]))[field.name]
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            message = (
                f"the type {field.type!r} of option '{field.name}' of pass '{kind.name}' cannot be resolved: {error}"
            )
            raise UsageError(message) from error
        return cls(resolved, field.type, default, wanted)

    @property
    def required(self) -> bool:
        """Whether the option has no default."""
        return self.default is dataclasses.MISSING

    @property
    def is_tuple(self) -> bool:
        """Whether it takes a comma-separated value."""
        return any(typing.get_origin(member) is tuple or member is tuple for member in members(self.type))

    @property
    def optional(self) -> bool:
        """Whether it takes a bare ``none``."""
        return type(None) in members(self.type)


def choices(kind: Any) -> tuple[str, ...]:
    """Return the words that a type accepts, none where it is not a choice of a few."""
    return tuple(map(spell, typing.get_args(kind))) if typing.get_origin(kind) is Literal else ()


def describe(kind: Any) -> str:
    """Say what a type accepts, in words."""
    if words := choices(kind):
        return words[0] if len(words) == 1 else "one of " + ", ".join(words)
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list, each {describe(typing.get_args(kind)[0])}"
    kinds = members(kind)
    if len(kinds) > 1:
        return " or ".join(describe(member) for member in kinds)
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))


def read(parts: Sequence[Part], kind: Kind) -> Any:
    """Turn a written value into one of the type `kind`.

    Raises:
        ValueError: If it is not one.
    """
    if kind.optional and list(parts) == [Part("none")]:
        return None
    kinds = [member for member in members(kind.type) if member is not type(None)]
    if not kind.is_tuple:
        return _read_one(",".join(part.text for part in parts), kinds)
    wanted = next(member for member in kinds if typing.get_origin(member) is tuple or member is tuple)
    items = [] if list(parts) == [Part("")] else [part.text for part in parts]
    elements = typing.get_args(wanted) or (str, ...)
    if elements[-1] is Ellipsis:
        return tuple(_read_one(item, members(elements[0])) for item in items)
    if len(items) != len(elements):
        raise ValueError(f"{len(elements)} values wanted")
    return tuple(_read_one(item, members(element)) for item, element in zip(items, elements, strict=True))


def _read_one(text: str, members: Sequence[Any]) -> Any:
    """Read a scalar. An integer beside a float is told by its spelling, since 1 head is not a share of 1.0."""
    from pydantic import PydanticUserError, TypeAdapter

    if int in members and float in members:
        members = [member for member in members if member is not (float if _INTEGER.fullmatch(text) else int)]
    kind: Any = typing.Union[tuple(members)]  # noqa: UP007 - members is a list
    try:
        adapter = TypeAdapter(kind)
    except PydanticUserError as error:
        raise UsageError(
            f"an option cannot be of the type {kind}; use numbers, texts, paths or tuples of them"
        ) from error
    return adapter.validate_strings(text)


def spell(value: Any) -> str:
    """Write a value as a pipeline does; `read` with the right type gives it back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(spell(item) for item in value)
    if isinstance(value, str | PurePath):
        return _quote(value if isinstance(value, str) else value.as_posix())
    return str(value)


def _quote(text: str) -> str:
    if _BARE.fullmatch(text) and text != "none":
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
