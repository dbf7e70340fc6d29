"""Probes are inputs that a model can take: ids within its tables, masks as they are named, fixed sizes kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.probes import Probe, make
from ffc.compiler.proof.probing.mask_inputs import Form, MaskInput
from ffc.compiler.proof.verify import Prover
from ffc.errors import InputError
from ffc.graph.dialect.edit import Editor
from tests.compiler.proof.masked_attention import BOOL, FLOAT, INT64, attention_with
from tests.graphs import LOWEST, POSITIONS, VOCABULARY, Draft, encoder, run_passes

KINDS = {"full", "right-padded", "left-padded", "holed", "masked row"}


def by_kind(probes: list[Probe]) -> dict[str, Probe]:
    return {probe.name.rsplit(" ", 1)[0]: probe for probe in probes}


@pytest.mark.parametrize("stages", [(), ("opset", "clean", "fuse"), ("opset", "clean", "fuse", "int8{embeddings=true}")], ids=str)
def test_ids_stay_within_the_tables_they_look_up_at_every_stage(stages: tuple[str, ...]) -> None:
    probes = make(run_passes(encoder(), *stages))
    ids = np.concatenate([probe.feeds["input_ids"].ravel() for probe in probes])
    types = np.concatenate([probe.feeds["token_type_ids"].ravel() for probe in probes])
    assert (ids.min(), types.min(), types.max()) == (0, 0, 1)
    assert VOCABULARY // 2 < ids.max() < VOCABULARY
    assert {array.dtype for probe in probes for array in probe.feeds.values()} == {np.dtype(np.int64)}


def test_masks_are_what_their_names_say() -> None:
    probes = make(encoder())
    assert set(by_kind(probes)) == KINDS
    for probe in probes:
        name, mask = probe.name.rsplit(" ", 1)[0], probe.mask
        assert mask is not None
        assert np.array_equal(probe.feeds["attention_mask"], mask)
        edges = np.diff(mask.astype(int), axis=1)
        if name == "full":
            assert mask.all()
            continue
        assert not mask.all()
        assert mask.any(axis=1).all() == (name != "masked row")
        if name == "right-padded":
            assert mask[:, 0].all() and (edges <= 0).all() and not mask[1:, -1].any()
        elif name == "left-padded":
            assert mask[:, -1].all() and (edges >= 0).all() and not mask[1:, 0].any()
        elif name == "holed":
            assert ((edges < 0).any(axis=1) & (edges > 0).any(axis=1)).any()
        else:
            assert sorted(mask.all(axis=1)) == [False] + [True] * (len(mask) - 1)


def test_there_are_several_batch_sizes_and_lengths() -> None:
    shapes = {probe.feeds["input_ids"].shape for probe in make(encoder())}
    assert len({batch for batch, _ in shapes}) >= 3
    assert len({length for _, length in shapes}) >= 4


def test_they_are_the_same_every_time_and_others_with_another_seed() -> None:
    one, same, other = make(encoder()), make(encoder()), make(encoder(), seed=1)
    assert all(np.array_equal(a.feeds["input_ids"], b.feeds["input_ids"]) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.feeds["input_ids"], b.feeds["input_ids"]) for a, b in zip(one, other, strict=True))


def test_fixed_sizes_are_kept() -> None:
    draft = Draft()
    ids, mask = draft.input("ids", 1, 6, dtype=INT64), draft.input("attention_mask", 1, 6, dtype=INT64)
    rows = draft.op.Gather(draft.normal("table", 9, 4), ids)
    weighted = draft.op.Mul(rows, draft.op.Unsqueeze(draft.op.Cast(mask, to=1), [2]))
    probes = make(draft.model({"y": (weighted, [1, 6, 4])}))
    assert {array.shape for probe in probes for array in probe.feeds.values()} == {(1, 6)}


def test_a_mask_without_a_telling_name_is_the_one_that_looks_nothing_up() -> None:
    model = encoder()
    model.graph.inputs[1].name = "which"
    probes = by_kind(make(model))
    assert probes["right-padded"].mask is not None
    assert np.array_equal(probes["right-padded"].feeds["which"], probes["right-padded"].mask)


def test_a_model_without_mask_gets_full_probes_alone() -> None:
    draft = Draft()
    x = draft.input("x", "batch", "seq", 4)
    probes = make(draft.model({"y": (draft.op.Relu(x), ["batch", "seq", 4])}))
    assert len(probes) > 1
    assert all(probe.mask is None and probe.name.startswith("full") for probe in probes)
    assert all(probe.feeds["x"].dtype == np.float32 and probe.feeds["x"].std() > 0.5 for probe in probes)


def test_lengths_beyond_the_positions_of_a_model_are_left_out() -> None:
    model = encoder()
    probes = make(model)
    assert max(probe.feeds["input_ids"].shape[1] for probe in probes) > POSITIONS
    kept = Prover(model, probes).probes
    assert 0 < len(kept) < len(probes)
    assert all(probe.feeds["input_ids"].shape[1] <= POSITIONS for probe in kept)


@pytest.mark.parametrize("positions", [5, 7])
def test_a_model_of_very_few_positions_is_proved_on_every_kind_of_mask(positions: int) -> None:
    model = encoder()
    table = next(node for node in model.graph if node.op_type == "Slice")
    table.replace_input_with(0, Editor(model).constant(np.arange(positions)[None], "few"))
    kept = by_kind(Prover(model, make(model)).probes)
    assert set(kept) == KINDS


def test_a_model_of_one_row_at_a_time_is_padded_all_the_same() -> None:
    draft = Draft()
    mask = draft.input("attention_mask", 1, 6, dtype=INT64)
    probes = by_kind(make(draft.model({"y": (draft.op.Neg(mask), [1, 6])}, dtype=INT64)))
    for kind in ("right-padded", "left-padded", "holed"):
        found = probes[kind].mask
        assert found is not None
        assert found.any() and not found.all()


@pytest.mark.parametrize("dtype", [BOOL, INT64, FLOAT], ids=str)
@pytest.mark.parametrize("shape", [("batch", "seq", "seq"), ("batch", 1, "seq", "seq"), ("batch", 1, 1, "seq")], ids=str)
def test_masks_per_query_are_exercised_too(shape: tuple[int | str, ...], dtype: ir.DataType) -> None:
    model = attention_with(*shape, dtype=dtype)
    probes = make(model)
    kept = by_kind(Prover(model, probes).probes)
    assert {kind.partition(",")[0] for kind in kept} == KINDS | ({"blind query"} if dtype == FLOAT and shape[-2] == "seq" else set())
    lows = {"": -10_000.0, ", lowest float": LOWEST, ", minus infinity": -np.inf}
    for kind, probe in kept.items():
        fed, mask = probe.feeds["attention_mask"], probe.mask
        assert mask is not None
        shown = fed == 0 if dtype == FLOAT else fed > 0
        low = next(low for said, low in lows.items() if kind.endswith(said) and (said or "," not in kind))
        assert fed.ndim == len(shape) and set(np.unique(fed)) <= ({0.0, low} if dtype == FLOAT else {0, 1})
        if kind.startswith("blind query"):
            continue
        assert shown.all() == (kind == "full")
        rows = shown.reshape(len(mask), -1, mask.shape[1])
        assert np.array_equal(rows.any(axis=(1, 2)), mask.any(axis=1))
        assert not rows[~mask.any(axis=1)].any()
        assert rows[mask.any(axis=1)].any(axis=2).all()
    assert (~kept["masked row"].mask.any(axis=1)).sum() == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("low", "finite"), [(-1e9, True), (-np.inf, False)])
def test_a_query_that_sees_nothing_is_probed_and_counts_where_the_model_is_finite_on_it(low: float, finite: bool, hidden: bool) -> None:
    draft = Draft()
    op = draft.op
    x, mask = draft.input("x", "batch", "seq", 4), draft.input("seen", "batch", "seq", "seq", dtype=BOOL)
    scores = op.MatMul(x, op.Transpose(x, perm=[0, 2, 1]))
    found = op.Softmax(op.Where(op.Not(mask) if hidden else mask, scores, np.float32(low)), axis=-1)
    model = draft.model({"y": (op.MatMul(found, x), ["batch", "seq", 4])})
    probes = make(model)
    kept = by_kind(Prover(model, probes).probes)
    assert kept.keys() - {"blind query"} == KINDS
    assert ("blind query" in kept) == finite
    probe = by_kind(probes)["blind query"]
    shown = probe.feeds["seen"] ^ hidden
    assert (shown.any(axis=2).sum(axis=1) == shown.shape[1] - 1).all()
    assert probe.counted("y").pick(np.ones(shown.shape[:2])).size == shown.shape[0] * shown.shape[1]


def test_a_float_mask_hides_by_all_that_may_hide_but_in_half() -> None:
    probes = make(attention_with("batch", 1, 1, "seq", dtype=FLOAT))
    assert {float(probe.feeds["attention_mask"].min()) for probe in probes} == {0.0, -1e4, LOWEST, -np.inf}
    half = MaskInput("mask", Form.ADDED).write(np.array([[True, False]]), (1, 2), np.dtype(np.float16), low=-np.inf)
    assert half.tolist() == [[0.0, -1e4]]


def test_queries_do_not_all_see_the_same_where_a_mask_lets_them_differ() -> None:
    probe = by_kind(make(attention_with("batch", 1, "seq", "seq", dtype=BOOL, name="seen")))["holed"]
    seen = probe.feeds["seen"][:, 0]
    assert (seen != seen[:, :1]).any()


def test_inputs_that_are_true_or_false_are_both() -> None:
    draft = Draft()
    flags = draft.input("flags", "batch", 5, 2, 3, 4, dtype=BOOL)
    drawn = make(draft.model({"y": (draft.op.Not(flags), ["batch", 5, 2, 3, 4])}, dtype=BOOL))[0].feeds["flags"]
    assert drawn[..., 0].all() and not drawn.all()


def pooled(places: str = "range", *, ids: bool = False) -> ir.Model:
    """Return a model that pools token ids over two spans a row, told by comparing with `places`."""
    draft = Draft()
    op = draft.op
    mask = draft.input("attention_mask", "batch", "seq", dtype=INT64)
    spans = draft.input("spans", "batch", 2, 2, dtype=INT64)
    end = op.Squeeze(op.Shape(mask, start=1, end=2), [0])
    row = {"range": op.Range(0, end, 1), "constant": np.arange(7), "scalar": np.int64(3)}[places]
    start, stop = op.Gather(spans, [0], axis=2), op.Slice(spans, [1], [2], [2])
    inside = op.And(op.GreaterOrEqual(row, start), op.Less(op.Unsqueeze(row, [0]) if places == "range" else row, stop))
    result = op.Cast(inside, to=int(FLOAT))
    if ids:
        result = op.Add(result, op.Cast(start, to=int(FLOAT)))
    return draft.model({"y": (result, ["batch", 2, "seq"])})


def test_spans_lie_among_the_real_tokens_and_most_hold_some() -> None:
    lengths = []
    for probe in make(pooled()):
        spans, mask = probe.feeds["spans"], probe.mask
        assert mask is not None and spans.shape == (len(mask), 2, 2) and spans.dtype == np.int64
        for row, real in zip(spans, mask, strict=True):
            known = np.flatnonzero(real) if real.any() else np.arange(len(real))
            assert known[0] <= row.min() and row.max() <= known[-1] + 1
        assert (spans[..., 1] >= spans[..., 0]).all()
        lengths += (spans[..., 1] - spans[..., 0]).ravel().tolist()
    assert np.mean(np.array(lengths) > 0) > 0.6 and max(lengths) > 8


def test_places_are_told_by_what_they_are_compared_with() -> None:
    assert max(probe.feeds["spans"].max() for probe in make(pooled("constant"))) > 1
    for other in (pooled("scalar"), pooled(ids=True)):
        assert {*np.unique([probe.feeds["spans"].max() for probe in make(other)])} == {1}


def test_an_input_that_no_probe_can_be_made_for_is_refused() -> None:
    draft = Draft()
    x = draft.input("words", "batch", dtype=ir.DataType.STRING)
    model = draft.model({"y": (draft.op.Identity(x), ["batch"])}, dtype=ir.DataType.STRING)
    with pytest.raises(InputError, match="input 'words' is of type"):
        make(model)
