"""Every broken and hostile input ends in one line and an exit code, in bounded time and memory, and changes no file.

Each row runs the command in a process of its own with limits on time and memory; two run at a time. These are forked
from one that has imported everything, which takes longer than most refusals do.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import pytest

from ffc import cli
from tests.safety import broken_models, broken_requests
from tests.safety.broken import TABLE as ROWS
from tests.safety.broken import Row

SECONDS = 120
MEMORY = 6 << 30
assert broken_models and broken_requests, "which fill the table"
TABLE = ROWS.rows
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.safety.warm"])


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
    reading, writing = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=command, args=(arguments, folder, row.file_size, writing))
    process.start()
    writing.close()
    told: tuple[int, str, float] | None = None
    with contextlib.suppress(EOFError):  # it died without a word, as its exit code will say
        if reading.poll(SECONDS):
            told = reading.recv()
        elif process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode is not None
    # The other thread looks after this process too when it starts one, and who comes second reads 255.
    code, said, seconds = told or (process.exitcode, "", float(SECONDS))
    return Ending(code, said, seconds, before, snapshot(folder))


def command(arguments: Sequence[str], folder: Path, file_size: int | None, report: Connection) -> NoReturn:
    """Run the command as a shell would, in a process that was forked for it, within limits; send how it ended."""
    os.setsid()
    os.chdir(folder)
    with tempfile.TemporaryFile() as stderr, Path(os.devnull).open("r+b") as nothing:
        for stream, number in ((nothing, 0), (nothing, 1), (stderr, 2)):
            os.dup2(stream.fileno(), number)
        os.environ.pop("FFC_TRACEBACK", None)
        sys.argv = ["ffc", *arguments]
        limit(file_size)
        code = cli.main()
        stderr.seek(0)
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        report.send((code, stderr.read().decode(), sum(each.ru_utime + each.ru_stime for each in used)))
    os._exit(code)


def limit(file_size: int | None) -> None:
    """Limit what this process and its child may take."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))


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
