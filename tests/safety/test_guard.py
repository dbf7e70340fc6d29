"""A command whose process dies, whatever of, ends in one line and an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkout import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the command runs in one process")


def guarded(work: str) -> subprocess.CompletedProcess[str]:
    """Run `work`, the body of a function, under guard in a process of its own."""
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    code = f"import os, signal, sys\nfrom ffc import guard\nfrom ffc.cli import _fail\ndef work():\n{lines}\nsys.exit(guard.run(work, _fail))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGFPE", "SIGABRT"])
def test_a_native_crash_is_one_line(number: str) -> None:
    done = guarded(f"os.kill(os.getpid(), signal.{number})")
    assert done.returncode == 3
    assert done.stderr.startswith("ffc: error: native code crashed on this input") and number in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_the_system_kills_for_memory_says_so() -> None:
    done = guarded("os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 3 and "memory ran out" in done.stderr


def test_exit_codes_and_output_pass_through() -> None:
    done = guarded("print('found')\nprint('said', file=sys.stderr)\nreturn 4")
    assert (done.returncode, done.stdout, done.stderr) == (4, "found\n", "said\n")


def test_an_interrupt_ends_as_shells_expect() -> None:
    assert guarded("os.kill(os.getpid(), signal.SIGTERM)").returncode == 128 + 15


@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupt_reaches_the_work_be_it_for_one_process_or_for_both(whole_group: bool, tmp_path: Path) -> None:
    code = f"""
import sys, time
from ffc import guard
def work():
    open({str(tmp_path / "began")!r}, "w").close()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)  # puts away what it holds
        open({str(tmp_path / "ended")!r}, "w").close()
        return 130
sys.exit(guard.run(work, print))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    _wait_for((tmp_path / "began").exists)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert (tmp_path / "ended").exists()


def test_memory_beyond_the_limit_is_an_error_that_can_be_caught() -> None:
    done = guarded(
        "guard.limit_memory(1 << 29)\ntry:\n    bytearray(1 << 30)\nexcept MemoryError:\n    return 7\nreturn 0"
    )
    assert done.returncode == 7


def test_a_killed_command_takes_its_child_along(tmp_path: Path) -> None:
    code = f"""
import os, time
from ffc import guard
def work():
    open({str(tmp_path / "child")!r}, "w").write(str(os.getpid()))
    time.sleep(60)
guard.run(work, print)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    child = tmp_path / "child"
    _wait_for(lambda: child.exists() and child.read_text() != "")
    process.kill()
    process.wait()
    _wait_for(lambda: not _runs(int(child.read_text())))


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to bury it


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
