"""Rows of text are checked before any work, and as many are taken as are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffc.errors import FfcError, InputError, UsageError
from ffc.rows.text_rows import TextRows, evenly, settled, taken
from tests.texts import write, write_tokenizer


def test_rows_know_their_column_and_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    table = write(tmp_path / "rows.csv", "label,s", "1,w1")
    assert settled(TextRows(table), tmp_path / "model.onnx") == TextRows(table, ("s",), path)
    assert settled(TextRows(table, "s"), tmp_path / "model.onnx").columns == ("s",)
    assert settled(TextRows(table, "label"), tmp_path / "model.onnx").columns == ("label",)


@pytest.mark.parametrize(
    ("name", "lines", "given", "message"),
    [
        ("a.tsv", ["s\tt", "w1\tw2"], {}, r"a\.tsv:2: which columns hold the text\? name one or two of s, t as text"),
        ("a.tsv", ["sentence", "w1"], {"text": "sentense"}, r"a\.tsv:2: there is no column 'sentense'; did you mean 'sentence'"),
        ("a.jsonl", ["{"], {}, r"a\.jsonl:1: is not JSON"),
        ("a.csv", ["s"], {}, r"a\.csv holds no rows"),
        ("a.csv", [], {}, r"a\.csv holds no rows"),
        ("a.npz", ["s"], {}, r"by its suffix '\.npz'; known: \.tsv, \.csv, \.jsonl"),
        ("a.tsv", ["s", "w1"], {"max_length": 0}, "max_length is 0, wanted a whole number from 1"),
        ("a.tsv", ["s", "w1"], {"rows": "64"}, "rows is '64', wanted a whole number from 1"),
        ("a.tsv", ["s", "w1"], {"tokenizer": "missing"}, "no tokenizer at missing"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    tmp_path: Path, name: str, lines: list[str], given: dict[str, Any], message: str
) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(FfcError, match=message) as caught:
        settled(TextRows(write(tmp_path / name, *lines), **given), tmp_path / "model.onnx")
    assert isinstance(caught.value, InputError | UsageError)


def test_texts_themselves_are_told_to_go_into_a_file() -> None:
    texts: Any = ["w1", "w2"]
    with pytest.raises(UsageError, match=r"read from a file, \.tsv, \.csv, \.jsonl, not from a list; write one"):
        settled(TextRows(texts), None)


def test_of_many_rows_some_are_taken_evenly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "s", *(f"w{number}" for number in range(10)))
    records, number = taken(path, evenly(4))
    assert ([record.text("s") for record in records], number) == (["w0", "w2", "w5", "w7"], 10)
    assert len(taken(path, evenly(10))[0]) == 10
