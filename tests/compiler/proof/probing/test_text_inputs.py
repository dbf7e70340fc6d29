"""Inputs are filled from text by what they mean, whatever they are called and in whatever form they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.probes import understood
from ffc.compiler.proof.probing.text_inputs import TextInputs, text_inputs
from ffc.errors import InputError
from ffc.rows.tokenizer import Batch, load
from tests.graphs import VOCABULARY, WIDTH, Draft, encoder
from tests.texts import CLS, SEP, write_tokenizer

INT64, INT32, FLOAT, BOOL = ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT, ir.DataType.BOOL


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    made = load(write_tokenizer(tmp_path))
    return made.batch(made.encode([("w1", "w2 w3"), ("w4", "w5")]))


def found(model: ir.Model) -> TextInputs:
    return text_inputs(model, understood(model))


def attending(*mask: int | str, dtype: ir.DataType, form: str = "kept", ids: tuple[int | str, int | str] = ("batch", "seq")) -> ir.Model:
    """Return a model whose tokens attend to each other under an input ``m``, one of another type than the ids, ``x``."""
    draft = Draft()
    op = draft.op
    tokens, shown = draft.input("x", *ids, dtype=INT32), draft.input("m", *mask, dtype=dtype)
    x = op.Gather(draft.normal("word", VOCABULARY, WIDTH), tokens, axis=0)
    scores = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1]))
    if form == "length":
        places = op.Range(np.int64(0), op.Squeeze(op.Shape(tokens, start=1, end=2)), np.int64(1))
        shown = op.Less(op.Unsqueeze(places, [0]), op.Unsqueeze(op.Cast(shown, to=INT64.value), [1]))
    if len(mask) < 3:
        shown = op.Unsqueeze(shown, [1])
    if form == "added":
        scores = op.Add(scores, shown)
    else:
        kept = op.Cast(shown, to=BOOL.value)
        scores = op.Where(op.Not(kept) if form == "hidden" else kept, scores, np.float32(-1e9))
    return draft.model({"y": (op.MatMul(op.Softmax(scores, axis=-1), x), [*ids, WIDTH])})


def test_the_usual_names_take_what_they_say(batch: Batch) -> None:
    feeds = found(encoder()).feeds(batch)
    assert {name: array.dtype for name, array in feeds.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), np.dtype(np.int64)
    )
    assert feeds["input_ids"].tolist() == [[CLS, 5, SEP, 6, 7, SEP], [CLS, 8, SEP, 9, SEP, 0]]
    assert feeds["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 1, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]


def test_other_names_take_what_they_mean(batch: Batch) -> None:
    model = encoder()
    for value, name in zip(model.graph.inputs, ("a", "b", "c"), strict=True):
        value.name = name
    feeds, usual = found(model).feeds(batch), found(encoder()).feeds(batch)
    for name, other in (("a", "input_ids"), ("b", "attention_mask"), ("c", "token_type_ids")):
        assert np.array_equal(feeds[name], usual[other])


@pytest.mark.parametrize(
    ("shape", "dtype", "form", "last"),
    [
        (("batch", "seq"), INT32, "kept", 0),
        (("batch", "seq"), BOOL, "kept", False),
        (("batch", "seq"), FLOAT, "kept", 0.0),
        (("batch", "seq"), INT64, "hidden", 1),
        (("batch", 1, "seq"), FLOAT, "added", -1e4),
        (("batch", "seq", "seq"), BOOL, "kept", False),
    ],
)
def test_a_mask_says_what_is_real_in_its_own_form(batch: Batch, shape: tuple[int | str, ...], dtype: ir.DataType, form: str, last: float) -> None:
    feeds = found(attending(*shape, dtype=dtype, form=form)).feeds(batch)
    assert feeds["x"].dtype == np.int32
    assert feeds["m"].dtype == dtype.numpy()
    assert feeds["m"][1, ..., -1].ravel()[0] == last
    assert feeds["m"][0].min() == feeds["m"][0].max() == feeds["m"][1, ..., 0].ravel()[0] != last


def test_a_count_of_tokens_says_what_is_real_on_the_left_alone(batch: Batch) -> None:
    inputs = found(attending("batch", dtype=INT32, form="length"))
    assert inputs.feeds(batch)["m"].tolist() == [6, 5]
    turned = Batch(batch.ids, batch.types, batch.mask[:, ::-1])
    with pytest.raises(InputError, match="input 'm' says how many come first of the tokens, which cannot tell where this"):
        inputs.feeds(turned)


def test_sizes_that_are_fixed_are_known() -> None:
    assert (found(encoder()).batch, found(encoder()).length) == (None, None)
    fixed = found(attending(2, 6, dtype=INT64, ids=(2, 6)))
    assert (fixed.batch, fixed.length) == (2, 6)


def test_a_mask_for_all_rows_takes_one_row_at_a_time(batch: Batch) -> None:
    inputs = found(attending(1, "seq", "seq", dtype=BOOL))
    assert inputs.batch == 1
    with pytest.raises(InputError, match="input 'm' says"):
        inputs.feeds(batch)


def test_what_text_does_not_say_is_refused_by_name() -> None:
    draft = Draft()
    x, places = (draft.input(name, "batch", "seq", dtype=INT64) for name in ("input_ids", "position_ids"))
    tables = draft.normal("word", VOCABULARY, WIDTH), draft.normal("position", 24, WIDTH)
    y = draft.op.Add(*(draft.op.Gather(table, ids, axis=0) for table, ids in zip(tables, (x, places), strict=True)))
    with pytest.raises(InputError, match=r"input 'position_ids' cannot be filled from text: .*give rows as an \.npz file"):
        found(draft.model({"y": (y, ["batch", "seq", WIDTH])}))


def test_without_ids_there_is_no_place_for_text() -> None:
    draft = Draft()
    image = draft.input("image", "batch", 3)
    with pytest.raises(InputError, match=r"need an input for ids of tokens, \[rows, tokens\], and none looks up a table"):
        found(draft.model({"y": (draft.op.Relu(image), ["batch", 3])}))
    towers = Draft()
    ids = [towers.input(name, "batch", name, dtype=INT64) for name in ("query", "passage")]
    pooled = [towers.op.ReduceMean(towers.op.Gather(towers.normal(f"{each.name}.word", VOCABULARY, WIDTH), each), [1]) for each in ids]
    with pytest.raises(InputError, match="'query' and 'passage' may both take them"):
        found(towers.model({"y": (towers.op.Mul(*pooled), ["batch", 1, WIDTH])}))
