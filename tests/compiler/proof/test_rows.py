"""Rows of a user's own become probes, or are refused with the reason."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

import ffc
from ffc.compiler.proof.probes import make
from ffc.compiler.proof.rows import from_data
from ffc.compiler.proof.verify import Prover, measure
from ffc.compiler.reports import content
from ffc.compiler.reports.report import from_json, to_json
from ffc.compiler.reports.terminal import terminal
from ffc.compiler.reports.writing import to_markdown
from ffc.errors import InputError
from tests.compiler.proof.masked_attention import BOOL, FLOAT, attention_with
from tests.graphs import POSITIONS, VOCABULARY, Draft, difference, encoder, run_stock


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
    with pytest.raises(InputError, match=r"differ in rows, or have none: 'input_ids' 2, 'attention_mask' 3"):
        from_data(encoder(), rows() | {"input_ids": rows(2)["input_ids"]})
    with pytest.raises(InputError, match="cannot read rows from"):
        from_data(encoder(), tmp_path / "missing.npz")
    (tmp_path / "broken.npz").write_bytes(b"nothing of the kind")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("broken.npz", "one.npy"):
        with pytest.raises(InputError, match=f"cannot read rows from .*{name}: it is no .npz file; numpy.savez writes one"):
            from_data(encoder(), tmp_path / name)
    with pytest.raises(InputError, match="the data is of type int; give an array per input"):
        from_data(encoder(), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(3, np.int64), "has rank 1, the input has rank 2"),
        (np.ones((3, 5, 1), np.int64), "has rank 3, the input has rank 2"),
        (np.int64(1), "has rank 0"),
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


def test_fixed_sizes_must_be_met_and_fixed_batches_are_served() -> None:
    with pytest.raises(InputError, match="has size 3 on axis 1, the input is fixed at 2"):
        from_data(image_model("batch", 2), {"x": np.ones((4, 3))})
    probes = from_data(image_model(2, 2), {"x": np.ones((6, 2))})
    assert [probe.feeds["x"].shape for probe in probes] == [(2, 2)] * 3
    with pytest.raises(InputError, match="has 5 rows; the model takes 2 at a time"):
        from_data(image_model(2, 2), {"x": np.ones((5, 2))})


def transposed_by() -> ir.Model:
    """Return a model whose inputs share no axis of rows: a table, a shape and a scalar."""
    draft = Draft()
    op = draft.op
    table, shape = draft.input("table", "entries", 3), draft.input("shape", 2, dtype=ir.DataType.INT64)
    factor = draft.input("factor")
    result = op.Mul(op.Reshape(table, shape, allowzero=1), factor)
    return draft.model({"y": (result, ["rows", "columns"])})


FEEDS = [
    {"table": np.ones((4, 3), np.float32), "shape": np.array([2, 6]), "factor": np.float32(2)},
    {"table": np.ones((5, 3), np.float32), "shape": np.array([15, 1]), "factor": np.float32(3)},
]


def test_inputs_that_share_no_axis_of_rows_are_one_feed() -> None:
    (probe,) = from_data(transposed_by(), FEEDS[0])
    assert {name: array.shape for name, array in probe.feeds.items()} == {"table": (4, 3), "shape": (2,), "factor": ()}


def test_a_list_is_taken_as_whole_feeds(tmp_path: Path) -> None:
    files = []
    for number, feed in enumerate(FEEDS):
        files.append(tmp_path / f"{number}.npz")
        np.savez(files[-1], **feed)  # type: ignore[arg-type]
    for data in (FEEDS, files):
        probes = from_data(transposed_by(), data)
        assert [probe.name for probe in probes] == ["data feed 1", "data feed 2"]
        assert [probe.feeds["table"].shape for probe in probes] == [(4, 3), (5, 3)]
    (probe,) = from_data(encoder(), [rows(40)])
    assert len(probe.feeds["input_ids"]) == 40


def test_a_feed_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data feed 2: the data's array 'shape' has size 3 on axis 0, the input is fixed at 2"):
        from_data(transposed_by(), [FEEDS[0], FEEDS[1] | {"shape": np.array([1, 3, 5])}])
    np.savez(tmp_path / "less.npz", table=np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match=r"less\.npz: the data has no array 'shape'"):
        from_data(transposed_by(), [tmp_path / "less.npz"])
    with pytest.raises(InputError, match="empty list"):
        from_data(transposed_by(), [])


def test_rows_are_the_proof_alone_where_no_probe_can_be_made_and_the_report_says_so() -> None:
    result = ffc.compile(transposed_by(), "lower", data=FEEDS)
    assert "runs on none of the inputs made for it" in result.report.alone
    assert content.title(result.report).endswith("proved on the rows given alone")
    assert next(iter(content.facts(result.report))) == "proof"
    assert from_json(to_json(result.report)).alone == result.report.alone
    shown = StringIO()
    Console(file=shown, width=1000).print(terminal(result.report))
    assert "proved on the rows given alone" in shown.getvalue().splitlines()[0]
    assert "proved on the rows given alone" in to_markdown(result.report).splitlines()[0]
    with pytest.raises(InputError, match=r"none of the inputs .* give rows that it runs on as --data rows.npz, .*: table FLOAT \[entries,3\]"):
        ffc.compile(transposed_by(), "clean")


def roots() -> ir.Model:
    """Return a model that is finite on numbers above zero alone."""
    draft = Draft()
    return draft.model({"y": (draft.op.Sqrt(draft.input("x", "batch", 4)), ["batch", 4])})


def test_outputs_that_are_finite_on_rows_alone_are_proved_on_these() -> None:
    with pytest.raises(InputError, match="output 'y' of the model is not finite on probe 'full"):
        ffc.compile(roots(), "clean")
    assert "not finite on probe 'full" in ffc.compile(roots(), "clean", data={"x": np.ones((2, 4))}).report.alone
    with pytest.raises(InputError, match="output 'y' of the model is not finite on probe 'data row 0'"):
        ffc.compile(roots(), "clean", data={"x": -np.ones((2, 4))})


def test_what_is_not_finite_on_rows_must_stay_what_it_was() -> None:
    model = roots()
    data = from_data(model, {"x": np.array([[1.0, -1.0, np.inf, np.nan]])})
    prover = Prover(model, data)
    nan, inf = np.nan, np.inf
    for found, fits in (([1, nan, inf, nan], True), ([1, 0, inf, nan], False), ([1, nan, -inf, nan], False), ([2, nan, inf, nan], False)):
        after = [{"y": np.array([found], np.float32)}]
        verdict = measure(prover.probes, prover.source, after, "none")
        assert (verdict.difference < 1e-6) == fits


def test_weights_that_are_listed_as_inputs_need_no_rows(tmp_path: Path) -> None:
    proto = ir.to_proto(encoder(layers=1))
    for weight in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    proto.ir_version = 3
    onnx.save(proto, tmp_path / "m.onnx")
    result = ffc.compile(tmp_path / "m.onnx", "fuse", data=rows())
    assert result.report.verdict is not None
    assert {value.name for value in result.model.graph.inputs} == rows().keys()
    given = ffc.compile(ir.from_proto(proto), "fuse").model
    assert difference(run_stock(encoder(), rows()), run_stock(given, rows()), rows()["attention_mask"]) < 1e-5


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
