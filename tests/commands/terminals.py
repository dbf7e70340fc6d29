"""Terminals and pipes of any kind: commands run in processes whose standard streams are as a case says."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from ffc import cli

__all__ = ["FULL", "Ending", "Kind", "Way", "run"]

FULL = Path("/dev/full")
SECONDS = 120
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.commands.warm"])

Kind = Literal["file", "full", "closed", "unread"]
"""What a stream is: a file, a device that is full, closed, or a pipe that nobody reads."""


@dataclass(frozen=True)
class Way:
    """How the standard streams of a process are: what standard output and error are, their encoding, and standard input."""

    out: Kind = "file"
    err: Kind = "file"
    encoding: str = "utf-8"
    stdin: bool = True


@dataclass(frozen=True)
class Ending:
    """How a command ended: exit code, what went to standard output and error, and its folder."""

    code: int
    out: bytes
    err: bytes
    folder: Path
    encoding: str

    @property
    def said(self) -> str:
        """What went to standard error."""
        return self.err.decode(self.encoding)

    @property
    def printed(self) -> str:
        """What went to standard output; an error where that is not of the encoding."""
        return self.out.decode(self.encoding)


def run(arguments: Sequence[str], folder: Path, way: Way) -> Ending:
    """Run a command in a folder, in a process that is forked from one that has imported everything."""
    streams = folder.with_name(f"{folder.name}.streams")
    streams.mkdir()
    process = CONTEXT.Process(target=_command, args=(list(arguments), folder, way, streams))
    process.start()
    process.join(SECONDS)
    ended = process.exitcode is not None
    if not ended:
        process.kill()
        process.join()
    code, out, err = (streams / name for name in ("code", "out", "err"))
    found = int(code.read_text()) if ended and code.exists() else -1
    ending = Ending(found, *(each.read_bytes() if each.exists() else b"" for each in (out, err)), folder, way.encoding)
    shutil.rmtree(streams)
    return ending


def _command(arguments: list[str], folder: Path, way: Way, streams: Path) -> NoReturn:
    """Run the command as a shell would start it, in the process that was forked for it."""
    os.chdir(folder)
    os.environ.pop("FFC_TRACEBACK", None)
    for number, kind, name in ((1, way.out, "out"), (2, way.err, "err")):
        _place(number, kind, streams / name)
    if not way.stdin:
        os.close(0)
    sys.stdin = sys.stdin if way.stdin else None
    sys.stdout = _stream(1, way.out, way.encoding, "strict")
    sys.stderr = _stream(2, way.err, way.encoding, "backslashreplace")
    sys.argv = ["ffc", *arguments]
    code = cli.main()
    (streams / "code").write_text(str(code))
    os._exit(0)


def _place(number: int, kind: Kind, path: Path) -> None:
    """Make one of the standard streams what it is to be."""
    if kind == "closed":
        os.close(number)
        return
    if kind == "unread":
        reading, opened = os.pipe()
        os.close(reading)
    else:
        opened = os.open(FULL, os.O_WRONLY) if kind == "full" else os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(opened, number)
    os.close(opened)


def _stream(number: int, kind: Kind, encoding: str, errors: str) -> io.TextIOWrapper | None:
    """Return a stream as Python makes it when it starts; none where it is closed."""
    return None if kind == "closed" else open(number, "w", encoding=encoding, errors=errors, closefd=False)
