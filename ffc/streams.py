"""The standard streams, which take whatever is printed: in any encoding, closed, full, or a pipe that nobody reads.

What an encoding lacks is written in plain characters. What cannot be written is dropped: work that is done is not
undone by a full disk under its log, and the command says in the end that something was lost.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import select
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["ESCAPED", "PLAIN", "escape", "is_terminal", "lenient", "lost", "prepare"]

PLAIN, ESCAPED = "ffc.plain", "ffc.escaped"
"""How what an encoding lacks is written, as handlers of errors are named: by what looks alike, or as an escape."""

_ASCII = "plain-ascii"
"""Ascii by another name: click takes a stream that says ascii for one that is set up wrongly, and writes UTF-8."""

_ALIKE = {
    "\N{NO-BREAK SPACE}": " ", "±": "+-", "²": "^2", "·": ".", "×": "x", "ᵀ": "^T", "–": "-", "—": "-", "…": "...",
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "•": "*", "←": "<-", "→": "->", "↔": "<->", "−": "-",
    "√": "sqrt", "≈": "~", "≠": "!=", "≤": "<=", "≥": ">=", "✅": "passes:", "❌": "fails:",
}  # fmt: skip
_LINES, _BLOCKS = range(0x2500, 0x2580), range(0x2580, 0x25A0)
"""What rich draws tables and bars with."""


def prepare() -> None:
    """Replace the standard streams of this process by such that take whatever is printed; first thing of all.

    Where one is closed, the null device is opened in its place: the next file would be given its number, and whatever
    native code prints would go into that file.
    """
    _open_closed()
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout, sys.stderr = _taking(sys.stdout, 1), _taking(sys.stderr, 2)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Let the standard streams of a program that runs a command in it take what their encodings lack, for so long."""
    given = [each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper) and not each.closed]
    former = [(each, each.encoding, each.errors) for each in dict.fromkeys(given) if not _sink(each)]
    try:
        for stream, encoding, _ in former:
            stream.reconfigure(encoding=_unlike_ascii(encoding), errors=PLAIN)
        yield
    finally:
        for stream, encoding, errors in former:
            with contextlib.suppress(OSError, ValueError):  # it was closed, or what it holds cannot be written
                stream.reconfigure(encoding=encoding, errors=errors)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; one that is closed, or of a program's own and does not say, is none."""
    ask = getattr(stream, "isatty", None)
    return bool(ask and not getattr(stream, "closed", False) and ask())


def escape() -> None:
    """Write escapes to standard output from now on, which JSON reads back, for all that ascii lacks; not in Unicode.

    JSON is read as UTF-8, whatever the encoding was that wrote it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding
        sys.stdout.reconfigure(encoding=encoding if encoding.lower().startswith("utf") else _ASCII, errors=ESCAPED)


def lost() -> OSError | None:
    """Return why what was printed to standard output is not all written, None where it is."""
    sys.stdout.flush()
    sink = _sink(sys.stdout)
    return sink.failure if sink else None


class _Sink(io.RawIOBase):
    """Hands on what is written until that fails for the first time, and drops what comes later."""

    def __init__(self, raw: io.RawIOBase, former: TextIO | None) -> None:
        super().__init__()
        self._raw = raw
        self._former = former  # which would close what it wrote to when nothing refers to it
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Return how many bytes are done with."""
        if self.failure is None:
            try:
                while (written := self._raw.write(data)) is None:  # a pipe that is full and does not block
                    select.select([], [self._raw], [])
                return written
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def _sink(stream: TextIO | None) -> _Sink | None:
    found = getattr(getattr(stream, "buffer", None), "raw", None)
    return found if isinstance(found, _Sink) else None


def _open_closed() -> None:
    """Open the null device on what is closed of 0, 1 and 2; standard output is still one that cannot be written."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)  # gets the lowest number that is free, which is this one
            os.set_inheritable(opened, True)


def _taking(stream: TextIO | None, number: int) -> TextIO:
    """Return a stream that writes where another does and takes whatever is printed; None stands for a closed one."""
    if stream is None:
        return _text(_Sink(io.FileIO(number, "w", closefd=False), None), "utf-8", line_buffering=False)
    if not isinstance(stream, io.TextIOWrapper) or _sink(stream):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered, as by python -u, there is nothing between
    by_line = stream.line_buffering or stream.write_through
    return _text(_Sink(raw, stream), _unlike_ascii(stream.encoding), line_buffering=by_line)


def _unlike_ascii(encoding: str) -> str:
    return _ASCII if codecs.lookup(encoding).name == "ascii" else encoding


def _text(sink: _Sink, encoding: str, *, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(sink), encoding, PLAIN, line_buffering=line_buffering)


def _handler(written: Callable[[str], str]) -> Callable[[UnicodeError], tuple[str, int]]:
    """Return the handler of errors that writes each character that an encoding lacks by `written`."""

    def handle(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(map(written, error.object[error.start : error.end])), error.end

    return handle


def _alike(char: str) -> str:
    if ord(char) in _LINES:
        return _line(unicodedata.name(char).split())
    return "#" if ord(char) in _BLOCKS else _ALIKE.get(char) or _escaped(char)


def _line(words: list[str]) -> str:
    """Draw a line by the words that Unicode describes it with."""
    across = not {"HORIZONTAL", "LEFT", "RIGHT"}.isdisjoint(words)
    upright = not {"VERTICAL", "UP", "DOWN"}.isdisjoint(words)
    return "+" if across and upright else "|" if upright else "-"


def _escaped(char: str) -> str:
    """Return the escape that JSON has for a character: two of four digits beyond the first 65536."""
    return json.dumps(char)[1:-1]


def _codec(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII.replace("-", "_"):
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode, found.decode, found.streamreader, found.streamwriter, found.incrementalencoder,
        found.incrementaldecoder, name=_ASCII,
    )  # fmt: skip


codecs.register(_codec)
codecs.register_error(PLAIN, _handler(_alike))
codecs.register_error(ESCAPED, _handler(_escaped))
