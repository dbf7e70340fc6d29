"""Where what is written to a path goes: to standard output, into a stream that is there, or to a file to replace."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, TextIO

if os.name == "posix":
    import fcntl

__all__ = ["STANDARD_OUTPUT", "Destination", "destination", "kept_clean", "named", "of_standard_output", "status"]

STANDARD_OUTPUT = Path("-")
"""The path that means standard output, wherever something is written."""

_STDOUT = 1
_LINKS = 40
"""How many links are followed on the way to a descriptor; the system gives up at as many."""
_DESCRIPTOR = re.compile(r"/(?:proc/(?P<process>\d+)(?:/task/\d+)?|dev)/fd/(?P<number>\d+)")
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
"""How that file spells spaces and the like."""
_KEPT: list[TextIO | None] = []
"""Standard output, while it is kept clean; for all threads, as `sys.stdout` is."""


@dataclass(frozen=True)
class Destination:
    """Where what is written to a path goes.

    Attributes:
        path: The path.
        real: The file to make or to replace, behind all links; None for what is written into as it stands.
        descriptor: The descriptor of this process that the path stands for, if it does.
    """

    path: Path
    real: Path | None = None
    descriptor: int | None = None

    @property
    def is_standard_output(self) -> bool:
        """Whether it is, be it as ``-`` or as a path such as ``/dev/stdout``."""
        return self.descriptor == _STDOUT

    @property
    def is_linked(self) -> bool:
        """Whether the file lies elsewhere than its path says."""
        return self.real is not None and self.real != Path(os.path.realpath(self.path.parent)) / self.path.name

    @property
    def is_mounted(self) -> bool:
        """Whether the file is mounted by itself, as files are into containers, so that none can take its place."""
        try:
            mounts = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
        except OSError:  # no Linux
            return False
        places = (_ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in mounts)
        return self.real is not None and os.fspath(self.real) in places

    def hindrance(self) -> str | None:
        """Say why nothing can be written into what is no file, or None where nothing speaks against it."""
        try:
            if self.is_standard_output:
                output = _standard_output()
                with contextlib.suppress(io.UnsupportedOperation):  # one in memory has no descriptor
                    return _hindrance_of_descriptor(output.fileno())
                return None
            return _hindrance(self.path) if self.descriptor is None else _hindrance_of_descriptor(self.descriptor)
        except OSError as error:
            return f"cannot be written: {error.strerror}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open what is no file, to write into it.

        Raises:
            OSError: If it cannot be opened or what is written meanwhile does not go through; `of_standard_output` says
                whether it was standard output.
        """
        if not self.is_standard_output:
            with os.fdopen(self._open(), "wb") as stream:
                yield stream
            return
        try:
            output = _standard_output()
            yield output
            output.flush()
        except OSError as error:
            error.filename = os.fspath(STANDARD_OUTPUT)
            raise

    def _open(self) -> int:
        if self.descriptor is not None:
            return os.dup(self.descriptor)  # opened anew, a file would be written from its start
        # Only a file that another process has open is regular here.
        more = os.O_APPEND if stat.S_ISREG(os.stat(self.path).st_mode) else 0
        return os.open(self.path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0) | more)


def destination(path: Path) -> Destination:
    """Return where what is written to a path goes; links are followed, to files that are not there too.

    Raises:
        OSError: If links go round in a circle or one is not to be followed, or nothing can be said of the path.
    """
    if path == STANDARD_OUTPUT:
        return Destination(path, descriptor=_STDOUT)
    if found := _of_descriptor(path):
        return Destination(path, descriptor=int(found["number"]) if _is_own(found["process"]) else None)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        mode = stat.S_IFREG
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return Destination(path, Path(os.path.realpath(path)))
    return Destination(path)


def named(path: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """Return the path that a text names, as seen from a folder; one that is ``./-`` is a file of that name.

    A `Path` says the same of both, so one that is ``-`` is standard output.
    """
    if os.fspath(path) == os.fspath(STANDARD_OUTPUT):
        return STANDARD_OUTPUT
    found = Path(path) if folder is None else folder / path
    return found.absolute() if found == STANDARD_OUTPUT else found


def status(path: Path) -> os.stat_result:
    """Return what the system says of what a path leads to, standard output included.

    Raises:
        OSError: If there is nothing.
    """
    return os.fstat(_standard_output().fileno()) if path == STANDARD_OUTPUT else os.stat(path)


def of_standard_output(error: OSError) -> bool:
    """Whether an error came of writing to standard output, whose reader may have gone on purpose."""
    return bool(error.filename == os.fspath(STANDARD_OUTPUT))


@contextlib.contextmanager
def kept_clean() -> Iterator[None]:
    """Keep standard output for what is written to it as a file: what is printed meanwhile goes to stderr."""
    _KEPT.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _KEPT.pop()


def _standard_output() -> BinaryIO:
    stream = _KEPT[-1] if _KEPT else sys.stdout
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    if stream is None or buffer is None or stream.closed:
        raise OSError(errno.EBADF, "it is closed, or takes no bytes")
    stream.flush()
    return buffer


def _of_descriptor(path: Path) -> re.Match[str] | None:
    """Return the process, if it is said, and the number where a path leads to an open descriptor.

    Raises:
        OSError: If a link on the way is not to be followed.
    """
    for _ in range(_LINKS):
        place = os.path.join(os.path.realpath(path.parent), path.name)
        if found := _DESCRIPTOR.fullmatch(place):
            return found
        try:
            link = os.readlink(place)
        except OSError:  # no link
            return None
        _check_link(place)
        path = Path(os.path.dirname(place), link)
    return None


def _check_link(link: str) -> None:
    """Refuse a link that someone else may have put in the way, as systems do that open files by such links.

    Raises:
        OSError: If it lies in a folder that all may write to, and belongs neither to this user nor to the folder's.
    """
    folder = os.stat(os.path.dirname(link))
    all_write = stat.S_ISVTX | stat.S_IWOTH
    if os.name != "posix" or folder.st_mode & all_write != all_write:
        return
    if os.lstat(link).st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(errno.EACCES, "it is a link of someone else in a folder that all may write to")


def _is_own(process: str | None) -> bool:
    return process is None or int(process) == os.getpid()


def _hindrance(path: Path) -> str | None:
    if stat.S_ISSOCK(os.stat(path).st_mode):
        return "is a socket, which cannot be opened"
    return None if os.access(path, os.W_OK) else "is read-only"


def _hindrance_of_descriptor(number: int) -> str | None:
    if os.name == "posix" and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return "is not open for writing"
    return None
