"""Probes are inputs that a model can take: ids within its tables, masks as they are named, fixed sizes kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from ffc.compiler.probes import Probe, from_data, make
from ffc.compiler.verify import Prover
from ffc.errors import InputError
from tests.graphs import POSITIONS, VOCABULARY, Draft, encoder, run_passes

INT64 = ir.DataType.INT64


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
    probes = by_kind(make(encoder()))
    assert set(probes) == {"full", "right-padded", "left-padded", "holed", "masked row"}
    for name, probe in probes.items():
        mask = probe.mask
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
            assert sorted(mask.all(axis=1)) == [False, True, True]


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
