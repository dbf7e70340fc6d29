"""Settings: fields of frozen dataclasses that say what they are for and what is wanted of them, and hold to it."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffc.errors import UsageError, nearest

__all__ = [
    "Setting", "SettingError", "Wanted", "changed", "check", "fields", "members", "own_words", "refused", "setting",
    "types_of",
]  # fmt: skip


class SettingError(UsageError):
    """A setting that is not what is wanted, or settings that contradict each other.

    Attributes:
        names: The settings that the text has places for.
        at: The one at fault; empty where it is all of them together.
    """

    def __init__(self, text: str, *names: str, at: str = "") -> None:
        """Keep a text and the settings that it names, such as ``leave {} out`` and ``heads``; without any it is all."""
        super().__init__(text)
        self.names = names
        self.at = at

    def __str__(self) -> str:
        return self.spelled(str)

    def spelled(self, spell: Callable[[str], str]) -> str:
        """Return the message with each setting named as `spell` says, such as ``--heads`` for an option."""
        text = str(self.args[0])
        return text.format(*map(spell, self.names)) if self.names else text


@dataclass(frozen=True)
class Wanted:
    """What a value must be besides of the type of its field.

    Attributes:
        words: That and the type, for messages.
        fits: Whether a value of the type is so.
    """

    words: str = ""
    fits: Callable[[Any], bool] = lambda value: True


@dataclass(frozen=True)
class Setting:
    """What is said of a field besides its type and default.

    Attributes:
        wanted: What it must be.
        help: What it does, for the help of a command; empty where no command has it.
        option: The name of the option without dashes; empty for that of the field.
        metavar: What stands for the value in the help.
        repeated: Whether an option of several texts is given several times; otherwise they stand between commas.
        entries: What is wanted of the entries of its tables, where that is something else.
    """

    wanted: Wanted
    help: str = ""
    option: str = ""
    metavar: str | None = None
    repeated: bool = False
    entries: Wanted | None = None


def setting(
    wanted: Wanted,
    help: str = "",
    *,
    default: Any = dataclasses.MISSING,
    factory: Any = dataclasses.MISSING,
    **more: Any,
) -> Any:
    """Declare a field of a frozen dataclass as a setting.

    Args:
        wanted: What it must be.
        help: What it does, for the help of a command.
        default: Its value when not given.
        factory: Makes that value instead; without either the setting is required.
        **more: Other attributes of `Setting`.
    """
    said = {"setting": Setting(wanted, help, **more)}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=said)
    return dataclasses.field(default=default, metadata=said)


def fields(kind: Any) -> dict[str, tuple[dataclasses.Field[Any], Setting]]:
    """Return the settings of a dataclass by name, in the order in which they are declared."""
    return {each.name: (each, each.metadata["setting"]) for each in dataclasses.fields(kind) if each.metadata}


def types_of(kind: Any) -> Mapping[str, Any]:
    """Return the type of each field of a dataclass."""
    return _types_of(kind)


@functools.cache
def _types_of(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)


def own_words(hint: Any) -> tuple[Any, ...]:
    """Return the words of a type that is a choice of a few, or a list of such choices; none where it is neither."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    inner = typing.get_args(hint) if typing.get_origin(hint) is Sequence else members(hint)
    return tuple(word for each in inner if each is not hint for word in own_words(each))


def check(settings: Any) -> None:
    """Hold the settings of a dataclass to what is wanted of each.

    Raises:
        SettingError: If one is something else.
    """
    hints = types_of(type(settings))
    for name, (_, said) in fields(settings).items():
        if reason := refused(getattr(settings, name), hints[name], said):
            raise SettingError("{} is " + _literal(reason), name, at=name)


def refused(value: Any, hint: Any, said: Setting) -> str:
    """Return what a value is and what is wanted in its place; nothing where it is as wanted."""
    if _is_a(value, hint) and (value is None or said.wanted.fits(value)):
        return ""
    words = own_words(hint)
    parts = value if isinstance(value, list | tuple) else [value]
    if stranger := next((part for part in parts if part not in words), None) if words else None:
        return f"{value!r:.60}{nearest(str(stranger), words)}"
    return f"{value!r:.60}, wanted {said.wanted.words}"


def changed(settings: Any) -> dict[str, Any]:
    """Return the settings of a dataclass that are not as by default, by name."""
    found = {name: (getattr(settings, name), field) for name, (field, _) in fields(settings).items()}
    return {name: value for name, (value, field) in found.items() if value != field.default}


def _literal(text: str) -> str:
    """Return a text that has places for no settings as `SettingError` takes it."""
    return text.replace("{", "{{").replace("}", "}}")


def _is_a(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type as TOML has it: whole numbers are numbers, truth values are none."""
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(_is_a(value, each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is Sequence or origin is tuple:
        return isinstance(value, list | tuple) and all(_is_a(item, typing.get_args(hint)[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_is_a(item, typing.get_args(hint)[1]) for item in value.values())
    if hint in (int, float):
        kinds = (int, float) if hint is float else int
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    return hint is Any or isinstance(value, hint)
