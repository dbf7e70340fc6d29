"""Recipes: a model and the passes over it, as a TOML file or the table ``[tool.ffc]`` of a ``pyproject.toml``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ffc import folders
from ffc.compiler import chain, pipeline, syntax
from ffc.compiler.library import Library
from ffc.compiler.option_values import spell
from ffc.compiler.passes import Pass
from ffc.compiler.proof.rows import of_files
from ffc.compiler.reports import writing
from ffc.errors import UsageError
from ffc.folders import places
from ffc.folders.places import Place
from ffc.graph import files
from ffc.graph.files import targets
from ffc.graph.files.destination import named
from ffc.recipe.file import File, parse, projects, read_text, table_of
from ffc.rows.text_rows import is_text
from ffc.settings import packages
from ffc.settings.data import LimitedTexts, Texts
from ffc.settings.setting import Wanted, check, setting
from ffc.settings.wanted import PATH, PATHS

__all__ = [
    "CompileKeys", "Recipe", "changed", "compile", "find", "inputs", "listed", "load", "moved", "of_keys", "paths_of",
]  # fmt: skip

_TABLE = ("tool", "ffc")
_OF_A_STUDY = {"task", "teacher", "students", "plans", "choose"}
"""Tables that no recipe has, and a study (`ffc.study.study`) does."""
_PASSES = "fuse,int8"


def _default() -> tuple[Pass, ...]:
    return tuple(syntax.parse(_PASSES, Library.default()))


@dataclass(frozen=True)
class Recipe:
    """A compile, ready to run: paths are relative to the current folder, whatever folder the recipe lies in.

    Attributes:
        source: What errors call it; empty where there is no file.
        model: The model to compile, or None if that is said elsewhere.
        out: The file or folder to write, ``-`` for standard output; None for ``<stem>.ffc.onnx`` beside the model, or
            ``<name>.ffc`` for a folder.
        folder: Whether `out` was named as a folder, by a ``/`` at its end.
        passes: The pipeline.
        target: What to lower to.
        data: Files with rows of the user's own to prove on: text, or arrays, of which several are one whole feed each.
        text: Of rows of text, the columns; as `ffc.TextRows` has it.
        tokenizer: Of rows of text, the tokenizer: a path, or ``package:NAME``.
        max_length: Of rows of text, tokens a row at most.
        rows: Of rows of text, how many to take at most.
        reports: Where to write the report; the suffix says in which form.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``, where these and what they need come from.
    """

    source: str = ""
    model: Path | None = None
    out: Path | None = None
    folder: bool = False
    passes: tuple[Pass, ...] = field(default_factory=_default)
    target: str = "cpu"
    data: tuple[Path, ...] = ()
    text: tuple[str, ...] = ()
    tokenizer: str | Path | None = None
    max_length: int | None = None
    rows: int | None = None
    reports: tuple[Path, ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def place(self) -> Place | None:
        """Where the model goes, the default filled in; None without a model."""
        if self.model is None:
            return None
        return places.place(f"{self.out}/" if self.folder else self.out, self.model)

    @property
    def output(self) -> Path | None:
        """The file to write, the default filled in; None without a model."""
        return None if self.place is None else self.place.model


def load(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file. Its paths are relative to its folder.

    Raises:
        InputError: If the file is missing or not TOML, or a file of passes that it names cannot be loaded.
        UsageError: If a key is unknown or of the wrong type, or the pipeline is malformed; the message names file and,
            where it can, line.
    """
    path = Path(path)
    text = read_text(path)
    data = parse(path, text)
    if study := sorted(_OF_A_STUDY & data.keys()):
        raise UsageError(
            f"{path} has [{study[0]}], so there is a model to make first; `ffc study run {path}` does it all"
        )
    return _read(File(path, text), data)


_OF_OTHERS = frozenset(("check",))
"""Tables of ``[tool.ffc]`` that say nothing of a compile."""


def find(folder: str | os.PathLike[str] = ".") -> Recipe | None:
    """Read the recipe of a project: ``[tool.ffc]`` of the nearest ``pyproject.toml`` with one, from `folder` upwards.

    A table in it that is for checks alone is none.

    Returns:
        The recipe, or None if there is none.

    Raises:
        InputError: If that file is not TOML.
        UsageError: As `load`.
    """
    for path in projects(folder):
        if found := table_of(path, _TABLE):
            file, table = found
            if keys := {key: value for key, value in table.items() if key not in _OF_OTHERS}:
                return _read(file, keys)
    return None


def changed(
    recipe: Recipe,
    *,
    model: Path | None = None,
    out: str | Path | None = None,
    passes: str | None = None,
    sets: Sequence[str] = (),
    plugins: Sequence[str] = (),
    **more: Any,
) -> Recipe:
    """Return `recipe` with what is given in place of what it says.

    Args:
        recipe: The recipe.
        model: Another model; output and reports that the recipe names beside its own are for that one alone.
        out: Another output; a ``/`` at its end says that it is a folder.
        passes: The pipeline, as text.
        sets: Further options of it, as ``pass.option=value``.
        plugins: Files with passes, besides those of the recipe.
        **more: Fields of a `Recipe`.

    Raises:
        InputError: If a file of passes cannot be loaded.
        UsageError: If the pipeline is malformed.
    """
    if "data" in more and not any(map(is_text, more["data"])):  # how rows of text are read goes with them
        recipe = replace(recipe, text=(), tokenizer=None, max_length=None, rows=None)
    if model is not None and recipe.model is not None and recipe.model.resolve() != model.resolve():
        recipe = replace(recipe, out=None, folder=False, reports=())
    if out is not None:
        recipe = replace(recipe, out=named(out), folder=places.says_folder(out))
    files = (*recipe.plugins, *plugins)
    library = Library.default(files)
    asked = chain.as_passes(recipe.passes if passes is None else passes, library, sets)
    return replace(recipe, model=model or recipe.model, passes=tuple(asked), plugins=files, **more)


def compile(recipe: Recipe, *, progress: Callable[[str], None] | None = None) -> pipeline.Result:
    """Compile as a recipe says, and write the model and the reports; `progress` is called with a line at every step.

    Raises:
        UsageError: If it names no model, or an output or report that cannot be written; and as `ffc.compile` does.
    """
    model, place = recipe.model, recipe.place
    if model is None or place is None:
        raise UsageError(f'{recipe.source or "the recipe"} names no model; add one, such as model = "model.onnx"')
    for out, kind in ((place.path, "folder" if place.folder else "file"), (place.model, "file")):
        if targets.same(out, model.absolute()):  # a model called - is a file
            raise UsageError(f"the output '{out}' is the input; name another {kind} with -o")
    place.check()
    outputs = [place.model, *recipe.reports]
    targets.check_apart(outputs, [*files.parts(model, outputs), *recipe.data])
    for path in recipe.reports:
        writing.check_path(path)
    result = folders.compile(
        model,
        recipe.passes,
        out=f"{place.path}/" if place.folder else place.path,
        data=of_files(recipe.data, recipe.text, recipe.tokenizer, recipe.max_length, recipe.rows),
        target=recipe.target,
        plugins=recipe.plugins,
        progress=progress,
    )
    for path in recipe.reports:
        writing.write(result.report, path)
    return result


def inputs(recipe: Recipe) -> dict[str, Path]:
    """Return the files besides its model that a compile reads, by a word: passes, rows, and what options name."""
    found = {f"plugin {plugin}": _file_of(plugin) for plugin in recipe.plugins}
    for number, path in enumerate(recipe.data, 1):
        found[f"data {number}" if number > 1 else "data"] = path
    if isinstance(recipe.tokenizer, Path):
        found["tokenizer"] = recipe.tokenizer
    for number, item in enumerate(recipe.passes, 1):
        found |= {f"pass {number}, {item.name}.{name}": path for name, path in paths_of(item).items()}
    return found


def _file_of(plugin: str) -> Path:
    """Return the file of ``file.py`` or ``file.py:Name``."""
    path, found, _ = plugin.partition(".py:")
    return Path(f"{path}.py" if found else plugin)


def paths_of(item: Pass) -> dict[str, Path]:
    """Return the options of a pass that are paths."""
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item) if field.init}
    return {name: value for name, value in values.items() if isinstance(value, Path)}


def moved(item: Pass, move: Callable[[Path], Path]) -> Pass:
    """Return a pass whose paths are seen from elsewhere."""
    paths: dict[str, Any] = {name: move(path) for name, path in paths_of(item).items()}
    return replace(item, **paths)


_Scalar = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class CompileKeys(Texts):
    """The keys that say how to compile, whatever the model."""

    passes: str | Sequence[str] = setting(
        Wanted("a pipeline such as 'fuse,int8', or a list of its passes"), default=_PASSES
    )
    options: Mapping[str, Mapping[str, _Scalar | Sequence[_Scalar]]] = setting(
        Wanted("a table for each pass with options, such as [options.int8]"),
        entries=Wanted("a number, a text, true or false, or a list of these"),
        factory=dict,
    )
    target: str = setting(Wanted("the name of a target"), default=Recipe.target)
    data: str | Sequence[str] = setting(PATHS, default=())
    plugins: str | Sequence[str] = setting(PATHS, default=())

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class _Keys(CompileKeys, LimitedTexts):
    """The keys of a recipe, as written."""

    model: str | None = setting(PATH, default=None)
    out: str | None = setting(PATH, default=None)
    report: str | Sequence[str] = setting(PATHS, default=())


def _read(file: File, data: Mapping[str, Any]) -> Recipe:
    """Turn what a file holds into a recipe: checked, its paths seen from the current folder."""
    keys = file.read(_Keys, data)
    folder = file.path.parent
    return replace(
        of_keys(file, keys),
        max_length=keys.max_length,
        rows=keys.rows,
        model=_model(folder, keys.model),
        out=named(keys.out, folder) if keys.out else None,
        folder=(keys.out or "").endswith("/"),
        reports=tuple(named(path, folder) for path in listed(keys.report)),
    )


def _model(folder: Path, text: str | None) -> Path | None:
    """Return the path of a model; what names no path, a package or a model on the hub, stays as it is."""
    if not text:
        return None
    path = folder / text
    return Path(text) if not path.exists() and places.is_saved(text) else path


def of_keys(file: File, keys: CompileKeys) -> Recipe:
    """Return the recipe that `keys` of a file state, its paths seen from the current folder.

    Raises:
        InputError: If a file of passes cannot be loaded.
        UsageError: If the pipeline is malformed.
    """
    folder = file.path.parent
    passes = keys.passes if isinstance(keys.passes, str) else ",".join(keys.passes)
    options = {
        f"{name}.{option}": _spelled(value) for name, table in keys.options.items() for option, value in table.items()
    }
    try:
        library = Library.default(listed(keys.plugins), folder)
        asked = tuple(moved(item, folder.joinpath) for item in syntax.parse(passes, library, options))
        chain.with_lower((), Library.default(), keys.target)  # which refuses an unknown target
    except UsageError as error:
        raise UsageError(f"{file.name}: {error}") from error
    return Recipe(
        source=file.name,
        passes=asked,
        target=keys.target,
        data=tuple(folder / path for path in listed(keys.data)),
        text=tuple(listed(keys.text)),
        tokenizer=_tokenizer(folder, keys.tokenizer),
        plugins=tuple(library.files),
    )


def _tokenizer(folder: Path, named: str | Path | None) -> str | Path | None:
    """Return what a file names, a path seen from the current folder; a package is found from anywhere."""
    return named if named is None or str(named).startswith(packages.PREFIX) else folder / named


def listed(value: str | Sequence[str]) -> list[str]:
    """Return what is written as one text or as a list of them as a list."""
    return [value] if isinstance(value, str) else list(value)


def _spelled(value: _Scalar | Sequence[_Scalar]) -> str:
    """Write an option as ``--set`` takes it; a text stands there as it is."""
    return value if isinstance(value, str) else spell(value)
