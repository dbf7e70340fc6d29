"""The command in a process of its own, so that whatever native code does to it ends in one line and an exit code.

onnxruntime and protobuf are C++: a model made for it can crash them, or take more memory than there is. No check before
rules that out, and nothing in the same process can report it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

__all__ = ["limit_memory", "run"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
"""What native code ends by; other signals are sent."""

_BROKEN, _MISSING = 3, 5
_SHARE = 0.9
_UNLIMITED = 1 << 60


def run(work: Callable[[], int], report: Callable[[str, int], int]) -> int:
    """Run `work` in a child process where the system can fork safely, and return its exit code.

    Args:
        work: Returns an exit code; nothing else may come of it.
        report: Prints a message and returns the exit code given, for a child that died of a signal.
    """
    if sys.platform != "linux":
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        child = os.fork()
    except OSError as error:
        return report(f"the system starts no process: {error.strerror}; end others, or raise ulimit -u", _MISSING)
    if not child:
        _work(work)
    for each in _PASSED_ON:
        signal.signal(each, lambda received, _: _pass_on(child, received))
    _, status, used = os.wait4(child, 0)
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    if number in _PASSED_ON:
        return 128 + number
    return report(*_obituary(number, used.ru_utime + used.ru_stime))


def _pass_on(child: int, received: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, received)


def _work(work: Callable[[], int]) -> NoReturn:
    """Run `work` in the child; never return."""
    code = 70
    try:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGINT, _interrupt)
        limit_memory(0)
        code = work()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:  # in the very handler of errors; nothing but this would tell of it
        line = f"ffc: error: this is a bug in ffc: {type(error).__name__} while it told of {error.__context__!r}"
        with contextlib.suppress(OSError):
            os.write(2, f"{ascii(line)[1:-1]}\n".encode())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _interrupt(received: int, _: object) -> None:
    """Interrupt once: a terminal interrupts the parent as well, which passes it on."""
    signal.signal(received, signal.SIG_IGN)
    raise KeyboardInterrupt


def _obituary(number: int, seconds: float) -> tuple[str, int]:
    """Return what to say of a process that died of a signal after `seconds` of processor time, and the exit code."""
    import resource

    whole = "no file was left half written"
    allowed = resource.getrlimit(resource.RLIMIT_CPU)[1]
    spent = allowed != resource.RLIM_INFINITY and seconds > allowed - 0.1  # then the system kills, and says no more
    if number == signal.SIGXCPU or (number == signal.SIGKILL and spent):
        return f"the time ran out that a process may compute (ulimit -t); raise that limit; {whole}", _MISSING
    if number == signal.SIGXFSZ:
        return f"a file grew larger than a process may write (ulimit -f); raise that limit; {whole}", _MISSING
    if number == signal.SIGKILL:
        by = "by the system since memory ran out, or by another process"
        return f"the process was killed (SIGKILL), {by}; use a machine with more memory; {whole}", _MISSING
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if name in _CRASHES:
        return f"native code crashed on this input ({name}); the model is broken or hostile; {whole}", _BROKEN
    return f"the process was ended by another one ({name}); {whole}", 128 + number


def limit_memory(amount: int) -> None:
    """Let allocations fail that take this process beyond `amount` bytes of data; 0 is most of the machine's memory.

    A failed allocation is an error that can be told; a machine without memory kills whatever it likes.
    """
    if sys.platform != "linux":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = amount or int(_SHARE * _machine_memory())
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _machine_memory() -> int:
    """Return the bytes of memory that there are, of the container where that has less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(Path(path).read_text()))
    return found if found > 0 else _UNLIMITED
