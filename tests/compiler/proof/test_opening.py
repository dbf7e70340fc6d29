"""A model is run on what can be found for it: at sizes that it takes, or on the user's rows alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.proof.opening import opened
from ffc.compiler.reports import content
from ffc.errors import InputError
from tests.graphs import Draft

INT64, BOOL, FLOAT, STRING = ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.STRING


def reshaped(*shape: int, inputs: tuple[int | str, ...] = ("batch", "seq", 4)) -> ir.Model:
    """Return a model that brings x to a shape that its export wrote down."""
    draft = Draft()
    return draft.model({"y": (draft.op.Relu(draft.op.Reshape(draft.input("x", *inputs), list(shape))), ["a"] * len(shape))})


def test_a_model_that_runs_at_the_sizes_of_its_export_alone_is_proved_there_and_told_so() -> None:
    result = ffc.compile(reshaped(6, 2, 4, inputs=("batch", 3, "seq")), "clean")
    assert result.report.remark.startswith("the model calls 'batch', 'seq' free and ran at the size of its export alone")
    assert "dynamic_shapes" in result.report.remark
    assert content.facts(result.report)["sizes"] == result.report.remark
    assert not ffc.compile(reshaped(-1, 2, 4), "clean").report.remark


def squared() -> ir.Model:
    """Return a model of tokens [1, S] and 7 S² + 3 numbers, which no sizes that are tried are."""
    draft = Draft()
    x, numbers = draft.input("x", 1, "seq"), draft.input("numbers", "count")
    length = draft.op.Shape(x, start=1, end=2)
    wanted = draft.op.Add(draft.op.Mul(draft.op.Mul(length, length), [7]), [3])
    return draft.model({"y": (draft.op.Relu(x), [1, "seq"]), "z": (draft.op.Reshape(numbers, wanted), ["count"])})


def test_rows_at_one_size_are_no_size_of_the_export() -> None:
    one, other = (
        {"x": np.ones((1, length), np.float32), "numbers": np.ones(7 * length**2 + 3, np.float32)} for length in (40, 21)
    )
    remark = ffc.compile(squared(), "clean", data=[one]).report.remark
    assert remark.startswith("the model calls 'count', 'seq' free and ran at the size of the rows given alone, x [1, 40]")
    assert "give rows of other sizes too" in remark
    assert not ffc.compile(squared(), "clean", data=[one, other]).report.remark


def test_tokens_may_come_first() -> None:
    draft = Draft()
    x = draft.input("x", "seq", "batch", 4)
    y = draft.op.Add(draft.op.Reshape(draft.op.Relu(x), [11, -1, 4]), x)
    shapes = {probe.feeds["x"].shape for probe in opened(draft.model({"y": (y, ["seq", "batch", 4])})).probes}
    assert {shape[0] for shape in shapes} == {11} and len(shapes) > 1


def test_rows_of_a_model_that_runs_at_one_size_show_that_size() -> None:
    model = reshaped(5, 35, 4)
    prover = opened(model, [{"x": np.ones((25, 7, 4))}])
    assert {probe.feeds["x"].shape for probe in prover.probes} == {(25, 7, 4)}
    assert any(not probe.required for probe in prover.probes)
    assert not prover.alone


@pytest.mark.parametrize(
    ("shape", "inputs", "first"),
    [
        ((-1, 3, 8, 8, 64), ("batch", 3, "height", "width"), (64, 64)),
        ((-1, 512), ("batch", "samples"), (512,)),
        ((-1, 16, 3), ("batch", 3, "points"), (16,)),
        ((1, 49, 4), (1, "height", "width", 4), (7, 7)),
    ],
    ids=["a square", "samples", "a multiple of eight", "the side of a square"],
)
def test_more_sizes_are_tried_than_those_of_probes(
    shape: tuple[int, ...], inputs: tuple[int | str, ...], first: tuple[int, ...]
) -> None:
    probes = opened(reshaped(*shape, inputs=inputs)).probes
    free = [axis for axis, dim in enumerate(inputs) if isinstance(dim, str) and axis]
    assert tuple(probes[0].feeds["x"].shape[axis] for axis in free) == first


def test_sizes_that_weights_ask_for_are_met() -> None:
    draft = Draft()
    op = draft.op
    x, image = draft.input("x", "batch", "seq", "width"), draft.input("image", "batch", "channels", "height", "other")
    inner = op.MatMul(op.Add(op.Relu(x), draft.normal("bias", 6)), draft.normal("w", 6, 5))
    conv = op.Conv(image, draft.normal("kernel", 4, 3, 2, 2))
    probes = opened(draft.model({"y": (inner, ["batch", "seq", 5]), "z": (conv, ["batch", 4, "h", "w"])})).probes
    assert len(probes) > 1
    assert {probe.feeds["x"].shape[2] for probe in probes} == {6}
    assert {probe.feeds["image"].shape[1] for probe in probes} == {3}


def test_dimensions_that_are_sums_of_others_are_consistent() -> None:
    draft = Draft()
    op = draft.op
    x, past = draft.input("x", "batch", "sequence_length", 4), draft.input("past", "batch", "past_sequence_length", 4)
    mask = draft.input("mask", "batch", "past_sequence_length + sequence_length", dtype=INT64)
    longer = draft.input("longer", "batch", "sequence_length + 1", 4)
    keys = op.Concat(past, x, axis=1)
    scores = op.Where(op.Unsqueeze(op.Cast(mask, to=int(BOOL)), [1]), op.MatMul(x, op.Transpose(keys, perm=[0, 2, 1])), np.float32(-np.inf))
    y = op.Add(op.Add(op.MatMul(op.Softmax(scores, axis=-1), keys), x), op.Slice(longer, [1], [2**62], [1]))
    model = draft.model({"y": (y, ["batch", "sequence_length", 4]), "present": (keys, ["batch", "p", 4])})
    probes = {probe.name.rsplit(" ", 1)[0]: probe for probe in opened(model).probes}
    assert probes.keys() >= {"full", "right-padded", "left-padded", "holed"}
    probe = probes["right-padded"]
    shapes = {name: array.shape[1] for name, array in probe.feeds.items()}
    assert shapes["mask"] == shapes["past"] + shapes["x"] and shapes["longer"] == shapes["x"] + 1
    assert probe.mask is not None and not probe.mask.all()
    counted = probe.counted("y").mask
    assert counted is not None and np.array_equal(counted, probe.mask[:, -shapes["x"] :])
    assert ffc.compile(model, "fuse").report.verdict is not None


def test_scalars_of_every_type_are_drawn() -> None:
    draft = Draft()
    op = draft.op
    x, flag = draft.input("x", "batch", 4), draft.input("flag", dtype=BOOL)
    kinds = [ir.DataType.INT32, INT64, ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.DOUBLE, FLOAT]
    for number, kind in enumerate(kinds):
        x = op.Add(x, op.Cast(draft.input(f"s{number}", dtype=kind), to=int(FLOAT)))
    model = draft.model({"y": (op.Where(flag, x, op.Neg(x)), ["batch", 4])})
    for probe in opened(model).probes:
        assert all(array.shape == () for name, array in probe.feeds.items() if name != "x")
    assert ffc.compile(model, "clean").report.verdict is not None


def test_a_scalar_is_one_of_the_numbers_that_a_graph_compares_it_with() -> None:
    draft = Draft()
    op = draft.op
    rate, x = draft.input("rate", dtype=INT64), draft.input("x", "batch", 4)
    known = op.Or(op.Equal(rate, np.int64(16000)), op.Equal(rate, np.int64(8000)))
    probes = opened(draft.model({"y": (op.Where(known, x, op.Neg(x)), ["batch", 4])})).probes
    assert {int(probe.feeds["rate"]) for probe in probes} <= {8000, 16000}


def test_texts_are_refused_by_their_type() -> None:
    draft = Draft()
    words = draft.input("words", dtype=STRING)
    with pytest.raises(InputError, match="input 'words' is of type STRING; probes can be made for numbers only"):
        ffc.compile(draft.model({"y": (draft.op.Identity(words), [])}, dtype=STRING), "clean")


def test_states_of_a_recurrence_have_as_many_rows_as_what_it_reads() -> None:
    draft = Draft()
    op = draft.op
    x, state = draft.input("x", None, None, 4), draft.input("state", 2, None, 4)  # type: ignore[arg-type]
    y = op.Add(op.ReduceMean(x, [1], keepdims=0), op.Gather(state, np.int64(1), axis=0))
    for probe in opened(draft.model({"y": (y, ["n", 4])})).probes:
        assert probe.feeds["state"].shape == (2, len(probe.feeds["x"]), 4)


def test_a_model_that_runs_on_nothing_asks_for_rows_of_the_inputs_that_were_guessed() -> None:
    with pytest.raises(InputError, match=r"none of the inputs made for it.*give rows .* --data rows.npz, .*: x FLOAT \[batch,seq,4\]") as caught:
        ffc.compile(reshaped(4099, 4099, 4), "clean")
    assert "\n" not in str(caught.value)
