"""The files that a lock names: seen from its folder in the lock, and from the current one while it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffc.compiler import syntax
from ffc.compiler.chain import as_passes
from ffc.compiler.library import Library
from ffc.compiler.passes import Pass
from ffc.errors import InputError
from ffc.recipe.compiling import moved

__all__ = ["plugins_of", "read_pipeline", "seen", "write_pipeline"]


def plugins_of(
    pipeline: str | Sequence[str | Pass], sets: Mapping[str, str] | Sequence[str], plugins: Sequence[str]
) -> list[str]:
    """Return all files that the passes of a pipeline come from: those of `plugins`, and those that it names itself.

    Raises:
        UsageError: If the pipeline is malformed.
        InputError: If such a file is missing or broken.
    """
    library = Library.default(plugins)
    as_passes(pipeline, library, sets)
    return list(dict.fromkeys(library.files))


def seen(path: str | Path, folder: Path) -> str:
    """Return a path as seen from the folder of a lock.

    Raises:
        InputError: If no line of a lock can hold it.
    """
    found = Path(os.path.relpath(path, folder)).as_posix()
    if not found.isprintable():
        raise InputError(f"{found!a} cannot be named in a lock: it has control characters; rename it")
    return found


def write_pipeline(pipeline: str, plugins: Sequence[str], folder: Path) -> str:
    """Return a pipeline with the paths in its options as seen from the folder of a lock."""
    items = syntax.parse(pipeline, Library.default(plugins))
    return syntax.unparse([moved(item, lambda path: Path(seen(path, folder))) for item in items])


def read_pipeline(pipeline: str, plugins: Sequence[str], folder: Path) -> list[Pass]:
    """Return the passes of a pipeline that `write_pipeline` wrote.

    Raises:
        UsageError: If the pipeline is malformed.
    """
    return [moved(item, folder.joinpath) for item in syntax.parse(pipeline, Library.default(plugins))]
