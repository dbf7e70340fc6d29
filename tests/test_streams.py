"""Standard streams take whatever is printed: what an encoding lacks, and what nobody can or will read."""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ffc import streams
from ffc.cli import main
from tests.checkout import ROOT

posix = pytest.mark.skipif(sys.platform != "linux", reason="by what a shell of Unix does")


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("2 × 3 − 1 → 5 …", "ascii", "2 x 3 - 1 -> 5 ..."),
        ("2 × 3 → 6", "latin-1", "2 × 3 -> 6"),
        ("“a” – ‘b’", "ascii", "\"a\" - 'b'"),
        ("“a” – 中", "cp1252", "“a” – \\u4e2d"),
        ("─┼━╸│ █", "cp1252", "-+--| #"),
        ("é中😀", "ascii", "\\u00e9\\u4e2d\\ud83d\\ude00"),
        ("中é", "shift_jis", "中\\u00e9"),
        ("a\udcffb", "utf-8", "a\\udcffb"),
        ("a\udcffb", "utf-16", "a\\udcffb"),
    ],
)
def test_what_an_encoding_lacks_is_written_in_plain_characters(text: str, encoding: str, shown: str) -> None:
    assert text.encode(encoding, streams.PLAIN).decode(encoding) == shown


@posix
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "shift_jis", "utf-8", "utf-16"])
def test_json_is_read_as_unicode_whatever_encoding_wrote_it(encoding: str) -> None:
    text = '["“×→中😀\udcff”"]'
    done = python(f"from ffc import streams; streams.prepare(); streams.escape(); print({text!a})", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout) == json.loads(text)


def test_all_that_ffc_writes_of_its_own_has_a_plain_form() -> None:
    written = {char for path in (*(ROOT / "ffc").rglob("*.py"), *(ROOT / "passes").rglob("*.py")) for char in _written(path)}
    assert written >= set("×→≥")
    assert [char for char in sorted(written) if "\\u" in char.encode("ascii", streams.PLAIN).decode()] == []


def _written(path: Path) -> Iterator[str]:
    """Yield the characters beyond ascii of the texts in a file; docstrings of passes alone are printed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and path.parts[-2] != "passes"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare and path.name != "streams.py":
            yield from (char for char in node.value if not char.isascii())


# In processes of their own


def python(code: str, tail: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a shell, which redirects what it prints as `tail` says."""
    command = f"exec '{sys.executable}' -c \"$CODE\" {tail}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "FFC_", "PYTHONUTF8"))}
    return subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**kept, "CODE": code, **environment}, capture_output=True, check=False, timeout=60
    )


COMMAND = "import sys; from ffc.cli import main; sys.argv = ['ffc', 'passes', 'int8']; sys.exit(main())"
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@posix
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, C, {**C, "PYTHONUNBUFFERED": "1"}], ids=str)
def test_as_python_sets_streams_up(environment: dict[str, str]) -> None:
    done = python(COMMAND, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"cosine >= 0.9" in done.stdout and done.stdout.isascii()


@posix
@pytest.mark.parametrize(
    ("tail", "why"), [(">&-", b"it is closed"), ("<&- >&-", b"it is closed"), (">/dev/full", b"No space left on device")]
)
def test_as_a_shell_redirects(tail: str, why: bytes) -> None:
    done = python(COMMAND, tail)
    assert done.returncode == 5 and why in done.stderr and done.stderr.count(b"\n") == 1


@posix
def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = f"""
import os, sys
from ffc import streams
from ffc.cli import main
streams.prepare()
file = open({str(tmp_path / "model")!r}, "wb")
assert file.fileno() > 2 and sys.stdin.read() == ""
os.system("echo native code speaks; echo native code speaks >&2")
print("and so does ffc"); print("and so does ffc", file=sys.stderr)
file.write(b"a model"); file.close()
os._exit(streams.lost().errno)
"""
    assert python(code, "<&- >&- 2>&-").returncode == errno.EBADF
    assert (tmp_path / "model").read_bytes() == b"a model"


@posix
def test_bytes_that_find_no_room_are_told_too() -> None:
    code = "import sys; from ffc import streams; streams.prepare(); sys.stdout.buffer.write(bytes(1 << 20)); sys.exit(streams.lost().errno)"
    assert python(code, ">/dev/full").returncode == errno.ENOSPC


@posix
def test_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    """So are those of node; Python raises BlockingIOError as soon as one is full."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    code = "import sys; from ffc import streams; streams.prepare(); print('x' * (1 << 20)); sys.exit(bool(streams.lost()))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=writing)
    os.close(writing)
    time.sleep(0.5)
    with open(reading, "rb") as stream:
        assert stream.read() == b"x" * (1 << 20) + b"\n"
    assert process.wait(30) == 0


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_bars_on_a_terminal_of_few_characters(encoding: str) -> None:
    code = """
from ffc import streams
from ffc.cli import main
streams.prepare()
from ffc.commands.options.progress import progress
with progress() as told:
    told.begin(1, 2, "層×: train")
    told.tell("epoch 1 → 2", 1, 4)
    told.end(1.0, kept=False)
    told.begin(2, 2, "b")
"""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=terminal, stderr=terminal,
        env={**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(master, 1 << 16):
            shown += chunk
    except OSError:  # EIO: the other end is closed
        pass
    assert process.wait(30) == 0, shown
    assert b"\\u5c64x: train" in shown if encoding == "ascii" else "\\u5c64×: train".encode("latin-1") in shown
    assert b"----" in shown


class OfItsOwn:
    """A stream as notebooks and editors have it: it takes text, and knows nothing of terminals or files."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_a_program_that_runs_a_command_keeps_its_streams(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["passes", "int8"]) == 0
    assert (stream.encoding, stream.errors) == (encoding, "strict")
    assert "contract: cosine " in stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_json_in_a_program_is_read_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["passes", "int8", "--json"]) == 0 and stream.encoding == "cp1252"
    assert "Q·K" in json.dumps(json.loads(stream.buffer.getvalue()), ensure_ascii=False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [OfItsOwn, lambda: None])
def test_a_stream_may_know_nothing_but_to_write_or_not_be_there(
    kind: Callable[[], OfItsOwn | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = kind()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["passes"]) == 0
    assert stream is None or "int8" in stream.text
