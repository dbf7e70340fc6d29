"""Probes are inputs that a model can take: ids within its tables, masks as they are named, fixed sizes kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.proof.probes import Probe, from_data, make, token_axes
from ffc.compiler.proof.verify import Prover
from ffc.errors import InputError
from ffc.graph.dialect.edit import Editor
from tests.graphs import POSITIONS, VOCABULARY, Draft, encoder, run_passes

INT64, BOOL, FLOAT = ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT
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


# Masks per query and other truths


def attention_with(*shape: int | str, dtype: ir.DataType, name: str = "attention_mask") -> ir.Model:
    """Return a model of x, [batch, seq, 4], that attends to itself under a mask of `shape`."""
    draft = Draft()
    op = draft.op
    x, mask = draft.input("x", "batch", "seq", 4), draft.input(name, *shape, dtype=dtype)
    scores = op.MatMul(op.Unsqueeze(x, [1]), op.Transpose(op.Unsqueeze(x, [1]), perm=[0, 1, 3, 2]))
    across = op.Unsqueeze(mask, [1]) if len(shape) == 3 else mask
    if dtype == FLOAT:
        scores = op.Add(scores, across)
    else:
        scores = op.Where(op.Cast(across, to=BOOL.value), scores, np.float32(-np.inf))
    result = op.Squeeze(op.MatMul(op.Softmax(scores, axis=-1), op.Unsqueeze(x, [1])), [1])
    return draft.model({"y": (result, ["batch", "seq", 4])})


@pytest.mark.parametrize("dtype", [BOOL, INT64, FLOAT], ids=str)
@pytest.mark.parametrize("shape", [("batch", "seq", "seq"), ("batch", 1, "seq", "seq"), ("batch", 1, 1, "seq")], ids=str)
def test_masks_per_query_are_exercised_too(shape: tuple[int | str, ...], dtype: ir.DataType) -> None:
    model = attention_with(*shape, dtype=dtype)
    probes = make(model)
    kept = by_kind(Prover(model, probes).probes)
    assert set(kept) == KINDS
    for kind, probe in kept.items():
        fed, mask = probe.feeds["attention_mask"], probe.mask
        assert mask is not None
        shown = fed == 0 if dtype == FLOAT else fed > 0
        assert fed.ndim == len(shape) and set(np.unique(fed)) <= ({0.0, -10_000.0} if dtype == FLOAT else {0, 1})
        assert shown.all() == (kind == "full")
        rows = shown.reshape(len(mask), -1, mask.shape[1])
        assert np.array_equal(rows.any(axis=(1, 2)), mask.any(axis=1))
        assert not rows[~mask.any(axis=1)].any()
        assert rows[mask.any(axis=1)].any(axis=2).all()
    assert (~kept["masked row"].mask.any(axis=1)).sum() == 1  # type: ignore[union-attr]


def test_queries_do_not_all_see_the_same_where_a_mask_lets_them_differ() -> None:
    probe = by_kind(make(attention_with("batch", 1, "seq", "seq", dtype=BOOL, name="seen")))["holed"]
    seen = probe.feeds["seen"][:, 0]
    assert (seen != seen[:, :1]).any()


def test_inputs_that_are_true_or_false_are_both() -> None:
    draft = Draft()
    flags = draft.input("flags", "batch", 5, 2, 3, 4, dtype=BOOL)
    drawn = make(draft.model({"y": (draft.op.Not(flags), ["batch", 5, 2, 3, 4])}, dtype=BOOL))[0].feeds["flags"]
    assert drawn[..., 0].all() and not drawn.all()


# Inputs that say where tokens are


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


# Where tokens lie in outputs


def axes(output: tuple[int | str, ...], mask: tuple[int | str, ...] = ("batch", "seq")) -> int | str | None:
    draft = Draft()
    given = draft.input("attention_mask", *mask, dtype=INT64)
    result = draft.op.node("Unknown", given)
    return token_axes(draft.model({"y": (result, output)})).get("y", "by size")


@pytest.mark.parametrize(
    ("output", "axis"),
    [
        (("batch", "seq", 12), 1), (("batch", "seq"), 1), (("batch", 3, "seq", "seq"), 2), (("batch", 12), 0),
        (("batch", 12, 4), 0), ((3, 12), None), (("batch", "other", 4), "by size"), (("batch", "labels"), 0),
    ],
)  # fmt: skip
def test_dimensions_name_the_axis_of_the_tokens(output: tuple[int | str, ...], axis: int | str | None) -> None:
    assert axes(output) == axis


def test_equal_numbers_are_tokens_only_in_outputs_of_vectors() -> None:
    assert axes((1, 6, 4), (1, 6)) == 1
    assert axes((1, 6), (1, 6)) == 0
    assert axes(("batch", 6, 4), ("batch", 6)) == 1


def test_an_input_that_no_probe_can_be_made_for_is_refused() -> None:
    draft = Draft()
    x = draft.input("words", "batch", dtype=ir.DataType.STRING)
    model = draft.model({"y": (draft.op.Identity(x), ["batch"])}, dtype=ir.DataType.STRING)
    with pytest.raises(InputError, match="input 'words' is of type"):
        make(model)


# Rows of the user's own


def rows(number: int = 3, length: int = 5) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    mask = np.ones((number, length), np.int64)
    mask[1:, -2:] = 0
    return {
        "input_ids": random.integers(0, VOCABULARY, (number, length)),
        "attention_mask": mask,
        "token_type_ids": np.zeros((number, length), np.int64),
    }


def test_rows_come_in_batches_with_their_masks() -> None:
    given = rows(40)
    probes = from_data(encoder(), given)
    assert sum(len(probe.feeds["input_ids"]) for probe in probes) == 40
    assert np.array_equal(np.concatenate([probe.feeds["input_ids"] for probe in probes]), given["input_ids"])
    assert all(probe.mask is not None and np.array_equal(probe.mask, probe.feeds["attention_mask"] > 0) for probe in probes)


def test_rows_from_a_file_take_the_types_of_the_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", **{name: array.astype(np.int32) for name, array in rows().items()})
    (probe,) = from_data(encoder(), tmp_path / "rows.npz")
    assert np.array_equal(probe.feeds["input_ids"], rows()["input_ids"])
    assert probe.feeds["input_ids"].dtype == np.int64


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    without = rows()
    del without["attention_mask"]
    with pytest.raises(InputError, match="no array 'attention_mask'"):
        from_data(encoder(), without)
    with pytest.raises(InputError, match=r"have \[2, 3\] rows"):
        from_data(encoder(), rows() | {"input_ids": rows(2)["input_ids"]})
    with pytest.raises(InputError, match="cannot read rows from"):
        from_data(encoder(), tmp_path / "missing.npz")
    (tmp_path / "broken.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot read rows from"):
        from_data(encoder(), tmp_path / "broken.npz")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(3, np.int64), "has 1 dimensions, the input has 2"),
        (np.ones((3, 5, 1), np.int64), "has 3 dimensions, the input has 2"),
        (np.int64(1), "has 0 dimensions"),
        (np.ones((3, 5)), "is of type float64, the input takes int64"),
        (np.full((3, 5), "a"), "is of type <U1"),
        (np.full((3, 5), None), "is of type object"),
        ([[1, 2], [3]], "has rows of different lengths"),
        (np.full((3, 5), 2**63, np.uint64), "do not fit into the input's type, int64"),
    ],
)
def test_arrays_of_another_kind_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"array 'token_type_ids' .*{message}") as caught:
        from_data(encoder(), rows() | {"token_type_ids": given})
    assert "\n" not in str(caught.value)


def image_model(*shape: int | str) -> ir.Model:
    draft = Draft()
    return draft.model({"y": (draft.op.Relu(draft.input("x", *shape)), shape)})


def test_numbers_that_lose_nothing_are_taken() -> None:
    (probe,) = from_data(image_model("batch", 2), {"x": [[True, False], [False, True]]})
    assert probe.feeds["x"].dtype == np.float32
    (probe,) = from_data(image_model("batch", 2), {"x": np.array([[1, -np.inf]])})
    assert probe.feeds["x"].tolist() == [[1, -np.inf]]
    assert from_data(encoder(), rows() | {"attention_mask": np.ones((3, 5), np.bool_)})[0].feeds["attention_mask"].dtype == np.int64
    with pytest.raises(InputError, match="'x' holds NaN"):
        from_data(image_model("batch", 2), {"x": [[1.0, np.nan]]})


def test_fixed_sizes_must_be_met_and_fixed_batches_are_served() -> None:
    with pytest.raises(InputError, match="has size 3 on axis 1, the input is fixed at 2"):
        from_data(image_model("batch", 2), {"x": np.ones((4, 3))})
    probes = from_data(image_model(2, 2), {"x": np.ones((6, 2))})
    assert [probe.feeds["x"].shape for probe in probes] == [(2, 2)] * 3
    with pytest.raises(InputError, match="has 5 rows; the model takes 2 at a time"):
        from_data(image_model(2, 2), {"x": np.ones((5, 2))})


def test_an_input_that_is_the_same_for_all_rows_is_not_cut_into_batches() -> None:
    draft = Draft()
    x, bias = draft.input("x", "batch", 2), draft.input("bias", 1, 2)
    probes = from_data(draft.model({"y": (draft.op.Add(x, bias), ["batch", 2])}), {"x": np.ones((20, 2)), "bias": np.ones((1, 2))})
    assert [(len(p.feeds["x"]), len(p.feeds["bias"])) for p in probes] == [(16, 1), (4, 1)]


@pytest.mark.parametrize("dtype", [BOOL, FLOAT], ids=str)
def test_real_tokens_of_masks_per_query_are_those_that_a_query_sees(dtype: ir.DataType) -> None:
    shown = np.tril(np.ones((2, 1, 4, 4), np.bool_))
    shown[1, ..., 2:] = False
    given = shown if dtype == BOOL else np.where(shown, 0, -np.inf)
    (probe,) = from_data(attention_with("batch", 1, "seq", "seq", dtype=dtype), {"x": np.ones((2, 4, 4)), "attention_mask": given})
    assert probe.mask is not None
    assert probe.mask.tolist() == [[True] * 4, [True, True, False, False]]


def test_rows_that_the_model_cannot_run_are_refused_and_not_left_out() -> None:
    model = encoder()
    too_long = from_data(model, rows(2, POSITIONS + 1))
    with pytest.raises(InputError, match=r"the model does not run on data row 0 .*input_ids"):
        Prover(model, [*make(model), *too_long])
    outside = from_data(model, rows() | {"input_ids": np.full((3, 5), VOCABULARY)})
    with pytest.raises(InputError, match="the model does not run on data row 0"):
        Prover(model, [*make(model), *outside])


def test_a_file_that_is_one_array_or_a_cut_archive_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "whole.npz", **rows())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:200])
    for name in ("one.npy", "cut.npz"):
        with pytest.raises(InputError, match=f"cannot read rows from .*{name}"):
            from_data(encoder(), tmp_path / name)
