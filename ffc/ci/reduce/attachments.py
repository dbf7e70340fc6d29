"""Files that a reproducer brings along: those with passes, those that options name, and those of a command."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ffc.compiler import syntax
from ffc.compiler.chain import chain
from ffc.compiler.library import GROUP, PACKAGE, Library, builtin_folder
from ffc.compiler.passes import Pass
from ffc.errors import UsageError
from ffc.recipe.compiling import paths_of

__all__ = ["Attachments"]

_OWN = ("README.md", "inputs.npz", "model.onnx", "reproduce.py")
_MOST = 1 << 26
"""Bytes of a file that a command names and that is brought along."""


@dataclass
class Attachments:
    """Files and folders by the names that they get in the folder of a reproducer, none of them twice."""

    files: dict[str, Path] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    """What a command names and the folder lacks."""

    def add(self, file: Path) -> str:
        """Bring a file or a folder along and return its name there."""
        file = file.resolve()
        name, count = file.name, 1
        while name in _OWN or self.files.get(name, file) != file:
            count += 1
            name = f"{file.stem}{count}{file.suffix}"
        self.files[name] = file
        return name

    def unplaced(self, message: str) -> str:
        """Return a message with the names that the files get in place of their paths."""
        for name, file in self.files.items():
            message = message.replace(str(file), name)
        return message

    def copy(self, folder: Path) -> None:
        """Copy all of them into a folder."""
        for name, file in self.files.items():
            if file.is_dir():
                shutil.copytree(file, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(file, folder / name)

    def plugins(self, passes: Sequence[Pass], library: Library) -> list[str]:
        """Bring the files along that define passes of a pipeline or what those need; return them as plugins there."""
        return [f"{self._home(file)}:{name}" for file, name in dict.fromkeys(_homes(passes, library))]

    def _home(self, file: Path) -> str:
        return f"{self.add(file.parent)}/{PACKAGE}" if file.name == PACKAGE else self.add(file)

    def pipeline(self, passes: Sequence[Pass]) -> str:
        """Bring the files along that options name, and return the pipeline as text with their new names."""
        moved = []
        for item in passes:
            there = copy.copy(item)
            for name, path in paths_of(item).items():
                if path.is_file():
                    object.__setattr__(there, name, Path(self.add(path)))  # as it will be, not to be checked now
            moved.append(there)
        return syntax.unparse(moved)

    def words(self, words: Sequence[str]) -> list[str]:
        """Bring the files along that a command names, and return its words without a path of this machine."""
        return [self._program(words[0]), *(self._word(word) for word in words[1:])]

    def _program(self, word: str) -> str:
        """Return the name of a program, ``python`` for the one that ffc runs in; a script comes along."""
        if Path(word).name.startswith("python"):
            return "python"
        if "/" in word and _is_script(Path(word)):
            return f"./{self.add(Path(word))}"
        return Path(word).name

    def _word(self, word: str) -> str:
        start, equals, path = word.rpartition("=")
        file = Path(path)
        if "{" in path or not (file.is_absolute() or file.exists()) or str(file) in (".", ".."):
            return word
        if file.is_file() and file.stat().st_size <= _MOST:
            return f"{start}{equals}{self.add(file)}"
        if file.name not in self.absent:
            self.absent.append(file.name)
        return f"{start}{equals}{file.name}"


def _is_script(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(2) == b"#!"


def _homes(passes: Sequence[Pass], library: Library) -> Iterable[tuple[Path, str]]:
    """Yield the file and the class of each pass that runs and is neither ffc's nor an installed package's."""
    installed = {entry.module for entry in importlib.metadata.entry_points(group=GROUP)}
    for item, _ in chain(passes, library):
        kind = type(item)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or inspect.getsourcefile(kind)
        if kind.__module__ in installed or (file is not None and builtin_folder() in Path(file).resolve().parents):
            continue
        if file is None or kind.__qualname__ != kind.__name__:
            raise UsageError(f"pass '{item.name}' cannot be brought along; define it at the top of a file of its own")
        yield Path(file), kind.__name__
