"""Rows of text become batches that a model takes: cut to what it can, padded, as many as are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.chain import open_model
from ffc.compiler.proof.rows import feeds_of, from_data
from ffc.compiler.proof.texts import text_feeds
from ffc.errors import InputError, UsageError
from ffc.rows.text_rows import TextRows, evenly
from tests.encoders import MAX_LENGTH
from tests.graphs import POSITIONS, VOCABULARY, WIDTH, Draft, encoder
from tests.texts import CLS, FIRST, SEP, write, write_tokenizer


def rows(folder: Path, *texts: str, name: str = "rows.tsv", **given: Any) -> TextRows:
    """Return rows of a file with the column ``s``, for the tokenizer of the same folder."""
    return TextRows(write(folder / name, "s", *texts), tokenizer=folder, **given)


def lengths(feeds: dict[str, dict[str, np.ndarray]]) -> list[int]:
    return [int(row.sum()) for feed in feeds.values() for row in feed["attention_mask"]]


def fixed(batch: int, length: int) -> ir.Model:
    """Return a model that looks up ids of a fixed size."""
    draft = Draft()
    ids = draft.input("input_ids", batch, length, dtype=ir.DataType.INT64)
    draft.input("attention_mask", batch, length, dtype=ir.DataType.INT64)
    found = draft.op.Gather(draft.normal("word", VOCABULARY, WIDTH), ids, axis=0)
    return draft.model({"y": (found, [batch, length, WIDTH])})


def test_rows_keep_their_order_and_a_batch_is_as_long_as_its_longest_row(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    told: list[str] = []
    feeds = text_feeds(encoder(), rows(tmp_path, *["w1"] * 16, "w2 w3"), tell=told.append)
    assert {name: feed["input_ids"].shape for name, feed in feeds.items()} == {"data row 0": (16, 3), "data row 16": (1, 4)}
    assert feeds["data row 16"]["input_ids"].tolist() == [[CLS, 6, 7, SEP]]
    assert told == [f"{tmp_path}/rows.tsv: 17 rows of up to 4 tokens"]


@pytest.mark.parametrize(
    ("of_tokenizer", "asked", "longest"), [(None, None, POSITIONS), (9, None, 9), (9, 11, 11), (99, None, POSITIONS), (None, 99, POSITIONS)]
)
def test_rows_are_cut_to_what_is_asked_for_or_the_tokenizer_says_or_the_model_takes(
    tmp_path: Path, of_tokenizer: int | None, asked: int | None, longest: int
) -> None:
    write_tokenizer(tmp_path, cut=of_tokenizer)
    told: list[str] = []
    feeds = text_feeds(encoder(), rows(tmp_path, "w1 " * 120, "w2", max_length=asked), tell=told.append)
    assert lengths(feeds) == [longest, 3]
    assert feeds["data row 0"]["input_ids"][0, -1] == SEP
    assert told == [f"{tmp_path}/rows.tsv: 2 rows of up to {longest} tokens, 1 cut to that"]


def test_a_fixed_length_is_met_and_the_last_batch_filled_up(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    told: list[str] = []
    feeds = text_feeds(fixed(2, 6), rows(tmp_path, "w1", "w2 " * 9, "w3"), tell=told.append)
    assert [feed["input_ids"].shape for feed in feeds.values()] == [(2, 6)] * 2
    assert lengths(feeds) == [3, 6, 3, 3]
    assert feeds["data row 2"]["input_ids"][:, 1].tolist() == [FIRST + 3, FIRST + 1]
    assert told == [f"{tmp_path}/rows.tsv: 3 rows of up to 6 tokens, 1 cut to that, 1 repeated to fill a batch"]


def test_some_of_many_rows_are_taken_and_it_is_said(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    told: list[str] = []
    words = [f"w{number % 20}" for number in range(1200)]
    many = rows(tmp_path, *words)
    feeds = text_feeds(encoder(), many, tell=told.append)
    assert len(lengths(feeds)) == 128
    assert told == [f"{tmp_path}/rows.tsv: 128 of 1,200 rows of up to 3 tokens"]
    assert len(lengths(text_feeds(encoder(), many, choose=evenly(3)))) == 3
    assert len(lengths(text_feeds(encoder(), rows(tmp_path, *words, rows=300)))) == 300


def test_a_token_that_the_model_does_not_know_names_its_line(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, words=40)
    with pytest.raises(InputError, match=rf"rows\.tsv:3: the tokenizer makes 34, and input 'input_ids' looks up a table of {VOCABULARY}; take"):
        text_feeds(encoder(), rows(tmp_path, "w1", "w30"))


def test_a_text_that_is_none_names_its_line(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    table = write(tmp_path / "rows.jsonl", '{"s": "w1"}', '{"s": ""}', '{"s": 5}')
    with pytest.raises(InputError, match=r"rows\.jsonl:3: 's' is 5, expected a text"):
        text_feeds(encoder(), TextRows(table, tokenizer=tmp_path))


def test_rows_of_several_files_are_run_beside_whole_feeds(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    ones = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), np.ones((1, 5), np.int64))
    feeds = feeds_of(encoder(), [rows(tmp_path, "w1"), ones, rows(tmp_path, "w2", name="b.csv")])
    assert list(feeds) == ["data 1 row 0", "data feed 2", "data 3 row 0"]


def test_rows_are_probes_with_their_masks(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (probe,) = from_data(encoder(), rows(tmp_path, "w1 w2", "w3"))
    assert probe.required
    assert probe.mask is not None and probe.mask.tolist() == [[True] * 4, [True, True, True, False]]


def test_arrays_that_no_input_takes_are_told(tmp_path: Path) -> None:
    arrays = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids", "labels", "x"), np.ones((1, 5), np.int64))
    np.savez(tmp_path / "rows.npz", **arrays)  # type: ignore[arg-type]
    told: list[str] = []
    from_data(encoder(), tmp_path / "rows.npz", tell=told.append)
    from_data(encoder(), arrays, tell=told.append)
    assert told == [f"{what}: no input of the model takes 'labels', 'x'" for what in (tmp_path / "rows.npz", "the data")]


def test_max_length_must_leave_room(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="max_length=2 leaves no room for text beside special tokens; give 3"):
        text_feeds(encoder(), rows(tmp_path, "w1", max_length=2))


def test_positions_that_begin_behind_padding_leave_fewer_tokens(tmp_path: Path, exported: Callable[..., Path]) -> None:
    """RoBERTa's table has two rows more than a text may have tokens, which nothing but running tells."""
    model = open_model(exported("roberta"))
    feeds = text_feeds(model, rows(write_tokenizer(tmp_path).parent, "w1 " * 200))
    assert lengths(feeds) == [MAX_LENGTH["roberta"]]


def test_a_model_that_hides_padding_by_its_id_takes_ids_alone(tmp_path: Path) -> None:
    draft = Draft()
    x = draft.input("input_ids", "batch", "seq", dtype=ir.DataType.INT64)
    op = draft.op
    shown = op.Unsqueeze(op.Not(op.Equal(x, np.int64(0))), [1])
    found = op.Gather(draft.normal("word", VOCABULARY, WIDTH), x, axis=0)
    scores = op.Where(shown, op.MatMul(found, op.Transpose(found, perm=[0, 2, 1])), np.float32(-1e9))
    y = op.MatMul(op.Softmax(scores, axis=-1), found)
    feeds = text_feeds(draft.model({"y": (y, ["batch", "seq", WIDTH])}), rows(write_tokenizer(tmp_path).parent, "w1", "w2 w3"))
    assert {name: array.tolist() for name, array in feeds["data row 0"].items()} == {"input_ids": [[CLS, 5, SEP, 0], [CLS, 6, 7, SEP]]}
