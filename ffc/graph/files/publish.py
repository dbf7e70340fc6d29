"""Putting files in place whole: written under temporary names beside their place, made durable, then renamed."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from ffc.errors import UsageError

if os.name == "posix":
    import fcntl

__all__ = ["Piece", "Staging", "check_apart", "sweep", "write"]

Piece = bytes | memoryview

_TEMPORARY = ".ffc-{}.tmp"


class Staging:
    """Files of one folder that are being written; those that are not placed in the end leave no trace.

    A process that is killed leaves its temporary files. They are locked while they are written, so that the next one
    to write into the folder knows which ones nobody will finish, and removes them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, IO[bytes]] = {}

    def __enter__(self) -> Staging:
        for left in self._folder.glob(_TEMPORARY.format("*")):
            with contextlib.suppress(OSError):
                _remove_unless_locked(left)
        return self

    def __exit__(self, *error: object) -> None:
        for temporary, file in self._open.items():
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def write(self, pieces: Iterable[Piece]) -> Path:
        """Write a file under a temporary name and make its contents durable.

        Raises:
            OSError: If that fails.
        """
        temporary = self._folder / _TEMPORARY.format(secrets.token_hex(6))
        file = temporary.open("xb")
        self._open[temporary] = file
        _lock(file)
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
        return temporary

    def place(self, temporary: Path, path: Path) -> None:
        """Give a file its name, in place of what bore it, and make the name durable.

        Raises:
            OSError: If that fails; then `path` is as it was.
        """
        os.replace(temporary, path)
        self._open.pop(temporary).close()
        _sync_folder(self._folder)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: If that fails; then `path` is as it was.
    """
    with Staging(path.parent) as staging:
        staging.place(staging.write([content]), path)


def check_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that no output is an input or another output, under whatever name.

    Raises:
        UsageError: If one is, be it through a link.
    """
    for index, output in enumerate(outputs):
        if any(_same(output, other) for other in inputs):
            raise UsageError(f"the output '{output}' is an input; name another file")
        if any(_same(output, other) for other in outputs[:index]):
            raise UsageError(f"the output '{output}' is named twice; name another file")


def sweep(path: Path, pattern: re.Pattern[str], current: Path | None) -> None:
    """Remove the data files of former models at `path` that no file in the folder names any more.

    Args:
        path: The model, in its place.
        pattern: What the names of its data files look like.
        current: The one that it has, if any.
    """
    with contextlib.suppress(OSError):
        files = [file for file in path.parent.iterdir() if file.is_file()]
        data = [file for file in files if pattern.fullmatch(file.name)]
        for former in (file for file in data if current is None or file.name != current.name):
            others = (file for file in files if file not in data)
            if not former.is_symlink() and not any(_mentions(file, former.name) for file in others):
                former.unlink()


def _mentions(file: Path, name: str) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode()) >= 0


def _same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _lock(file: IO[bytes]) -> None:
    """Lock a file until it is closed, where the system and the file system can."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_unless_locked(path: Path) -> None:
    if os.name != "posix" or path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make new names survive a power cut, where the system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
