"""Where passes come from: the files of the library, entry points of installed packages, and a user's own files."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Self

from ffc.compiler.passes import Pass
from ffc.errors import FfcError, InputError, MissingError, UsageError, nearest
from ffc.graph.dialect.function import FUNCTIONS, Function, declare

__all__ = ["GROUP", "PACKAGE", "Library", "builtin_folder"]

GROUP = "ffc.passes"
"""The entry-point group of passes that other packages bring."""

PACKAGE = "__init__.py"
"""The file that names a folder of modules: a pass that takes several files."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def builtin_folder() -> Path:
    """Return the folder of the built-in passes: ``ffc/passes`` where installed, else ``passes`` beside ``ffc``."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "passes"
    return installed if installed.is_dir() else package.parent / "passes"


class Library(Mapping[str, type[Pass]]):
    """All passes that can be named, by name.

    Attributes:
        files: What was added by file: ``file.py`` or ``file.py:Name``, seen from the current folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Make a library without passes; files that are added to it are seen from `folder`."""
        self.files: list[str] = []
        self._folder = folder
        self._passes: dict[str, type[Pass]] = {}
        self._origins: dict[str, str] = {}
        self._functions: dict[str, Function] = {}

    @classmethod
    def default(cls, plugins: Sequence[str] = (), folder: Path | None = None) -> Self:
        """Return the built-in passes, those of installed packages, and those of `plugins`.

        Args:
            plugins: ``file.py:Name`` for one pass, or ``file.py`` for all that the file defines; a pass that takes
                several files is a folder with an ``__init__.py``, which stands for it here.
            folder: From where such files are seen, those that a pipeline names too; None for the current folder.

        Raises:
            InputError: If a file is missing or cannot be loaded.
            MissingError: If a file imports what is not installed.
            UsageError: If two passes have the same name, or a file does not define what it should.
        """
        library = cls(folder)
        library.add_folder(builtin_folder())
        library.add_entry_points()
        for plugin in plugins:
            library.add_file(plugin)
        return library

    def __getitem__(self, name: str) -> type[Pass]:
        return self._passes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._passes)

    def __len__(self) -> int:
        return len(self._passes)

    def origin(self, name: str) -> str:
        """Say where the pass of that name comes from, in words."""
        return self._origins[name]

    def add_folder(self, folder: Path) -> None:
        """Add the passes of the files and folders in `folder`, those named ``_*`` left out."""
        files = [*folder.glob("[!_]*.py"), *folder.glob(f"[!_]*/{PACKAGE}")]
        for place, file in sorted((file.parent if file.name == PACKAGE else file, file) for file in files):
            for kind in _defined(_load(file, f"ffc.passes.{place.stem}")):
                self._add(kind, f"built in ({file.relative_to(folder.parent).as_posix()})")

    def add_entry_points(self) -> None:
        """Add the passes that installed packages declare as entry points."""
        for entry in importlib.metadata.entry_points(group=GROUP):
            package = entry.dist.name if entry.dist else "an unknown package"
            origin = f"entry point '{entry.name}' of {package}"
            try:
                kind = entry.load()
            except (Exception, SystemExit) as error:
                raise InputError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
            if not _is_pass(kind):
                raise InputError(f"{origin} is not a subclass of ffc.Pass with a name; it names '{entry.value}'")
            self._add(kind, origin)

    def add_file(self, text: str) -> list[type[Pass]]:
        """Add the pass ``file.py:Name``, or all passes of ``file.py``, and return what was added.

        Adding the same again changes nothing.

        Raises:
            InputError: If the file is missing or cannot be loaded.
            MissingError: If it imports what is not installed.
            UsageError: If it does not define the pass, or a pass has a name that is taken.
        """
        text = text if self._folder is None else str(self._folder / text)
        path, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
        if not path.endswith(".py"):
            raise UsageError(f"plugin {text!r} is not of the form file.py or file.py:Name")
        file = Path(path)
        if not file.is_file():
            raise InputError(f"the file {path!r} of pass {text!r} does not exist")
        # The digest in the module's name makes an unchanged file the same classes again, and an edited one new classes.
        found = {kind.__name__: kind for kind in _defined(_load(file, f"ffc_plugin_{_digest(file)}", as_it_is=True))}
        if not found:
            raise UsageError(f"{path!r} defines no pass, that is no subclass of ffc.Pass with a name")
        if name and name not in found:
            raise UsageError(f"{path!r} defines no pass {name!r}{nearest(name, found)}")
        wanted = [found[name]] if name else list(found.values())
        for kind in wanted:
            self._add(kind, f"{path}:{kind.__name__}")
        self.files.append(text)
        return wanted

    def _add(self, kind: type[Pass], origin: str) -> None:
        self._bring_functions(kind, origin)
        taken = self._passes.get(kind.name)
        if taken is kind:
            return
        if taken is not None:
            raise UsageError(f"two passes are named '{kind.name}': {self.origin(kind.name)} and {origin}; rename one")
        _validate(kind, origin)
        self._passes[kind.name] = kind
        self._origins[kind.name] = origin

    def _bring_functions(self, kind: type[Pass], origin: str) -> None:
        """Make the functions known that the file of a pass declares; another file may have declared others since."""
        for function in _functions(kind.__module__):
            taken = self._functions.setdefault(function.name, function)
            if taken is not function:
                other = sys.modules[taken.body.__module__].__file__
                raise UsageError(f"two functions are named '{function.name}', in {other} and {origin}; rename one")
            if FUNCTIONS.get(function.name) is not function:
                declare(function)


def _functions(home: str) -> Iterator[Function]:
    """Yield the functions that a module, or a module in its folder, declares."""
    for name, module in list(sys.modules.items()):
        if name == home or name.startswith(f"{home}."):
            functions = (each for each in vars(module).values() if isinstance(each, Function))
            yield from (each for each in functions if each.body.__module__ == name)


def _is_pass(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Pass) and not inspect.isabstract(kind) and hasattr(kind, "name")


def _defined(module: ModuleType) -> list[type[Pass]]:
    """Return the passes that a module defines itself, in the order it does."""
    return [kind for kind in vars(module).values() if _is_pass(kind) and kind.__module__ == module.__name__]


def _validate(kind: type[Pass], origin: str) -> None:
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name):
        raise UsageError(
            f"the name {kind.name!r} of the pass from {origin} is not in kebab-case, such as 'drop-tokens'"
        )
    if any(isinstance(value, dataclasses.Field) for value in vars(kind).values()):
        raise UsageError(
            f"the pass from {origin} has options but is no dataclass; decorate it with @dataclass(frozen=True)"
        )


def _digest(file: Path) -> str:
    """Return what tells the state of a file of passes, or of a folder of modules, from any other."""
    digest = hashlib.sha256(f"{file.resolve()}\n".encode())
    for part in _parts(file):
        digest.update(f"{part}\n".encode() + part.read_bytes())
    return digest.hexdigest()[:12]


def _parts(file: Path) -> list[Path]:
    """Return a file of passes, or all files of the folder that an ``__init__.py`` stands for."""
    return sorted(file.parent.glob("*.py")) if file.name == PACKAGE else [file]


class _AsItIsNow(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: bytecode cached by time and size may be that of the file before an edit."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _Modules(MetaPathFinder):
    """Finds the modules of one folder of a user's, each as it is now."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != self._package:
            return None
        files = (Path(each, f"{name}.py") for each in path or ())
        file = next((file for file in files if file.is_file()), None)
        return None if file is None else _spec(file, fullname, as_it_is=True)


def _spec(file: Path, name: str, as_it_is: bool) -> ModuleSpec | None:
    loader = _AsItIsNow(name, str(file)) if as_it_is else None
    folders = [str(file.parent)] if file.name == PACKAGE else None
    return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=folders)


def _load(file: Path, name: str, *, as_it_is: bool = False) -> ModuleType:
    """Load a file, or the folder that an ``__init__.py`` stands for, as the module `name`, or return it where it is."""
    loaded = sys.modules.get(name)
    path = file.resolve()
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = _spec(path, name, as_it_is)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up postponed annotations there
    finder = _Modules(name)
    if as_it_is:
        sys.meta_path.insert(0, finder)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[each]
        if isinstance(error, FfcError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _broken(file, error) from error
    finally:
        if as_it_is:
            sys.meta_path.remove(finder)
    return module


def _broken(file: Path, error: Exception | SystemExit) -> FfcError:
    """Say what is wrong with a file of passes."""
    if isinstance(error, ModuleNotFoundError):
        return MissingError(f"{file} needs the module '{error.name}', which is not installed")
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    own = {str(part.resolve()): part for part in _parts(file)}
    places = [(own[name], number) for name, number in frames if name in own]
    if isinstance(error, SyntaxError) and error.lineno:
        places.append((own.get(str(error.filename), file), error.lineno))
    place = f"{places[-1][0]}:{places[-1][1]}" if places else str(file)
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return InputError(f"{place} cannot be loaded: {type(error).__name__}: {reason}")
