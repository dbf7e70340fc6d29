"""Work in a forked process: it has all that was imported and the model in memory, and may crash or hang."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["HANGS", "Ending", "run"]

HANGS = "hangs"
"""How work ended that took longer than it may."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_CHUNK = 1 << 16

Work = Callable[[Callable[[str], None]], Any]
"""Takes a function that it tells where it is, and returns what JSON can hold."""


@dataclass(frozen=True)
class Ending:
    """How work ended.

    Attributes:
        result: What it returned, None if it did not.
        died: How it ended otherwise: the name of a signal, ``hangs``, or ``exit 3``; empty if it returned.
        exit_code: As a shell would give it.
        last: What it told last.
    """

    result: Any
    died: str
    exit_code: int
    last: str


def run(work: Work, seconds: float) -> Ending:
    """Run `work` in a forked process, for `seconds` at most; where forking is not safe, in this one.

    Args:
        work: What to do. An exception that it lets out ends it as ``exit 70``.
        seconds: How long it may take; then it is killed, with all processes that it started.
    """
    if sys.platform != "linux":  # as `ffc.guard`; a crash takes this process with it then
        told = [""]
        return Ending(work(told.append), "", 0, told[-1])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a daemon may have none
            stream.flush()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Threads here are numpy's, which survive forks, and those of sessions, which the child has no use for.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    ended = False
    try:
        said, ended = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        status = _reap(child, ended)
    return _ending(said, status if ended else None)


def _work(work: Work, writing: int) -> NoReturn:
    """Run `work` in the child, in silence."""
    code = 70
    try:
        os.setsid()
        faulthandler.disable()  # where a crash is what is looked for, its stack is no news
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)

        pipe = os.fdopen(writing, "w", encoding="utf-8")

        def send(key: str, value: Any) -> None:
            pipe.write(json.dumps({key: value}) + "\n")
            pipe.flush()

        send("result", work(lambda line: send("at", line)))
        code = 0
    finally:
        os._exit(code)


def _read(reading: int, deadline: float) -> tuple[bytes, bool]:
    """Return what the child said, and whether it came to its end before the deadline."""
    said = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return bytes(said), False
        chunk = os.read(reading, _CHUNK)
        if not chunk:
            return bytes(said), True
        said += chunk


def _reap(child: int, ended: bool) -> int:
    """Return the status of the child, which is killed where it has not `ended`; what it started is killed as well."""
    if ended:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number stays taken until it is reaped
    for kill in (os.killpg, os.kill):  # it has no group of its own until it has made one
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _ending(said: bytes, status: int | None) -> Ending:
    lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    last = next((line["at"] for line in reversed(lines) if "at" in line), "")
    if lines and "result" in lines[-1]:
        return Ending(lines[-1]["result"], "", 0, last)
    if status is None:
        return Ending(None, HANGS, 124, last)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ending(None, signal.Signals(number).name, 128 + number, last)
    code = os.waitstatus_to_exitcode(status)
    return Ending(None, f"exit {code}", code, last)
