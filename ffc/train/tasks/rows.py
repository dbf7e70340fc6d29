"""Records of TSV, CSV and JSON lines files, each knowing its file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffc.errors import InputError, UsageError, nearest

__all__ = ["SUFFIXES", "Record", "read"]


@dataclass(frozen=True)
class Record:
    """An object of a JSON lines file or a row of a table.

    What is read of it by key must be there and of the type that is asked for, or `InputError` says where it is not.

    Attributes:
        source: The file, or the data set.
        place: The line or row, and where in it where the record is a part of another.
        values: What it holds, by key or column.
    """

    source: str
    place: str
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Source and place, for errors."""
        return f"{self.source}:{self.place}"

    def error(self, what: str) -> InputError:
        """Return an error that says where."""
        return InputError(f"{self.where}: {what}")

    def value(self, key: str) -> Any:
        """Return what `key` holds."""
        if key not in self.values:
            raise self.error(f"there is no '{key}'{nearest(key, self.values)}")
        return self.values[key]

    def text(self, key: str) -> str:
        """Return a text, of whole characters."""
        value = self.value(key)
        if not isinstance(value, str):
            raise self._mistyped(key, value, "a text")
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise self.error(f"'{key}' holds a lone surrogate at character {error.start}; mend the text") from error
        return value

    def integer(self, key: str) -> int:
        """Return an integer."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._mistyped(key, value, "an integer")
        return value

    def part(self, key: str) -> Record:
        """Return an object within this one."""
        value = self.value(key)
        if not isinstance(value, dict):
            raise self._mistyped(key, value, "an object")
        return Record(self.source, f"{self.place}, {key}", value)

    def parts(self, key: str) -> list[Record]:
        """Return a list of objects within this one."""
        values = self.value(key)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self._mistyped(key, values, "a list of objects")
        return [Record(self.source, f"{self.place}, {key}[{number}]", value) for number, value in enumerate(values)]

    def _mistyped(self, key: str, value: object, expected: str) -> InputError:
        return self.error(f"'{key}' is {json.dumps(value, default=str)[:60]}, expected {expected}")


def read(path: Path) -> list[Record]:
    r"""Read a file of records, in the form that its suffix says.

    - ``.tsv``: a header line, then a line per row; tabs part columns and nothing is quoted, so a quotation mark is
      text wherever it stands, as in GLUE's files.
    - ``.csv``: a header line, then rows quoted as RFC 4180 says; a quoted field may hold commas and line ends.
    - ``.jsonl``: a JSON object per line.

    Lines end with ``\n`` or ``\r\n``. Blank ones are passed over.

    Raises:
        UsageError: If the suffix is another one.
        InputError: If the file is missing, not UTF-8, empty or broken; the message names the line.
    """
    parse = SUFFIXES.get(path.suffix.lower())
    if parse is None:
        raise UsageError(f"cannot tell what {path} holds by its suffix '{path.suffix}'; known: {', '.join(SUFFIXES)}")
    records = list(parse(path, _text(path)))
    if not records:
        raise InputError(f"{path} holds no rows; give a file with some")
    return records


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would never end
        raise InputError(f"cannot read {path}: it is no regular file; name a file of rows")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a file of rows") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: is not UTF-8 ({error.reason}); convert the file to UTF-8") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank."""
    # Not str.splitlines, which also cuts at characters that stand in texts, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _json_lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in _lines(text):
        where = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON ({error}); give one object per line") from error
        if not isinstance(value, dict):
            raise InputError(f"{where}: is JSON but not an object; give one object per line")
        yield Record(str(path), str(number), value)


def _tsv(path: Path, text: str) -> Iterator[Record]:
    return _table(path, ((number, line.split("\t")) for number, line in _lines(text)))


def _csv(path: Path, text: str) -> Iterator[Record]:
    return _table(path, _csv_rows(path, text))


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1  # where the row starts: a quoted field may go on over lines
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}:{number}: is not CSV ({error}); mend its quotation marks, or use a .tsv file, which has none"
            ) from error
        if len(row) > 1 or any(cell.strip() for cell in row):
            yield number, row


def _table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    """Yield the records of a table whose first row names the columns."""
    number, header = next(rows, (1, []))
    if twice := [name for place, name in enumerate(header) if name in header[:place]]:
        raise InputError(f"{path}:{number}: names the column '{twice[0]}' twice; the first line must name the columns")
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}:{number}: has {len(row)} columns and the header has {len(header)} ({', '.join(header)}); "
                "mend the line"
            )
        yield Record(str(path), str(number), dict(zip(header, row, strict=True)))


SUFFIXES: Mapping[str, Callable[[Path, str], Iterator[Record]]] = {".tsv": _tsv, ".csv": _csv, ".jsonl": _json_lines}
"""How to read a file, by its suffix."""
