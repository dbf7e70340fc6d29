"""Work in a process of its own, forked from one that has imported everything: what it takes down is itself."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import select
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 6 << 30


class EndedError(Exception):
    """The process ended without a result: by a signal, or because its time was over."""


def apart(work: Callable[[], Any], seconds: float) -> Any:
    """Return what `work` returns, called in a child of this process.

    Args:
        work: Returns something that can be pickled; what it raises is no result either.
        seconds: After how long it is killed.

    Raises:
        EndedError: In words, how it ended.
    """
    with tempfile.NamedTemporaryFile(prefix="ffc-apart-") as file:
        child = os.fork()
        if not child:
            _work(work, Path(file.name))
        descriptor = os.pidfd_open(child)
        try:
            ready, _, _ = select.select([descriptor], [], [], seconds)
            if not ready:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        finally:
            os.close(descriptor)
        if not ready:
            raise EndedError(f"ran longer than {seconds:.0f} s")
        if os.WIFSIGNALED(status):
            raise EndedError(f"ended by {signal.Signals(os.WTERMSIG(status)).name}")
        if status:
            raise EndedError(f"ended with exit code {os.waitstatus_to_exitcode(status)}")
        return pickle.load(file)


def _work(work: Callable[[], Any], path: Path) -> None:
    """Do the work, in the child; never return."""
    code = 70
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        path.write_bytes(pickle.dumps(work()))
        code = 0
    finally:
        os._exit(code)


def settle() -> None:
    """Keep a worker of a pool and its children on one core: sessions take as many threads as there are cores, and they spin."""
    cores = sorted(os.sched_getaffinity(0))
    (place, *_) = multiprocessing.current_process()._identity  # type: ignore[attr-defined]
    os.sched_setaffinity(0, {cores[place % len(cores)]})
