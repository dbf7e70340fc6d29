"""Recipes: what to compile, and how, as a TOML file or the table ``[tool.ffc]`` of a ``pyproject.toml``."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ffc.compiler import pipeline, render, spec
from ffc.compiler.base import Pass
from ffc.compiler.library import Library
from ffc.compiler.values import spell
from ffc.errors import InputError, UsageError, nearest
from ffc.graph import files, publish

__all__ = ["Recipe", "compile", "find", "for_model", "load"]

_PROJECT = "pyproject.toml"
_TABLE = ("tool", "ffc")


@dataclass(frozen=True)
class Recipe:
    """A compile, ready to run: paths are relative to the current folder, whatever folder the recipe lies in.

    Attributes:
        source: What errors call it; empty where there is no file.
        model: The model to compile, or None if that is said elsewhere.
        out: The file to write; None for ``<stem>.ffc.onnx`` beside the model.
        passes: The pipeline, options included.
        sets: Further options, as ``pass.option=value``.
        target: What to lower to.
        data: Rows of the user's own to prove on, or None.
        reports: Where to write the report; the suffix says in which form.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
    """

    source: str = ""
    model: Path | None = None
    out: Path | None = None
    passes: str = "fuse,int8"
    sets: tuple[str, ...] = ()
    target: str = "cpu"
    data: Path | None = None
    reports: tuple[Path, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def output(self) -> Path | None:
        """The file to write, the default filled in; None without a model."""
        if self.out is not None or self.model is None:
            return self.out
        return self.model.with_name(f"{self.model.stem}.ffc.onnx")


def load(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file. Its paths are relative to its folder.

    Raises:
        InputError: If the file is missing or not TOML, or a file of passes that it names cannot be loaded.
        UsageError: If a key is unknown or of the wrong type, or the pipeline is malformed; the message names file and,
            where it can, line.
    """
    path = Path(path)
    text = _text(path)
    return _read(_File(path, text, ()), _parse(path, text))


def find(folder: str | os.PathLike[str] = ".") -> Recipe | None:
    """Read the recipe of a project: ``[tool.ffc]`` of the nearest ``pyproject.toml`` with one, from `folder` upwards.

    Returns:
        The recipe, or None if there is none.

    Raises:
        InputError: If that file is not TOML.
        UsageError: As `load`.
    """
    start = Path(folder).resolve()
    for each in (start, *start.parents):
        path = each / _PROJECT
        if not path.is_file():
            continue
        shown = Path(os.path.relpath(path))
        text = _text(shown)
        if "ffc" not in text:  # so that a project's broken file is no concern of those who do not use it
            continue
        tools = _parse(shown, text).get("tool")
        if isinstance(tools, dict) and "ffc" in tools:
            return _read(_File(shown, text, _TABLE), tools["ffc"])
    return None


def for_model(recipe: Recipe, model: Path) -> Recipe:
    """Return `recipe` for another model; output and reports that it names beside a model are for that one alone."""
    if recipe.model is None or recipe.model.resolve() == model.resolve():
        return replace(recipe, model=model)
    return replace(recipe, model=model, out=None, reports=())


def compile(recipe: Recipe, *, progress: Callable[[str], None] | None = None) -> pipeline.Result:
    """Compile as a recipe says, and write the model and the reports.

    Args:
        recipe: What to do.
        progress: Called with a line at every step.

    Raises:
        UsageError: If it names no model, or an output or report that cannot be written; and as `ffc.compile` does.
    """
    model, out = recipe.model, recipe.output
    if model is None or out is None:
        raise UsageError(f'{recipe.source or "the recipe"} names no model; add one, such as model = "model.onnx"')
    _check_output(model, out)
    outputs = [out, *recipe.reports]
    publish.check_apart(outputs, [*files.parts(model, outputs), *([recipe.data] if recipe.data else [])])
    for path in recipe.reports:
        render.check_path(path)
    result = pipeline.compile(
        model,
        recipe.passes,
        out=out,
        data=recipe.data,
        target=recipe.target,
        sets=recipe.sets,
        plugins=recipe.plugins,
        progress=progress,
    )
    for path in recipe.reports:
        render.write(result.report, path)
    return result


def _check_output(model: Path, out: Path) -> None:
    """Refuse, before any work, an output that would destroy the input or cannot be written."""
    if out.resolve() == model.resolve() or (out.exists() and model.exists() and out.samefile(model)):
        raise UsageError(f"the output '{out}' is the input; name another file with -o")
    if out.is_dir():
        raise UsageError(f"the output '{out}' is a folder; name a file with -o")
    if not out.parent.is_dir():
        raise UsageError(f"the folder '{out.parent}' of the output does not exist; create it first")


# The file


@dataclass(frozen=True)
class _File:
    """A TOML file, or one table of it.

    Attributes:
        path: The file.
        text: What it holds.
        table: The table that is the recipe; empty for all of it.
    """

    path: Path
    text: str
    table: tuple[str, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"[{'.'.join(self.table)}] of {self.path}" if self.table else str(self.path)

    def fail(self, key: Sequence[str], message: str) -> NoReturn:
        """Raise a `UsageError` that points at `key`."""
        line = next((at for at, found in _keys(self.text) if found == (*self.table, *key)), None)
        raise UsageError(f"{self.path}{f':{line}' if line else ''}: {message}")


_Text = Annotated[str, Field(min_length=1)]
_Scalar = bool | int | float | str
_PATH = "a path"
_PATHS = "a path or a list of paths"


class _Keys(BaseModel):
    """The keys of a recipe, as written."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    model: _Text | None = Field(None, description=_PATH)
    out: _Text | None = Field(None, description=_PATH)
    passes: str | list[str] = Field(
        Recipe.passes, description="a pipeline such as 'fuse,int8', or a list of its passes"
    )
    options: dict[str, dict[str, _Scalar | list[_Scalar]]] = Field(
        {}, description="a table for each pass with options, such as [options.int8]"
    )
    target: str = Field(Recipe.target, description="the name of a target")
    data: _Text | None = Field(None, description=_PATH)
    report: _Text | list[_Text] = Field([], description=_PATHS)
    plugins: _Text | list[_Text] = Field([], description=_PATHS)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {path} is not TOML: it is not text in UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
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


def _read(file: _File, data: Any) -> Recipe:
    """Turn what a file holds into a recipe: checked, its paths seen from the current folder."""
    if not isinstance(data, dict):
        file.fail((), f"'{'.'.join(file.table)}' is {data!r}, wanted a table")
    try:
        keys = _Keys.model_validate(data)
    except ValidationError as error:
        _fail(file, error)
    folder = file.path.parent
    plugins = [_in_folder(folder, plugin) for plugin in _listed(keys.plugins)]
    passes = keys.passes if isinstance(keys.passes, str) else ",".join(keys.passes)
    options = {
        f"{name}.{option}": _spelled(value) for name, table in keys.options.items() for option, value in table.items()
    }
    try:
        library = _Beside(Library.default(plugins), folder)
        asked = [_moved(item, folder) for item in spec.parse(passes, library, options)]
    except UsageError as error:
        raise UsageError(f"{file.name}: {error}") from error
    return Recipe(
        source=file.name,
        model=folder / keys.model if keys.model else None,
        out=folder / keys.out if keys.out else None,
        passes=spec.unparse(asked),
        target=keys.target,
        data=folder / keys.data if keys.data else None,
        reports=tuple(folder / path for path in _listed(keys.report)),
        plugins=(*plugins, *library.files),
    )


def _fail(file: _File, error: ValidationError) -> NoReturn:
    """Say in one line which key is wrong."""
    first = error.errors(include_url=False)[0]
    key = tuple(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        file.fail(key, f"unknown key '{key[-1]}'{nearest(key[-1], _Keys.model_fields)}")
    wanted = _Keys.model_fields[key[0]].description
    if key[0] == "options" and len(key) > 2:
        key, wanted = key[:3], "a number, a text, true or false, or a list of these"
    else:
        key = key[:1]
    value: Any = first["input"]
    file.fail(key, f"'{'.'.join(key)}' is {value!r:.60}, wanted {wanted}")


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _in_folder(folder: Path, plugin: str) -> str:
    return str(folder / plugin)


def _spelled(value: _Scalar | list[_Scalar]) -> str:
    """Write an option as ``--set`` takes it; a text stands there as it is."""
    return value if isinstance(value, str) else spell(value)


def _moved(item: Pass, folder: Path) -> Pass:
    """Return a pass whose paths, given relative to `folder`, are seen from the current one."""
    paths: dict[str, Any] = {
        field.name: folder / value
        for field in dataclasses.fields(item)
        if field.init and isinstance(value := getattr(item, field.name), Path)
    }
    return replace(item, **paths)


class _Beside:
    """A library to which the files that a pipeline names are added from `folder`; it remembers which."""

    def __init__(self, library: Library, folder: Path) -> None:
        self.files: list[str] = []
        self._library = library
        self._folder = folder

    def __getitem__(self, name: str) -> type[Pass]:
        return self._library[name]

    def __contains__(self, name: object) -> bool:
        return name in self._library

    def keys(self) -> Any:
        return self._library.keys()

    def add_file(self, text: str) -> list[type[Pass]]:
        self.files.append(_in_folder(self._folder, text))
        return self._library.add_file(self.files[-1])
