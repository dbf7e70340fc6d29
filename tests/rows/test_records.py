"""Files of records are read one by one, each record knowing its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffc.errors import InputError, UsageError
from ffc.rows.columns import check_columns, text_columns
from ffc.rows.records import Record, iterate, read


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.tsv", "\ufeffs\tn\r\n\r\nfine \"day\r\n".replace("day", "day\t1"), ["3"]),
        ("a.csv", '\ufeffs,n\r\n"one\r\ntwo",1\r\nthree,2\r\n', ["2", "4"]),
        ("a.csv", "s,n\rfive,1\rsix,2\r", ["2", "3"]),
        ("a.jsonl", '\ufeff{"s": "a\u2028b"}\r\n\n{"s": ""}', ["1", "3"]),
    ],
)
def test_records_know_their_lines(tmp_path: Path, name: str, text: str, lines: list[str]) -> None:
    assert [record.place for record in iterate(write(tmp_path / name, text))] == lines


def test_a_file_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"s": "a"}\n{"s": "b"}\n{"s": ')
    records = iterate(path)
    assert [next(records).text("s"), next(records).text("s")] == ["a", "b"]
    with pytest.raises(InputError, match=r"a\.jsonl:3: is not JSON"):
        next(records)


def test_what_cannot_be_read_is_told_before_the_first_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*a\.tsv: No such file"):
        iterate(tmp_path / "a.tsv")
    with pytest.raises(UsageError, match=r"suffix '\.txt'; known: \.tsv, \.csv, \.jsonl"):
        iterate(tmp_path / "a.txt")


def test_a_line_that_is_no_text_is_named_though_it_comes_late(tmp_path: Path) -> None:
    lines = [b"s\tn"] + [b"a\t1"] * 20_000 + [b"\xff\t1"]
    for suffix, table in (("tsv", lines), ("csv", [line.replace(b"\t", b",") for line in lines])):
        with pytest.raises(InputError, match=rf"a\.{suffix}:20002: is not UTF-8 \(invalid start byte\)"):
            read(write(tmp_path / f"a.{suffix}", b"\n".join(table)))


def test_the_only_column_beside_the_label_is_text() -> None:
    record = Record("a.tsv", "2", {"label": "1", "sentence": "a"})
    assert text_columns(record, (), "label") == ("sentence",)
    with pytest.raises(UsageError, match="which columns hold the text"):
        text_columns(Record("a.tsv", "2", {"first": "a", "second": "b"}), (), "label")
    with pytest.raises(InputError, match=r"a\.tsv:2: there is no column 'sentense'; did you mean 'sentence'"):
        check_columns(record, ["sentense"])
