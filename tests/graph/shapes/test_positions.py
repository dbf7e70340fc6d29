"""Positions sent through operators that move data arrive where onnxruntime puts the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.graph.shapes.inference import infer
from ffc.graph.shapes.positions import BATCH, LENGTH, concrete, move, moves
from tests.graphs import Draft, run_stock

SIZES = {"batch": BATCH, "seq": LENGTH}
SHAPE = (BATCH, LENGTH, 12)

MOVES: dict[str, Callable[[Any, Any], Any]] = {
    "transpose": lambda op, x: op.Transpose(x, perm=[0, 2, 1]),
    "transpose reversed": lambda op, x: op.Transpose(x),
    "reshape": lambda op, x: op.Reshape(x, [0, 0, 3, 4]),
    "reshape to a computed shape": lambda op, x: op.Reshape(x, op.Concat(op.Shape(x, end=2), [-1], [4], axis=0)),
    "slice": lambda op, x: op.Slice(x, [4], [8], [2]),
    "slice with steps": lambda op, x: op.Slice(x, [0, 1], [9, 2], [2, 1], [2, 1]),
    "slice to the end": lambda op, x: op.Slice(x, [-4], [2**63 - 1], [-1]),
    "gather one": lambda op, x: op.Gather(x, np.int64(5), axis=2),
    "gather several": lambda op, x: op.Gather(x, [5, 0], axis=2),
    "gather from the end": lambda op, x: op.Gather(x, np.int64(-1), axis=-1),
    "split": lambda op, x: op.Split(x, [3, 4, 5], axis=2, outputs=3)[1],
    "split evenly": lambda op, x: op.Split(x, axis=-1, num_outputs=3, outputs=3)[2],
    "unsqueeze": lambda op, x: op.Unsqueeze(x, [1]),
    "squeeze": lambda op, x: op.Squeeze(op.Unsqueeze(x, [1]), [1]),
    "flatten": lambda op, x: op.Flatten(x, axis=2),
    "identity": lambda op, x: op.Identity(x),
}


def built(make: Callable[[Any, Any], Any]) -> tuple[ir.Model, ir.Value]:
    draft = Draft()
    x = draft.input("x", "batch", "seq", 12, dtype=ir.DataType.INT64)
    result = make(draft.op, x)
    model = draft.model({"y": (result, [f"n{axis}" for axis in range(4)])}, dtype=ir.DataType.INT64)
    result.shape = None
    return model, result


@pytest.mark.parametrize("make", MOVES.values(), ids=MOVES)
def test_positions_arrive_where_the_data_does(make: Callable[[Any, Any], Any]) -> None:
    model, result = built(make)
    shapes = infer(model)
    positions = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    path = []
    value = result
    while (node := value.producer()) is not None:
        assert moves(node)
        path.append((node, value))
        assert node.inputs[0] is not None
        value = node.inputs[0]
    array: np.ndarray | None = positions
    for node, output in reversed(path):
        assert array is not None
        array = move(node, array, output, shapes, SIZES)
    proto = ir.to_proto(model)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    expected = run_stock(ir.from_proto(proto), {"x": positions})["y"]
    assert array is not None
    assert np.array_equal(array, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda op, x: op.Gather(x, op.ReduceMax(x, keepdims=0), axis=2),
        lambda op, x: op.Slice(x, op.Unsqueeze(op.ReduceMax(x, keepdims=0), [0]), [9], [2]),
        lambda op, x: op.Slice(x, [9], [0], [2], [-1]),
        lambda op, x: op.Reshape(x, op.Concat([-1], op.Unsqueeze(op.ReduceMax(x, keepdims=0), [0]), axis=0)),
    ],
    ids=["gather", "slice", "slice backwards", "reshape"],
)
def test_what_depends_on_the_data_is_not_guessed(make: Callable[[Any, Any], Any]) -> None:
    model, result = built(make)
    node = result.producer()
    assert node is not None
    assert moves(node)
    assert move(node, np.arange(np.prod(SHAPE)).reshape(SHAPE), result, infer(model), SIZES) is None


def test_operators_that_compute_do_not_move() -> None:
    assert not any(moves(ir.node(name, [])) for name in ("Add", "Concat", "Expand", "Cast", "Pad"))
    assert not moves(ir.node("Transpose", [], domain="com.microsoft"))
    assert not moves(None)


def test_a_shape_is_concrete_only_if_all_its_symbols_have_sizes() -> None:
    model, result = built(MOVES["transpose"])
    shapes = infer(model)
    assert concrete(shapes, result, SIZES) == (BATCH, 12, LENGTH)
    assert concrete(shapes, result, {"batch": 1}) is None
