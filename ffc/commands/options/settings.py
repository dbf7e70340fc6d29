"""Options made from settings, and settings made from the options that were given."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ffc.errors import UsageError
from ffc.settings.setting import Setting, SettingError, fields, members, own_words, refused, types_of

__all__ = ["made", "names", "number", "options"]

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(kind: type, *, but: Container[str] = (), required: Container[str] = ()) -> Callable[[_Command], _Command]:
    """Return what adds an option to a command for each setting of a dataclass that has a help text.

    Args:
        kind: The dataclass.
        but: Settings that the command has no option for.
        required: Those that must be given.
    """

    def add(command: _Command) -> _Command:
        for name in reversed(names(kind)):
            if name not in but:
                command = _option(kind, name, required=name in required)(command)
        return command

    return add


def names(kind: type) -> list[str]:
    """Return the names of the settings that `options` adds."""
    return [name for name, (_, said) in fields(kind).items() if said.help]


def made(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """Return a dataclass of settings, as the options that were given say.

    Args:
        kind: The dataclass.
        given: The options of the command by name; those of other kinds, and those that are None, are left alone.

    Raises:
        UsageError: If they contradict each other; the message names options.
    """
    known = fields(kind)
    values = {name: given[name] for name in known if given.get(name) is not None}
    try:
        return kind(**values)
    except SettingError as error:
        raise UsageError(error.spelled(lambda name: _dashed(name, known[name][1]))) from error


def number(text: str, hint: Any, said: Setting) -> Any:
    """Read a text as a type of settings, of which an integer beside a number is told by its spelling.

    Raises:
        ValueError: If it is not what is wanted; the message says what that is.
    """
    kinds = members(hint)
    value: Any = text
    try:
        if int in kinds and (float not in kinds or text.isdecimal()):
            value = int(text)
        elif float in kinds:
            value = float(text)
    except ValueError:
        raise ValueError(f"{text!r:.60}, wanted {said.wanted.words}") from None
    if refused(value, hint, said):
        raise ValueError(f"{text!r:.60}, wanted {said.wanted.words}")
    return value


if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # before click 8.4 it took no parameters


class _Value(_Type):
    """A value of the type of a setting, in its range."""

    name = "value"

    def __init__(self, hint: Any, said: Setting) -> None:
        self._hint, self._said = hint, said

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):  # a default
            return value
        if Path in members(self._hint):
            return Path(value)
        if any(typing.get_origin(each) is Sequence for each in members(self._hint)) and not self._said.repeated:
            return tuple(part.strip() for part in value.split(","))
        try:
            return number(value, self._hint, self._said)
        except ValueError as error:
            self.fail(str(error), parameter, context)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        kinds = members(self._hint)
        return "FLOAT" if float in kinds else "INTEGER" if int in kinds else "TEXT"


def _option(kind: type, name: str, *, required: bool) -> Callable[[_Command], _Command]:
    field, said = fields(kind)[name]
    hint = types_of(kind)[name]
    more: dict[str, Any] = {"help": said.help, "metavar": said.metavar}
    if hint is bool:
        return click.option(_dashed(name, said), name, is_flag=True, help=said.help)
    if said.repeated:
        return click.option(_dashed(name, said), name, multiple=True, type=_Value(hint, said), **more)
    if field.default not in (None, (), dataclasses.MISSING):
        more |= {"default": field.default, "show_default": True}
    words = own_words(hint)
    return click.option(
        _dashed(name, said),
        name,
        type=click.Choice(words) if words else _Value(hint, said),
        required=required,
        **more,
    )


def _dashed(name: str, said: Setting) -> str:
    return f"--{said.option or name.replace('_', '-')}"
