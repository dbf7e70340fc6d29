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


def guarded(work: str, limits: str = "") -> subprocess.CompletedProcess[str]:
    """Run `work`, the body of a function, under guard in a process of its own, of which limits on time hold for all."""
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_CPU, {limits})\n" if limits else ""
    code = f"{limited}import os, signal, sys\nfrom ffc import guard\nfrom ffc.cli import _fail\ndef work():\n{lines}\nsys.exit(guard.run(work, _fail))"
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
    assert done.returncode == 5 and "memory ran out, or by another process" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("limits", ["(1, 9)", "(1, 1)"])
def test_time_that_ran_out_is_no_memory_that_ran_out(limits: str) -> None:
    """At the soft limit there is a signal that says so; at the hard one the system just kills."""
    done = guarded("while True: pass", limits)
    assert done.returncode == 5
    assert done.stderr.startswith("ffc: error: the time ran out that a process may compute (ulimit -t)")


def test_a_file_that_may_not_grow_is_told_as_such() -> None:
    done = guarded("signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGXFSZ)")
    assert done.returncode == 5 and "a file grew larger than a process may write (ulimit -f)" in done.stderr


@pytest.mark.parametrize(("number", "name"), [(10, "SIGUSR1"), (14, "SIGALRM"), (40, "signal 40")])
def test_a_signal_that_was_sent_is_no_crash(number: int, name: str) -> None:
    done = guarded(f"os.kill(os.getpid(), {number})")
    assert done.returncode == 128 + number
    assert done.stderr == f"ffc: error: the process was ended by another one ({name}); no file was left half written\n"


ENDINGS = {
    "RuntimeError('x')": "this is a bug in ffc: RuntimeError: x",
    "SystemExit(3)": "this is a bug in ffc: SystemExit: 3",
    "RecursionError('deep')": "this is a bug in ffc: RecursionError: deep",
    "type('Panic', (BaseException,), {})('in Rust')": "this is a bug in ffc: Panic: in Rust",
    "GeneratorExit()": "this is a bug in ffc: GeneratorExit",
}


@pytest.mark.parametrize("error", ENDINGS)
def test_whatever_a_command_leaves_by_is_one_line(error: str) -> None:
    done = command(f"import importlib\ndef fail(name): raise {error}\nimportlib.import_module = fail")
    assert done.returncode == 70
    assert done.stderr.startswith(f"ffc: error: {ENDINGS[error]}") and done.stderr.count("\n") == 1


def test_the_traceback_is_shown_where_it_is_asked_for() -> None:
    done = command("import importlib\ndef fail(name): raise TypeError('x')\nimportlib.import_module = fail", FFC_TRACEBACK="1")
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith("ffc: error: this is a bug in ffc: TypeError: x")


def test_an_error_of_what_tells_of_errors_is_one_line_too() -> None:
    broken = "import importlib\nfrom ffc import cli\ncli._fail_with = None\ndef fail(name): raise ValueError('x')"
    done = command(f"{broken}\nimportlib.import_module = fail")
    assert done.returncode == 70
    assert done.stderr == "ffc: error: this is a bug in ffc: TypeError while it told of ValueError('x')\n"


def test_a_system_at_its_end_is_no_bug() -> None:
    said = "import importlib\ndef fail(name): raise OSError(28, 'No space left on device', 'm.onnx')\nimportlib.import_module = fail"
    done = command(said)
    assert done.returncode == 5
    assert done.stderr == (
        "ffc: error: the system has no room for what this takes: No space left on device at 'm.onnx'; make room, and try again\n"
    )


def test_a_process_that_the_system_does_not_start_is_told() -> None:
    done = command("import os\ndef fork(): raise OSError(11, 'Resource temporarily unavailable')\nos.fork = fork")
    assert done.returncode == 5
    assert done.stderr.startswith("ffc: error: the system starts no process: Resource temporarily unavailable")


def test_a_package_that_is_missing_is_named() -> None:
    done = command("import sys\nsys.modules['rich.console'] = sys.modules['rich'] = None")
    assert done.returncode == 5
    assert done.stderr.startswith("ffc: error: the package 'rich' is missing") and done.stderr.count("\n") == 1


def test_a_package_that_is_too_old_is_named_whatever_it_breaks() -> None:
    """An option that an older click does not know is a TypeError, while a command is defined."""
    old = "from importlib import metadata\nfound = metadata.version\nmetadata.version = lambda name: '8.0.1' if name == 'click' else found(name)"
    done = command(f"{old}\nimport click\ndef option(*a, **k): raise TypeError('deprecated')\nclick.option = option")
    assert done.returncode == 5
    assert done.stderr.startswith("ffc: error: ffc needs click>=") and "8.0.1 is installed" in done.stderr
    assert "TypeError: deprecated" in done.stderr and done.stderr.count("\n") == 1


def command(before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``ffc passes`` in an environment that something was done to."""
    code = f"import sys\nfrom ffc.cli import main\n{before}\nsys.argv = ['ffc', 'passes']\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={**{name: value for name, value in os.environ.items() if name != "FFC_TRACEBACK"}, **environment},
    )  # fmt: skip


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
