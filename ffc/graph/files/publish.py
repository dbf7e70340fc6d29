"""Putting files in place whole: written under temporary names beside their place, made durable, then renamed."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ffc.errors import InputError, UsageError

if os.name == "posix":
    import fcntl

__all__ = ["Piece", "Staging", "asked_for", "sweep", "write", "write_text"]

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

    def __exit__(self, *_: object) -> None:
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


def write_text(path: Path, text: str, named: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        InputError: If that fails, in which messages call it as `named`; then `path` is as it was.
    """
    try:
        write(path, text.encode(errors="backslashreplace"))  # the names of files may be no text
    except OSError as error:
        raise InputError(f"{named} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def asked_for(what: str, advice: str) -> Iterator[None]:
    """Take it for a mistake of who named the place if what is written meanwhile cannot be.

    Raises:
        UsageError: If so, with what cannot be written, why, and the advice.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {what}: {error.strerror}; {advice}") from error


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
