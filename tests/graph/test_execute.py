"""Models in memory run as they are, large weights without a copy in the protobuf, and failures say what and where."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ffc.errors import CannotApplyError, InputError
from ffc.graph.execute import Runner, light_proto
from tests.graphs import Draft, difference, encoder, feeds, masks, run_stock


def product(inner: int, *, unread: bool = False) -> ir.Model:
    draft = Draft()
    x = draft.input("x", "rows", inner)
    result = draft.op.MatMul(x, draft.normal("large", inner, inner))
    if unread:
        draft.normal("unread", 50, 50)
    return draft.model({"y": (result, ["rows", inner])})


def test_large_weights_travel_beside_the_protobuf() -> None:
    proto, weights = light_proto(product(64))
    assert list(weights) == ["large"]
    assert len(proto) < 1000
    small, none = light_proto(product(8))
    assert not none
    assert len(small) > 8 * 8 * 4


@pytest.mark.parametrize("inner", [8, 64])
@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("optimise", [False, True])
def test_it_computes_what_stock_onnxruntime_does(inner: int, unread: bool, optimise: bool) -> None:
    model = product(inner, unread=unread)
    x = {"x": np.random.default_rng(0).standard_normal((3, inner)).astype(np.float32)}
    assert np.allclose(Runner(model, optimise=optimise).run(x)["y"], run_stock(model, x)["y"], rtol=1e-5)


def test_a_whole_encoder_runs_and_stays_as_it_is() -> None:
    model = encoder()
    before = ir.to_proto(model).SerializeToString()
    inputs = feeds(masks(2, 7)["holed"])
    assert difference(run_stock(model, inputs), Runner(model).run(inputs)) < 1e-5
    assert ir.to_proto(model).SerializeToString() == before


def test_a_model_that_onnxruntime_does_not_know_is_refused_in_one_line() -> None:
    draft = Draft()
    result = draft.op.node("Nonsense", draft.input("x", 3))
    with pytest.raises(CannotApplyError, match=r"refuses the model.*Nonsense") as caught:
        Runner(draft.model({"y": (result, [3])}))
    assert "\n" not in str(caught.value)


def test_a_model_that_is_newer_than_onnxruntime_is_refused_with_what_to_do() -> None:
    draft = Draft()
    found = draft.op.Cos(draft.op.Cast(draft.input("x", 3), to=ir.DataType.BFLOAT16.value))
    model = draft.model({"y": (draft.op.Cast(found, to=ir.DataType.FLOAT.value), [3])})
    with pytest.raises(CannotApplyError, match=r"implementation for Cos.*; this is onnxruntime \S+, install a newer one$"):
        Runner(model)
    model.opset_imports[""] = 99
    with pytest.raises(CannotApplyError, match=r"refuses the model: ONNX Runtime only .*; this is onnxruntime \S+, install a newer one$"):
        Runner(model)


def test_inputs_that_do_not_fit_are_named_with_their_shapes() -> None:
    with pytest.raises(CannotApplyError, match=r"fails on inputs x \[3, 9\]"):
        Runner(product(8)).run({"x": np.zeros((3, 9), np.float32)})


def test_what_fails_is_told_without_places_in_the_source_of_onnxruntime() -> None:
    draft = Draft()
    result = draft.op.Add(draft.input("x", "n"), np.ones(4, np.float32))
    with pytest.raises(CannotApplyError) as caught:
        Runner(draft.model({"y": (result, ["n"])})).run({"x": np.zeros(3, np.float32)})
    found = str(caught.value)
    assert "x [3]: Add '" in found and "': Attempting to broadcast" in found and found.endswith("3 by 4")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(ir.SequenceType, "a sequence"), (ir.OptionalType, "an optional value"), (ir.SparseTensorType, "a sparse tensor")],
)
@pytest.mark.parametrize("what", ["input", "output"])
def test_anything_but_tensors_is_refused(kind: type, name: str, what: str) -> None:
    model = product(8)
    (value,) = model.graph.inputs if what == "input" else model.graph.outputs
    inner = ir.DataType.FLOAT if kind is ir.SparseTensorType else ir.TensorType(ir.DataType.FLOAT)
    value.type = kind(inner)
    with pytest.raises(InputError, match=f"{what} '{value.name}' is {name}; only tensors can be proved"):
        Runner(model)
