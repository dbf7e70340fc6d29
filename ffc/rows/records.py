"""Records of TSV, CSV and JSON lines files, each knowing its file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ffc.errors import InputError, UsageError, nearest

__all__ = ["SUFFIXES", "Record", "iterate", "read"]


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


def iterate(path: Path) -> Iterator[Record]:
    r"""Read a file of records one by one, in the form that its suffix says; it may be larger than memory.

    - ``.tsv``: a header line, then a line per row; tabs part columns and nothing is quoted, so a quotation mark is
      text wherever it stands, as in GLUE's files.
    - ``.csv``: a header line, then rows quoted as RFC 4180 says; a quoted field may hold commas and line ends.
    - ``.jsonl``: a JSON object per line.

    Lines end with ``\n`` or ``\r\n``. Blank ones are passed over.

    Raises:
        UsageError: If the suffix is another one; this and a missing file are told at once.
        InputError: If the file is missing, not UTF-8, empty or broken; the message names the line.
    """
    parse = SUFFIXES.get(path.suffix.lower())
    if parse is None:
        raise UsageError(f"cannot tell what {path} holds by its suffix '{path.suffix}'; known: {', '.join(SUFFIXES)}")
    if path.exists() and not path.is_file():  # a pipe would never end
        raise InputError(f"cannot read {path}: it is no regular file; name a file of rows")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a file of rows") from error
    return _records(path, parse)


def read(path: Path) -> list[Record]:
    """Return all records of a file; arguments and errors as `iterate`."""
    return list(iterate(path))


def _records(path: Path, parse: Callable[[Path, TextIO], Iterator[Record]]) -> Iterator[Record]:
    found = False
    try:
        # Line ends are left to the parser: some characters that Python takes for them stand in texts.
        with path.open(encoding="utf-8-sig", newline="" if parse is _csv else "\n") as file:
            for record in parse(path, file):
                found = True
                yield record
    except UnicodeDecodeError as error:
        where = f"{path}:{_undecodable(path)}"
        raise InputError(f"{where}: is not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a file of rows") from error
    if not found:
        raise InputError(f"{path} holds no rows; give a file with some")


def _undecodable(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def _json_lines(path: Path, file: TextIO) -> Iterator[Record]:
    for number, line in _lines(file):
        where = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON ({error}); give one object per line") from error
        if not isinstance(value, dict):
            raise InputError(f"{where}: is JSON but not an object; give one object per line")
        yield Record(str(path), str(number), value)


def _tsv(path: Path, file: TextIO) -> Iterator[Record]:
    return _table(path, ((number, line.split("\t")) for number, line in _lines(file)))


def _csv(path: Path, file: TextIO) -> Iterator[Record]:
    return _table(path, _csv_rows(path, file))


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
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


SUFFIXES: Mapping[str, Callable[[Path, TextIO], Iterator[Record]]] = {".tsv": _tsv, ".csv": _csv, ".jsonl": _json_lines}
"""How to read a file, by its suffix."""
