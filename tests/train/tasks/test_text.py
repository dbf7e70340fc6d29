"""Any text classification from TSV, CSV and JSON lines files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffc.errors import InputError, UsageError
from ffc.train.tasks import Example, Task
from tests.train.tiny import load


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path, **arguments: Any) -> Task:
    """Load a file to train on, and the same to validate on, so that nothing is split."""
    return load("text", train=path, validation=path, **arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "sentence\tlabel\nfine weather\tgood\na flat tyre\tbad\n"),
        ("a.csv", 'label,sentence\ngood,fine weather\nbad,"a flat tyre"\n'),
        (
            "a.jsonl",
            '{"sentence": "fine weather", "label": "good"}\n\n{"label": "bad", "sentence": "a flat tyre"}',
        ),
        ("a.TSV", "\ufeffsentence\tlabel\r\nfine weather\tgood\r\na flat tyre\tbad\r\n\r\n"),
    ],
)
def test_the_suffix_says_how_a_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    task = read(write(tmp_path / name, text), text=["sentence"])
    assert task == Task(
        name="text",
        labels=("bad", "good"),
        metric="accuracy",
        train=(Example("fine weather", label=1), Example("a flat tyre", label=0)),
        validation=task.train,
    )


def test_quotation_marks_in_a_tsv_are_text(tmp_path: Path) -> None:
    texts = ['"a"', 'so "it goes', '" "', 'say ""x""']
    body = "".join(f"{text}\t{place % 2}\n" for place, text in enumerate(texts))
    task = read(write(tmp_path / "a.tsv", f"sentence\tlabel\n{body}"))
    assert [row.first for row in task.train] == texts


def test_characters_that_only_python_takes_for_line_ends_are_text(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\x0bfour\rfive"
    for suffix in ("tsv", "csv"):
        separator = {"tsv": "\t", "csv": ","}[suffix]
        shown = odd if suffix == "tsv" else f'"{odd}"'
        path = write(tmp_path / f"a.{suffix}", f"s{separator}label\n{shown}{separator}0\nx{separator}1\n")
        assert read(path).train[0].first == odd


def test_a_quoted_field_of_a_csv_may_hold_commas_quotes_and_lines(tmp_path: Path) -> None:
    task = read(write(tmp_path / "a.csv", 'label,s\n1,"one, ""two""\nthree"\n0,four\n'))
    assert task.train == (Example('one, "two"\nthree', label=1), Example("four", label=0))


def test_two_columns_make_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "id\tquestion\tsentence\tlabel\n7\twho\tme\tyes\n8\twhy\tso\tno\n")
    assert read(path, text=("question", "sentence")).train == (Example("who", "me", 1), Example("why", "so", 0))
    assert read(path, text=["sentence"]).train[0] == Example("me", None, 1)


def test_labels_are_derived_in_order_numbers_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "s\tlabel\na\t10\nb\t9\nc\t-2\n")
    task = read(path)
    assert task.labels == ("-2", "9", "10")
    assert [row.label for row in task.train] == [2, 1, 0]


def test_labels_are_derived_from_the_training_file_alone(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "s\tlabel\na\tx\nb\ty\n")
    other = write(tmp_path / "b.tsv", "s\tlabel\na\tx\nb\tz\n")
    with pytest.raises(InputError, match=r"b\.tsv:3: the label 'z' is none of x, y"):
        load("text", train=train, validation=other)


def test_given_labels_rule_names_and_indices(tmp_path: Path) -> None:
    names = ("good", "fair", "bad")
    by_name = write(tmp_path / "a.tsv", "s\tgold\na\tbad\nb\tgood\n")
    task = read(by_name, label="gold", labels=names)
    assert (task.labels, [row.label for row in task.train]) == (names, [2, 0])
    by_index = write(tmp_path / "a.jsonl", '{"s": "a", "gold": 2}\n{"s": "b", "gold": "0"}\n')
    assert [row.label for row in read(by_index, label="gold", labels=names).train] == [2, 0]


def test_labels_that_are_numbers_are_never_indices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "s\tlabel\na\t1\nb\t2\n")
    assert [row.label for row in read(path, labels=("2", "1")).train] == [1, 0]
    with pytest.raises(InputError, match=r"a\.tsv:2: the label '1' is none of 2, 3"):
        read(path, labels=("2", "3"))


def test_truth_values_are_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"s": "a", "label": true}\n{"s": "b", "label": false}\n')
    assert (read(path).labels, read(path).train[0].label) == (("false", "true"), 1)


def test_minus_one_is_no_label_unless_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "s\tlabel\na\t-1\nb\t1\n")
    assert [row.label for row in read(path, labels=("-1", "1")).train] == [0, 1]
    with pytest.raises(InputError, match=r"has only the label '1' .*if -1 is one, name all in labels"):
        read(path)


def test_rows_without_a_label_can_be_predicted_and_not_trained_on(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "s\tlabel\na\t0\nb\t1\n")
    unlabelled = write(tmp_path / "b.tsv", "s\tlabel\na\t-1\nb\t\n")
    without = write(tmp_path / "c.tsv", "table\ts\n1\ta\n2\tb\n")
    for path in (unlabelled, without):
        task = load("text", train=train, validation=path, text=["s"])
        assert [row.label for row in task.validation] == [None, None]
    task = load("text", validation=without, text=["s"], labels=["0", "1"])
    assert (task.train, len(task.validation)) == ((), 2)
    mixed = write(tmp_path / "d.tsv", "s\tlabel\na\t0\nb\t1\nc\t-1\n")
    with pytest.raises(InputError, match=r"d\.tsv:4: has no label, or -1, and cannot be trained on"):
        read(mixed)


def test_half_a_character_is_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"s": "a", "label": "x"}\n{"s": "b", "label": "\\ud83d"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: 'label' holds a lone surrogate"):
        read(path)


def test_a_split_keeps_equal_sentences_together(tmp_path: Path) -> None:
    body = "".join(f"sentence {number // 2}\t{number % 2}\n" for number in range(100))
    task = load("text", train=write(tmp_path / "a.tsv", f"s\tlabel\n{body}"), validation_share=0.25)
    assert (len(task.train), len(task.validation)) == (76, 24)  # 25 rows are 12 sentences, given twice each, and a half
    assert not {row.first for row in task.train} & {row.first for row in task.validation}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", r"a\.tsv holds no rows"),
        ("a.csv", "\n\n", r"a\.csv holds no rows"),
        ("a.jsonl", " \n", r"a\.jsonl holds no rows"),
        ("a.tsv", "s\tlabel\n", r"a\.tsv holds no rows"),
        ("a.tsv", "s\tlabel\n\na\t0\t1\n", r"a\.tsv:3: has 3 columns and the header has 2 \(s, label\)"),
        ("a.tsv", "s\tlabel\na\n", r"a\.tsv:2: has 1 columns and the header has 2"),
        ("a.csv", "s,label\n\"x\ny\",1\na,b,c\n", r"a\.csv:4: has 3 columns and the header has 2"),
        ("a.csv", 's,label\nb,1\n"a,0\n', r"a\.csv:3: is not CSV \(unexpected end of data\); mend its quotation marks"),
        ("a.csv", 's,label\nb,1\n"a"x,0\n', r"a\.csv:3: is not CSV"),
        ("a.tsv", "s\ts\tlabel\na\tb\t0\n", r"a\.tsv:1: names the column 's' twice"),
        ("a.tsv", "s\tlabels\na\t0\n", r"a\.tsv:2: there is no column 'label'; did you mean 'labels'"),
        ("a.tsv", b"s\tlabel\na\t0\n\xff\t1\n", r"a\.tsv:3: is not UTF-8 \(invalid start byte\)"),
        ("a.tsv", "s\tlabel\na\t0\n".encode("utf-16"), r"a\.tsv:1: is not UTF-8"),
        ("a.jsonl", '{"s": "a", "label": 0}\n{"s": "b", "label": 0.5}\n', r"jsonl:2: the label is 0\.5, expected a name"),
        ("a.jsonl", '{"s": "a", "label": 0}\n{"s": null, "label": 1}\n', r"jsonl:2: 's' is null, expected a text"),
        ("a.jsonl", '{"s": "a", "label": 0}\n{"t": "b", "label": 1}\n', r"jsonl:2: there is no 's'"),
        ("a.tsv", "s\tlabel\na\t0\nb\t0\n", r"a\.tsv:2: the column 'label' has only the label '0' from here on"),
        ("a.tsv", "s\tlabel\na\t\n", r"a\.tsv:2: the column 'label' has no label at all"),
        (
            "a.tsv",
            "s\tlabel\n" + "".join(f"a\tname {number}\n" for number in range(1001)),
            r"the column 'label' has 1001 different values, which cannot be labels",
        ),
    ],
)  # fmt: skip
def test_broken_files_name_file_and_line(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=message):
        read(path, text=["s"])


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "sentence\tlabel\na\t0\nb\t1\n")
    with pytest.raises(InputError, match="there is no column 'sentense'; did you mean 'sentence'"):
        read(path, text=["sentense"])
    other = write(tmp_path / "c.tsv", "sentence\tLabel\na\t0\n")
    with pytest.raises(InputError, match=r"c\.tsv:2: there is no column 'label'; did you mean 'Label'"):
        load("text", train=path, validation=other)
    with pytest.raises(InputError, match=r"b\.tsv:2: there is no column 'sentence'; did you mean 'sentences'"):
        load("text", train=path, validation=write(tmp_path / "b.tsv", "sentences\tlabel\na\t0\n"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "which columns hold the text? name one or two of first, second as text"),
        ({"text": ["first", "second", "label"]}, "must name one or two columns"),
        ({"text": ["first", "first"]}, "must name one or two columns"),
        ({"text": ["first", "label"]}, "must name one or two columns"),
        ({"text": ["first"], "labels": ["a"]}, "labels=a must be two or more different names"),
        ({"text": ["first"], "labels": ["a", "a"]}, "labels=a, a must be two or more different names"),
        ({"text": ["first"], "folder": "data"}, "task text takes no folder"),
    ],
)
def test_malformed_requests_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.tsv", "first\tsecond\tlabel\na\tb\t0\n")
    with pytest.raises(UsageError) as caught:
        read(path, **arguments)
    assert message in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"by its suffix '\.txt'; known: \.tsv, \.csv, \.jsonl"):
        load("text", train=write(tmp_path / "a.txt", "a\t0\n"))


def test_text_needs_files_and_without_training_labels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task text needs files"):
        load("text")
    with pytest.raises(UsageError, match="needs the names of the labels"):
        load("text", validation=write(tmp_path / "a.tsv", "s\tlabel\na\t0\n"))
