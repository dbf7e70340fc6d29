"""Putting files in place whole: written under temporary names beside their place, made durable, then renamed."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ffc.errors import InputError, UsageError
from ffc.graph.files.destination import Destination, destination, of_standard_output

if os.name == "posix":
    import fcntl

__all__ = ["Piece", "Staged", "Staging", "asked_for", "copy", "draft", "make_folder", "sweep", "write", "write_text"]

Piece = bytes | memoryview

_TEMPORARY = ".ffc-{}.tmp"
_CHUNK = 1 << 20
_MOMENT = 60
"""Seconds."""


@dataclass(frozen=True)
class Staged:
    """What goes to a destination.

    Attributes:
        to: Where.
        temporary: The file that is going to be renamed; None where there is none to replace.
        pieces: What is written into that which is no file.
    """

    to: Destination
    temporary: Path | None
    pieces: Iterable[Piece] = ()


class Staging:
    """Files that are being written, each beside its place; those that are not placed in the end leave no trace.

    A process that is killed leaves its temporary files. They are locked while they are written, so that the next one
    to write into the folder knows which ones nobody will finish, and removes them.
    """

    def __init__(self) -> None:
        self._open: dict[Path, IO[bytes]] = {}
        self._swept: set[Path] = set()

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        for temporary, file in self._open.items():
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def write(self, pieces: Iterable[Piece], path: Path) -> Staged:
        """Write a file under a temporary name beside its place and make its contents durable.

        It gets the mode and the owner of the file that is there. What is no file is given the pieces when it is placed.

        Raises:
            OSError: If that fails.
        """
        to = destination(path)
        if to.real is None:
            return Staged(to, None, pieces)
        folder = to.real.parent
        self._sweep(folder)
        temporary = folder / _TEMPORARY.format(secrets.token_hex(6))
        file = temporary.open("xb")
        self._open[temporary] = file
        _lock(file)
        with _private(file, to.real):
            file.writelines(pieces)
            file.flush()
        os.fsync(file.fileno())
        return Staged(to, temporary)

    def place(self, staged: Staged, path: Path | None = None) -> None:
        """Give a file its name, in place of what bore it, and make the name durable; or give a stream its pieces.

        Args:
            staged: What `write` returned.
            path: Another name in the same folder than the one it was written for.

        Raises:
            OSError: If that fails; then the file at that name is as it was, and a stream may have got a part.
        """
        if staged.temporary is None or staged.to.real is None:
            with staged.to.opened() as stream:
                stream.writelines(staged.pieces)
            return
        os.replace(staged.temporary, path or staged.to.real)
        self._open.pop(staged.temporary).close()
        _sync_folder(staged.temporary.parent)

    def _sweep(self, folder: Path) -> None:
        if folder not in self._swept:
            self._swept.add(folder)
            _remove_left(folder)


@contextlib.contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """Make a folder under a temporary name beside the place of another, to be filled and renamed; else it goes again.

    What a process that was killed has left of one is removed, as of a file.

    Raises:
        OSError: If it cannot be made.
    """
    _remove_left(folder.parent)
    made = folder.with_name(_TEMPORARY.format(secrets.token_hex(6)))
    made.mkdir()
    try:
        with _locked(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through links; what is no file is written into.

    Raises:
        OSError: If that fails; then a file is as it was.
    """
    with Staging() as staging:
        staging.place(staging.write([content], path))


def copy(source: Path, path: Path) -> None:
    """Copy a file, as `write` writes one.

    Raises:
        OSError: If that fails; then a file at `path` is as it was.
    """
    with source.open("rb") as file, Staging() as staging:
        staging.place(staging.write(iter(lambda: file.read(_CHUNK), b""), path))


def write_text(path: Path, text: str, named: str) -> None:
    """Write a text file whole or not at all, through links; what is no file is written into.

    Raises:
        InputError: If that fails, in which messages call it as `named`; then a file is as it was.
        OSError: If standard output cannot be written.
    """
    try:
        write(path, text.encode(errors="backslashreplace"))  # the names of files may be no text
    except OSError as error:
        if of_standard_output(error):
            raise
        raise InputError(f"{named} cannot be written: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Make a folder if it is not there, also where a link names it.

    Raises:
        OSError: If that fails.
    """
    Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def asked_for(what: str, advice: str) -> Iterator[None]:
    """Take it for a mistake of who named the place if what is written meanwhile cannot be.

    Raises:
        UsageError: If so, with what cannot be written, why, and the advice.
        OSError: If standard output cannot be written.
    """
    try:
        yield
    except OSError as error:
        if of_standard_output(error):
            raise
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


@contextlib.contextmanager
def _private(file: IO[bytes], place: Path) -> Iterator[None]:
    """Let nobody else read a file that is being written; then give it the mode and owner of the one at its place.

    A new file gets what the system gives new files. Where the owner cannot be kept, as it can by root alone, whoever
    writes owns the file.
    """
    if os.name != "posix":
        yield
        return
    number = file.fileno()
    like = os.fstat(number)
    with contextlib.suppress(OSError):  # as all below: a file system without modes is none that keeps them
        os.fchmod(number, stat.S_IRUSR | stat.S_IWUSR)
    yield
    with contextlib.suppress(OSError):
        like = os.stat(place)
    for owner, group in ((-1, like.st_gid), (like.st_uid, -1)):
        with contextlib.suppress(OSError):
            os.fchown(number, owner, group)
    with contextlib.suppress(OSError):
        os.fchmod(number, stat.S_IMODE(like.st_mode) & _rights(number, like))


def _rights(number: int, like: os.stat_result) -> int:
    """Return the bits of a mode that a file may keep: who runs as its owner must be who did so before."""
    now = os.fstat(number)
    return 0o7777 if (now.st_uid, now.st_gid) == (like.st_uid, like.st_gid) else 0o777


def _lock(file: IO[bytes] | int) -> None:
    """Lock a file until it is closed, where the system and the file system can."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _remove_left(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder."""
    for left in folder.glob(_TEMPORARY.format("*")):
        with contextlib.suppress(OSError):
            _remove_unless_locked(left)


def _remove_unless_locked(path: Path) -> None:
    if os.name != "posix" or path.is_symlink() or not (path.is_file() or path.is_dir()) or _is_new(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_new(path: Path) -> bool:
    """Whether a file or folder may have been made this moment, to be locked in the next: nothing is in it yet."""
    empty = not any(path.iterdir()) if path.is_dir() else not path.stat().st_size
    return empty and time.time() - path.stat().st_mtime < _MOMENT


def _sync_folder(folder: Path) -> None:
    """Make new names survive a power cut, where the system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
