"""What an input says of tokens is found out by running the model, whatever its name."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.proof.opening import opened
from ffc.compiler.proof.probes import Probe, make, understood
from ffc.compiler.proof.probing.layout import layout_of
from ffc.compiler.proof.probing.mask_inputs import Form, MaskInput
from ffc.compiler.proof.probing.readings import find_towers
from ffc.compiler.proof.rows import from_data
from ffc.compiler.proof.verify import Prover
from ffc.graph.execute import Runner
from ffc.graph.shapes.inference import infer
from tests.compiler.proof.probing.towers import (
    BOOL,
    FLOAT,
    INT64,
    attended,
    embedded,
    one_tower,
    two_heads,
    two_towers,
    within,
)
from tests.graphs import Draft


def kinds(probes: list[Probe]) -> dict[str, Probe]:
    return {probe.name.rsplit(" ", 1)[0]: probe for probe in probes}


@pytest.mark.parametrize("hidden", [-np.inf, -1e9], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("kept", BOOL), ("kept", INT64), ("kept", FLOAT), ("hidden", BOOL), ("hidden", INT64), ("hidden", FLOAT),
        ("added", FLOAT), ("length", INT64), ("start", INT64), ("last", INT64), ("padding", INT64), ("tail", INT64),
    ],
    ids=str,
)  # fmt: skip
def test_how_an_input_says_which_tokens_are_real_is_found_out(
    form: str, dtype: ir.DataType, causal: bool, hidden: float
) -> None:
    model = one_tower(form, dtype, causal=causal, hidden=hidden)
    (tower,) = understood(model).towers
    (mask_input,) = tower.masks
    told = "length" if causal and form == "last" else form  # what comes later is hidden anyway
    assert (mask_input.name, mask_input.form, tower.holders) == ("what", Form[told.upper()], {"ids"})
    probes = kinds(Prover(model, make(model)).probes)
    assert {kind.partition(",")[0] for kind in probes} == {"full", "right-padded", "left-padded", "holed", "masked row"}
    full, right, left = (probes[kind].mask for kind in ("full", "right-padded", "left-padded"))
    assert full is not None and right is not None and left is not None
    assert full.all()
    assert right.all() == (form in ("start", "tail")) and left.all() == (form in ("length", "last", "padding"))


@pytest.mark.parametrize("form", ["kept", "hidden"])
def test_rounding_by_what_all_tokens_hold_hides_nothing(form: str) -> None:
    draft = Draft()
    op = draft.op
    ids, given = draft.input("ids", "batch", "seq", dtype=INT64), draft.input("what", "batch", "seq", dtype=INT64)
    grown = op.Gather(np.linspace(1, 4, 30, dtype=np.float32)[:, None], ids)
    x = op.DequantizeLinear(*op.DynamicQuantizeLinear(op.Mul(embedded(draft, "one", ids), grown), outputs=3))
    model = draft.model({"y": (attended(draft, "one", x, within(draft, ids, form, given)), ["batch", "seq", 8])})
    tokens = np.arange(24).reshape(3, 8) % 6
    tokens[0, 1] = 29  # the largest, so that the scale of all goes by a token that is hidden
    feeds = {"ids": tokens, "what": np.ones((3, 8), np.int64)}
    (tower,) = find_towers(model, layout_of(model), Runner(model).run, feeds, infer(model))
    assert tower.masks == (MaskInput("what", Form[form.upper()]),)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_length_is_no_tail_where_tokens_see_one_side_alone(direction: str) -> None:
    draft = Draft()
    op = draft.op
    x, told = draft.input("x", "batch", "seq", 8), draft.input("what", "batch", dtype=ir.DataType.INT32)
    weights = draft.normal("w", 1, 32, 8), draft.normal("r", 1, 32, 8)
    y = op.LSTM(op.Transpose(x, perm=[1, 0, 2]), *weights, None, told, hidden_size=8, direction=direction, outputs=2)[0]
    y = op.Reshape(op.Transpose(y, perm=[2, 0, 1, 3]), np.array([0, 0, 8]))
    (tower,) = understood(draft.model({"y": (y, ["batch", "seq", 8])})).towers
    assert tower.masks == (MaskInput("what", Form.LENGTH),)


def test_a_length_is_never_none() -> None:
    for probe in make(one_tower("length", INT64)):
        assert probe.feeds["what"].min() >= 1


@pytest.mark.parametrize("dtype", [BOOL, INT64, FLOAT], ids=str)
def test_a_model_whose_mask_hides_compiles(dtype: ir.DataType) -> None:
    assert ffc.compile(one_tower("hidden", dtype), "fuse").report.verdict is not None


def test_rows_of_the_users_own_are_read_the_same_way() -> None:
    hides = np.array([[0, 0, 1], [0, 0, 0]], np.bool_)
    (probe,) = from_data(one_tower("hidden", BOOL), {"ids": np.ones((2, 3), np.int64), "what": hides})
    assert np.array_equal(probe.mask, ~hides)  # type: ignore[arg-type]
    (probe,) = from_data(one_tower("length", INT64), {"ids": np.ones((2, 3), np.int64), "what": np.array([1, 3])})
    assert probe.mask is not None and probe.mask.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("names", [("seq", "seq"), ("seq_a", "seq_b")], ids=["one name", "two names"])
@pytest.mark.parametrize("forms", [("length", "hidden"), ("kept", "kept"), ("length", "length")], ids=str)
def test_each_tower_has_its_own_mask(names: tuple[str, str], forms: tuple[str, str]) -> None:
    model = two_towers(*names, forms=forms)
    meaning = understood(model)
    assert {(tower.holders, tower.masks[0].name) for tower in meaning.towers} == {
        (frozenset({"ids_a"}), "what_a"), (frozenset({"ids_b"}), "what_b"),
    }  # fmt: skip
    prover = Prover(model, make(model, meaning=meaning))
    assert len(prover.probes) >= 6
    for probe in prover.probes:
        masks, _ = meaning.counted(probe.feeds)
        by_tower = {tower.masks[0].name[-1]: mask for tower, mask in zip(meaning.towers, masks, strict=True)}
        for tower, mask in by_tower.items():
            assert np.array_equal(probe.counted(f"tokens_{tower}").mask, mask)  # type: ignore[arg-type]
        rows = probe.counted("score").pick(np.arange(len(masks[0])))
        assert len(rows) == (by_tower["a"].any(axis=1) & by_tower["b"].any(axis=1)).sum()


def test_towers_of_two_names_have_lengths_of_their_own() -> None:
    model = two_towers("seq_a", "seq_b")
    shapes = {(p.feeds["ids_a"].shape[1], p.feeds["ids_b"].shape[1]) for p in Prover(model, make(model)).probes}
    assert any(one != other for one, other in shapes)
    assert ffc.compile(model, "fuse").report.verdict is not None


def test_starts_and_ends_are_one_tower() -> None:
    draft = Draft()
    ids = draft.input("ids", "batch", "seq", dtype=INT64)
    given = [draft.input(name, "batch", dtype=INT64) for name in ("one", "other")]
    shown = [within(draft, ids, form, value) for form, value in zip(("start", "length"), given, strict=True)]
    x = attended(draft, "one", embedded(draft, "one", ids), draft.op.And(*shown))
    model = draft.model({"y": (x, ["batch", "seq", 8])})
    (tower,) = understood(model).towers
    assert {mask_input.name: mask_input.form for mask_input in tower.masks} == {"one": Form.START, "other": Form.LENGTH}
    for probe in Prover(model, make(model)).probes:
        assert probe.mask is not None and probe.mask.any(axis=1).all()


def test_tokens_that_come_before_rows_are_counted_where_they_are_real() -> None:
    draft = Draft()
    op = draft.op
    x, hidden = draft.input("x", "seq", "batch", 8), draft.input("what", "batch", "seq", dtype=BOOL)
    inner = attended(draft, "one", op.Transpose(x, perm=[1, 0, 2]), within(draft, None, "hidden", hidden))
    model = draft.model({"y": (op.Transpose(inner, perm=[1, 0, 2]), ["seq", "batch", 8])})
    probe = kinds(Prover(model, make(model)).probes)["right-padded"]
    assert probe.mask is not None and not probe.mask.all()
    assert len(probe.counted("y").pick(np.zeros((*probe.mask.T.shape, 8)))) == probe.mask.sum()


@pytest.mark.parametrize("dtype", [BOOL, INT64], ids=str)
@pytest.mark.parametrize("form", ["kept", "hidden"])
def test_one_row_of_a_mask_may_be_for_all_rows(form: str, dtype: ir.DataType) -> None:
    draft = Draft()
    x, given = draft.input("x", "batch", "seq", 8), draft.input("what", "seq", dtype=dtype)
    y = attended(draft, "one", x, within(draft, None, form, draft.op.Unsqueeze(given, [0])))
    prover = opened(draft.model({"y": (y, ["batch", "seq", 8])}))
    assert {"full", "right-padded", "holed"} <= kinds(prover.probes).keys()
    for probe in prover.probes:
        real = probe.feeds["what"].astype(np.bool_) == (form == "kept")
        assert probe.mask is not None and (probe.mask == real).all()


def test_a_mask_that_is_the_same_for_all_rows_keeps_what_it_hides_apart() -> None:
    draft = Draft()
    x, seen = draft.input("x", "batch", "seq", 8), draft.input("what", "seq", "seq", dtype=BOOL)
    model = draft.model({"y": (attended(draft, "one", x, draft.op.Not(seen)), ["batch", "seq", 8])})
    assert understood(model).mask_inputs["what"].form is Form.HIDDEN
    assert ffc.compile(model, "fuse").report.verdict is not None


@pytest.mark.parametrize("rows", ["2*batch", "rows"])
def test_a_mask_for_each_head_hides_what_it_hides_in_all_of_them(rows: str) -> None:
    prover = opened(two_heads(rows))
    assert not prover.remark
    assert {"full", "right-padded", "left-padded", "holed"} <= kinds(prover.probes).keys()
    for probe in prover.probes:
        batch, length = probe.feeds["padding"].shape
        assert probe.feeds["masks"].shape == (2 * batch, length, length)
        assert probe.mask is not None and probe.mask.shape == (batch, length)
        shown = ~probe.feeds["masks"].reshape(batch, 2, length, length).all(axis=(1, 2))
        assert np.array_equal(probe.mask, shown & ~probe.feeds["padding"])


def test_inputs_that_hide_nothing_say_nothing() -> None:
    draft = Draft()
    op = draft.op
    ids, types = (draft.input(name, "batch", "seq", dtype=INT64) for name in ("ids", "types"))
    x = op.Add(embedded(draft, "one", ids), op.Unsqueeze(op.Cast(types, to=int(FLOAT)), [2]))
    model = draft.model({"y": (attended(draft, "one", x, np.True_), ["batch", "seq", 8])})
    assert understood(model).towers == ()
    assert all(probe.mask is None for probe in make(model))


def test_embeddings_and_positions_beside_a_mask_per_query_are_no_masks() -> None:
    draft = Draft()
    x = draft.input("inputs_embeds", "batch", "seq", 8)
    places = draft.input("position_ids", "batch", "seq", dtype=INT64)
    shown = draft.op.Squeeze(draft.input("shown", "batch", 1, "seq", "seq", dtype=BOOL), [1])
    placed = draft.op.Add(x, draft.op.Gather(draft.normal("places", 40, 8), places))
    model = draft.model({"y": (attended(draft, "one", placed, shown), ["batch", "seq", 8])})
    (tower,) = understood(model).towers
    assert [mask_input.name for mask_input in tower.masks] == ["shown"]
    probes = Prover(model, make(model)).probes
    assert kinds(probes).keys() == {"full", "right-padded", "left-padded", "holed", "masked row"}
    for probe in probes:
        batch, length = probe.feeds["position_ids"].shape
        assert probe.feeds["shown"].shape == (batch, 1, length, length)
        assert probe.feeds["position_ids"].max() < 40
    assert ffc.compile(model, "fuse").report.verdict is not None
