"""What is computed ahead of time, and what is left alone because it would inflate the model or cannot be told."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.fold import FOLD_LIMIT, fold


def model_of(body: str) -> ir.Model:
    """Return a model whose constants are initializers, as `opset` leaves them."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> g (float[n] x) => (float[n] y) {body}')
    return ir.from_proto(proto)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_computes_what_is_constant() -> None:
    model = model_of("<float[2] w = {1, 2}> { t = Add(w, w) y = Add(x, t) }")
    assert fold(Editor(model)) == 1 and operators(model) == ["Add"]
    (array,) = [
        value.const_value.numpy() for value in model.graph.initializers.values() if value.uses() and value.const_value
    ]
    np.testing.assert_array_equal(array, [2, 4])


@pytest.mark.parametrize(
    "body",
    [
        f"<int64[1] n = {{{FOLD_LIMIT}}}> {{ t = ConstantOfShape(n) s = ReduceSum<keepdims=0>(t) y = Add(x, s) }}",
        f"<int64[1] n = {{{FOLD_LIMIT}}}, float[1] w = {{1}}> {{ t = Expand(w, n) s = ReduceSum<keepdims=0>(t) y = Add(x, s) }}",
        f"<int64[1] n = {{{FOLD_LIMIT}}}, float[1] w = {{1}}> {{ t = Tile(w, n) s = ReduceSum<keepdims=0>(t) y = Add(x, s) }}",
    ],
)
def test_leaves_what_would_inflate_the_model(body: str) -> None:
    model = model_of(body)
    assert fold(Editor(model)) == 0 and len(operators(model)) == 3


def test_leaves_weights_that_a_runtime_computes_with_few_bits() -> None:
    """A DequantizeLinear is fused into the product that reads it; of a float nobody would know."""
    model = model_of("<int8[2] w = {1, 2}, float s = {0.5}> { t = DequantizeLinear(w, s) y = Mul(x, t) }")
    assert fold(Editor(model)) == 0 and operators(model) == ["DequantizeLinear", "Mul"]


@pytest.mark.parametrize(
    ("constants", "body", "left"),
    [
        ("int64 n = {32}", "h = Cast<to=10>(n) r = Sqrt(h) t = Cast<to=1>(r)", ["Sqrt", "Cast"]),
        ("float n = {5.65685}", "h = Cast<to=10>(n) t = Cast<to=1>(h)", ["Cast", "Cast"]),
        ("int64 n = {300}", "h = Cast<to=16>(n) t = Cast<to=1>(h)", ["Cast", "Cast"]),
        ("int64 n = {32}", "h = Cast<to=10>(n) t = Cast<to=1>(h)", []),
    ],
)
def test_rounds_nothing_to_half_where_it_must_be_exact(constants: str, body: str, left: list[str]) -> None:
    """What a model in half means in float32 would then be another number."""
    body = f"<{constants}> {{ {body} y = Add(x, t) }}"
    exact, rounded = model_of(body), model_of(body)
    fold(Editor(exact), exactly=True)
    fold(Editor(rounded))
    assert operators(exact) == [*left, "Add"] and operators(rounded) == ["Add"]


@pytest.mark.parametrize("operator", ["Range(a, b, c)", "Resize(w, , , n)", "OneHot(i, d, v)"])
def test_does_not_believe_a_recorded_size(operator: str) -> None:
    """Each would fill a terabyte; the model says that it gives one number, and no rule says otherwise."""
    constants = (
        "float a = {0}, float b = {1e12}, float c = {1}, float[1,1,1,1] w = {1}, int64[4] n = {1,1,1000000,1000000}"
    )
    constants += ", int64[1] i = {0}, int64 d = {1000000000000}, float[2] v = {0, 1}"
    model = model_of(f"<{constants}, float[1] t> {{ t = {operator} s = ReduceSum<keepdims=0>(t) y = Add(x, s) }}")
    assert fold(Editor(model)) == 0 and len(operators(model)) == 3
