"""Pipelines as text: ``prune{plan=p.json},fuse,int8{skip=head,attn_out cosine=0.98}`` to a list of passes and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ffc.compiler.library import Library
from ffc.compiler.option_values import OPTION, Kind, Part, choices, describe, read, spell
from ffc.compiler.passes import Pass
from ffc.errors import UsageError, nearest

__all__ = ["Options", "kinds", "parse", "unparse", "with_options"]

_PATH = re.compile(r"\.py(:[^:]*)?$")
_NEXT_OPTION = re.compile(r"[,;]\s*" + OPTION)
_VALUE = re.compile(r"[\s:=]*([^\s,;:={}\"']++)(?!\s*=)")
_ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Text:
    """A text that is read, and what to call it in errors."""

    text: str
    prefix: str = ""

    def fail(self, message: str, position: int, hint: str = "") -> NoReturn:
        """Raise a `UsageError` that points at `position`, counted from 0, and ends with `hint`."""
        raise UsageError(f"{message} at column {position + 1} of {self.prefix}{self.text!r}{hint}")

    def skip(self, position: int) -> int:
        """Return the position of the next character that is not white space."""
        while position < len(self.text) and self.text[position].isspace():
            position += 1
        return position

    def until(self, position: int, stops: str) -> int:
        """Return the position of the next character in `stops`, or the end."""
        while position < len(self.text) and self.text[position] not in stops:
            position += 1
        return position

    def at(self, position: int) -> str:
        """Return the character at `position`, or nothing at the end."""
        return self.text[position : position + 1]


@dataclass(frozen=True)
class Given:
    """One option as written: where it stands, where its value stands, and the parts of that."""

    source: Text
    column: int
    value_column: int
    parts: list[Part]


Options = dict[str, Given]

_SPACE = " \t\r\n"


def parse(text: str, library: Library, sets: Mapping[str, str] | Sequence[str] = ()) -> list[Pass]:
    """Read a pipeline.

    Args:
        text: Passes separated by commas, each with its options in braces, separated by spaces or commas: a comma before
            ``name=`` starts an option, any other stands within a list. ``./mine.py:Name`` names a pass by its file.
        library: Where the names are looked up.
        sets: More options as ``pass.option=value``, or as a mapping of ``pass.option`` to value. Each holds for every
            pass of that name and wins over the braces.

    Returns:
        The passes in order; none for an empty text.

    Raises:
        UsageError: If the text is malformed or names what there is not; the message points at the column.
    """
    source = Text(text)
    items = [(_lookup(source, name, column, library), options, column) for name, column, options in _items(source)]
    overrides = _read_sets(sets, [kind for kind, _, _ in items])
    return [
        _build(kind, {**options, **overrides.get(kind.name, {})}, source, column) for kind, options, column in items
    ]


def with_options(passes: Sequence[Pass], sets: Mapping[str, str] | Sequence[str]) -> list[Pass]:
    """Return passes with more options, as `parse` takes them.

    Raises:
        UsageError: If `sets` is malformed or names what there is not; the message points at the column.
    """
    overrides = _read_sets(sets, [type(item) for item in passes])
    return [_changed(item, overrides[item.name]) if item.name in overrides else item for item in passes]


def unparse(passes: Sequence[Pass]) -> str:
    """Write a pipeline in its canonical form: options in the order they are declared, defaults left out.

    A pass that was loaded from a file is written by its name, which the library that loaded it knows.
    """
    return ",".join(_unparse_pass(item) for item in passes)


def kinds(kind: type[Pass]) -> dict[str, Kind]:
    """Return the type of each option of a pass, in the order they are declared.

    Raises:
        UsageError: If an annotation cannot be resolved.
    """
    return {field.name: Kind.of(kind, field) for field in dataclasses.fields(kind) if field.init}


def _unparse_pass(item: Pass) -> str:
    fields = [field for field in dataclasses.fields(item) if field.init]
    given = [f"{field.name}={spell(getattr(item, field.name))}" for field in fields if not _is_default(item, field)]
    return f"{item.name}{{{' '.join(given)}}}" if given else item.name


def _is_default(item: Pass, field: dataclasses.Field[Any]) -> bool:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    value = getattr(item, field.name)
    return type(value) is type(default) and bool(value == default)


def _items(source: Text) -> list[tuple[str, int, Options]]:
    """Split a pipeline into the name, the column and the options of each pass."""
    items: list[tuple[str, int, Options]] = []
    position = source.skip(0)
    while position < len(source.text):
        end = source.until(position, ",{}")
        name = source.text[position:end].rstrip()
        if not name:
            character = source.at(end)
            source.fail("stray '}'" if character == "}" else f"a pass is missing before '{character}'", end)
        options: Options = {}
        column, position = position, end
        if source.at(position) == "{":
            options, position = _braces(source, position)
        items.append((name, column, options))
        position = _comma(source, source.skip(position))
    return items


def _comma(source: Text, position: int) -> int:
    """Step over the comma between two passes."""
    if position == len(source.text):
        return position
    if source.at(position) == "}":
        source.fail("stray '}'", position)
    if source.at(position) != ",":
        source.fail(f"',' is missing before '{source.at(position)}'", position)
    following = source.skip(position + 1)
    if following == len(source.text):
        source.fail("trailing ','", position)
    return following


def _braces(source: Text, opening: int) -> tuple[Options, int]:
    """Read the options from the brace at `opening` on, and return them with the position after the closing brace."""
    options: Options = {}
    position = source.skip(opening + 1)
    while source.at(position) != "}":
        if position == len(source.text):
            source.fail("unclosed '{'", opening)
        name, given, position = _option(source, position)
        if name in options:
            source.fail(f"option '{name}' is given twice, again", given.column)
        options[name] = given
        position = _between(source, source.skip(position))
    return options, position + 1


def _between(source: Text, position: int) -> int:
    """Step over the comma between two options, where there is one."""
    if source.at(position) != ",":
        return position
    if not _NEXT_OPTION.match(source.text, position):
        _stray_comma(source, position)
    return source.skip(position + 1)


def _stray_comma(source: Text, position: int) -> NoReturn:
    if source.at(source.skip(position + 1)) in {"", "}"}:
        source.fail("trailing ','", position)
    source.fail("misplaced ','", position, "; write a list without spaces, as in skip=a,b, and an option as name=value")


def _option(source: Text, start: int) -> tuple[str, Given, int]:
    end = source.until(start, _SPACE + "=,;:{}\"'")
    name, stop = source.text[start:end], source.at(end)
    if not name or stop in {"{", '"', "'"}:
        source.fail(f"misplaced {stop!r}", end)
    if stop != "=" and not name.isidentifier():
        source.fail(f"misplaced {name!r}", start, "; an option is written name=value")
    if stop != "=":
        value = _VALUE.match(source.text, end)
        hint = f"; write {name}={value[1] if value else '...'}"
        source.fail(f"'=' is missing after option '{name}'", start, hint)
    parts, position = _value(source, end + 1, _SPACE + "{}")
    if source.at(position) == "{":
        source.fail("misplaced '{'", position)
    return name, Given(source, start, end + 1, parts), position


def _value(source: Text, position: int, stops: str) -> tuple[list[Part], int]:
    """Read a value, parts separated by commas, up to one of `stops` or, where there are any, to the next option."""
    parts: list[Part] = []
    while True:
        part, position = _part(source, position, stops + ",")
        parts.append(part)
        if source.at(position) != "," or (stops and _NEXT_OPTION.match(source.text, position)):
            break
        position += 1
    if len(parts) > 1 and part == Part(""):
        _stray_comma(source, position - 1)
    return parts, position


def _part(source: Text, position: int, stops: str) -> tuple[Part, int]:
    if source.at(position) != '"':
        end = source.until(position, stops)
        if '"' in source.text[position:end]:
            source.fail("misplaced '\"'", source.text.index('"', position))
        semicolon = source.text.find(";", position, end)
        if "}" in stops and semicolon >= 0 and _NEXT_OPTION.match(source.text, semicolon):
            source.fail("misplaced ';'", semicolon, "; options are separated by spaces or commas")
        return Part(source.text[position:end]), end
    text, end = _quoted(source, position)
    if end < len(source.text) and source.at(end) not in stops:
        source.fail(f"misplaced {source.at(end)!r} after a quoted value", end)
    return Part(text, quoted=True), end


def _quoted(source: Text, opening: int) -> tuple[str, int]:
    """Read a quoted text and return it with the position after its closing quote."""
    characters: list[str] = []
    position = opening + 1
    while source.at(position) != '"':
        if source.at(position) == "\\":
            position += 1
            characters.append(_ESCAPES.get(source.at(position), source.at(position)))
        else:
            characters.append(source.at(position))
        if position >= len(source.text):
            source.fail("unclosed '\"'", opening)
        position += 1
    return "".join(characters), position + 1


def _lookup(source: Text, name: str, column: int, library: Library) -> type[Pass]:
    if _PATH.search(name):
        found = library.add_file(name)
        if name.endswith(".py"):
            source.fail(f"'{name}' does not say which pass", column, f"; write '{name}:{found[0].__name__}'")
        return found[0]
    if gap := re.search(r"\s+(?=\S)", name):
        source.fail("',' is missing", column + gap.end())
    if name not in library:
        source.fail(f"unknown pass {name!r}", column, _advice(name) or nearest(name, library.keys()))
    return library[name]


def _advice(name: str) -> str:
    """Say how pipelines are written where what stands for a name shows that someone took it otherwise."""
    if re.search(r"[(\[:=]", name):
        return "; options stand in braces, in quotes for a shell, as in 'int8{skip=head}'"
    return "; passes are separated by commas" if re.search(r"[;|+>]", name) else ""


def _read_sets(sets: Mapping[str, str] | Sequence[str], used: Sequence[type[Pass]]) -> dict[str, Options]:
    given = [sets] if isinstance(sets, str) else sets
    texts = [f"{key}={value}" for key, value in given.items()] if isinstance(given, Mapping) else list(given)
    overrides: dict[str, Options] = {}
    for text in texts:
        source = Text(text, "" if isinstance(sets, Mapping) else "--set ")
        end = source.until(0, "=")
        dot = source.until(0, "=.")
        name, key = text[:dot], text[dot + 1 : end]
        if end == len(text) or dot >= end or not name or not key:
            raise UsageError(f"--set {text!r} is not of the form pass.option=value, such as int8.skip=head")
        if name not in {kind.name for kind in used}:
            source.fail(f"pass '{name}' is not in the pipeline", 0, nearest(name, {kind.name for kind in used}))
        if key in overrides.get(name, {}):
            source.fail(f"option '{key}' of pass '{name}' is set twice, again", dot + 1)
        parts, _ = _value(source, end + 1, "")
        overrides.setdefault(name, {})[key] = Given(source, dot + 1, end + 1, parts)
    return overrides


def _build(kind: type[Pass], options: Options, source: Text, column: int) -> Pass:
    values = _values(kind, options)
    for name, wanted in kinds(kind).items():
        if wanted.required and name not in options:
            source.fail(f"pass '{kind.name}' needs option '{name}'", column, f"; write {kind.name}{{{name}=...}}")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        source.fail(f"pass '{kind.name}'", column, f": {error}")


def _changed(item: Pass, options: Options) -> Pass:
    values: dict[str, Any] = _values(type(item), options)
    try:
        return dataclasses.replace(item, **values)
    except (ValueError, TypeError) as error:
        given = next(iter(options.values()))
        given.source.fail(f"pass '{item.name}'", given.column, f": {error}")


def _values(kind: type[Pass], options: Options) -> dict[str, Any]:
    known = kinds(kind)
    for name, given in options.items():
        if name not in known:
            hint = nearest(name, known)
            if given.source.text[: given.column].rstrip().endswith(","):
                hint += "; quote a value that holds such a comma"
            given.source.fail(f"unknown option '{name}' of pass '{kind.name}'", given.column, hint)
    return {name: _convert(kind.name, name, known[name], given) for name, given in options.items()}


def _convert(pass_name: str, name: str, wanted: Kind, given: Given) -> Any:
    where = f"option '{name}' of pass '{pass_name}'"
    if given.parts == [Part("")] and not wanted.is_tuple:
        given.source.fail(f"{where} has no value", given.value_column)
    got, words = ",".join(part.text for part in given.parts), choices(wanted.type)
    try:
        value = read(given.parts, wanted)
    except ValueError:
        hint = nearest(got, words) if words else f"; wanted: {describe(wanted.type)}"
        given.source.fail(f"{where} is {got!r}", given.value_column, hint)
    if value is not None and not wanted.wanted.fits(value):
        given.source.fail(f"{where} is {got!r}", given.value_column, f"; wanted: {wanted.wanted.words}")
    return value
