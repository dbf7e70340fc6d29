"""Every broken and hostile input ends in one line and an exit code, in bounded time and memory, and changes no file.

Each row runs the command in a process of its own with limits on time and memory; two run at a time.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.safety import broken_models, broken_requests
from tests.safety.broken import TABLE as ROWS
from tests.safety.broken import Row

SECONDS = 120
MEMORY = 6 << 30
assert broken_models and broken_requests, "which fill the table"
TABLE = ROWS.rows


@dataclass(frozen=True)
class Ending:
    """How a row ended: exit code, stderr, seconds of processor time, and the folder before and after."""

    code: int
    said: str
    seconds: float
    before: Mapping[str, object]
    after: Mapping[str, object]


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ending]]:
    """Start every row, and return a function that waits for one."""
    with ThreadPoolExecutor(2) as pool:
        started: dict[str, Future[Ending]] = {}
        for row in TABLE:
            started[row.name] = pool.submit(run, row, tmp_path_factory.mktemp("row"))
        yield lambda name: started[name].result()


def run(row: Row, folder: Path) -> Ending:
    arguments = row.prepare(folder) or ["compile", "m.onnx", "-o", "out.onnx"]
    before = snapshot(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("FFC_TRACEBACK", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "ffc.cli", *arguments], cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limits(row),
    )  # fmt: skip
    watch = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    watch.start()
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # the processor time of its own child included
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.cancel()
    return Ending(process.returncode, said, usage.ru_utime + usage.ru_stime, before, snapshot(folder))


def limits(row: Row) -> Callable[[], None]:
    """Return what a child does before it becomes the command."""

    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if row.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (row.file_size, row.file_size))

    return apply


def snapshot(folder: Path) -> dict[str, object]:
    """Return what lies in a folder: kinds, contents, times of change."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns * path.is_file(), content)
    return found


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_bad_input_is_refused(endings: Callable[[str], Ending], row: Row) -> None:
    ending = endings(row.name)
    lines = ending.said.splitlines()
    assert ending.code == row.code, ending.said
    assert lines[-1].startswith("ffc: error: ") and row.words in lines[-1], ending.said
    assert sum(line.startswith("ffc: error") for line in lines) == 1
    assert "Traceback" not in ending.said
    assert all(char.isprintable() or char == "\n" for char in ending.said), ascii(ending.said)
    assert len(lines[-1]) < 2000
    assert ending.after == ending.before
    if row.quick:
        assert ending.seconds < endings("cycle").seconds + 1  # which is read too, and takes nothing
