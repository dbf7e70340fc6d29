"""The bodies of the dialect compute what their docstrings say, held against numpy, and models carry them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ffc.graph.dialect import ops
from ffc.graph.dialect.function import FUNCTIONS
from ffc.graph.dialect.trace import trace
from tests.graphs import Draft, encoder, of_program, run_passes, run_stock

RANDOM = np.random.default_rng(0)
LOWEST = float(np.finfo(np.float32).min)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def run(function: str, *arrays: np.ndarray, **attributes: Any) -> np.ndarray:
    """Call a function as a model-local function of a model, in stock onnxruntime."""
    inputs = dict(zip(FUNCTIONS[function].tensors, arrays, strict=True))

    def call(op: Any, *values: Any) -> Any:
        return op.ffc.node(function, *values, **attributes)

    draft = Draft()
    values = [draft.input(name, *array.shape, dtype=ir.Tensor(array).dtype) for name, array in inputs.items()]
    result = call(draft.op, *values)
    return run_stock(draft.model({"out": (result, [f"n{axis}" for axis in range(3)])}), inputs)["out"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | float, heads: int, scale: float) -> np.ndarray:
    batch, tokens, _ = q.shape
    q, k, v = (x.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = (q @ k.transpose(0, 1, 3, 2)).astype(np.float64) * scale + mask
    exponent = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = exponent / exponent.sum(axis=-1, keepdims=True)
    return (probabilities @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, -1)


@pytest.mark.parametrize(
    ("function", "attributes", "activation"),
    [
        ("Linear", {}, lambda x: x),
        ("LinearRelu", {}, lambda x: np.maximum(x, 0)),
        ("LinearGelu", {}, gelu),
        ("LinearGelu", {"approximate": "none"}, gelu),
        ("LinearGelu", {"approximate": "tanh"}, gelu_tanh),
    ],
)
def test_linear_is_product_bias_and_activation(
    function: str, attributes: dict[str, Any], activation: Callable[[np.ndarray], np.ndarray]
) -> None:
    x, w, b = 2 * normal(2, 3, 4), normal(4, 5), normal(5)
    assert np.allclose(run(function, x, w, b, **attributes), activation(x @ w + b), atol=1e-5)


def test_the_two_forms_of_gelu_differ() -> None:
    x, w, b = 2 * normal(2, 3, 4), normal(4, 5), normal(5)
    exact, tanh = (run("LinearGelu", x, w, b, approximate=form) for form in ("none", "tanh"))
    assert 1e-5 < np.abs(exact - tanh).max() < 1e-2


@pytest.mark.parametrize("rows", [False, True])
def test_int8_product_quantises_its_input_on_the_fly(rows: bool) -> None:
    x, b, scale = normal(2, 3, 6), normal(5), np.linspace(0.01, 0.05, 5, dtype=np.float32)
    w = RANDOM.integers(-64, 65, (6, 5), np.int8)
    factor = np.abs(x).max(axis=-1, keepdims=True) if rows else np.float32(1)
    low, high = min(0.0, float((x / factor).min())), max(0.0, float((x / factor).max()))
    step = (high - low) / 255
    zero = np.rint(-low / step)
    quantised = np.clip(np.rint(x / factor / step) + zero, 0, 255) - zero
    expected = (quantised * step) @ (w * scale) * factor + b
    found = run("LinearInt8Rows" if rows else "LinearInt8", x, w, scale, b)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("mask", [None, "right", "bias"])
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_the_softmax_of_scaled_and_masked_scores_times_values(heads: int, mask: str | None) -> None:
    q, k, v = normal(2, 5, 12), normal(2, 5, 12), normal(2, 5, 6)
    if mask is None:
        assert np.allclose(run("Attention", q, k, v, heads=heads, scale=0.7), attention(q, k, v, 0.0, heads, 0.7), atol=1e-5)
        return
    added = np.zeros((2, 1, 5, 5), np.float32) if mask == "right" else normal(1, heads, 5, 5)
    if mask == "right":
        added[1, ..., 3:] = LOWEST
    found = run("AttentionMasked", q, k, v, added, heads=heads, scale=0.7)
    assert np.allclose(found, attention(q, k, v, added, heads, 0.7), atol=1e-5)


def test_norms_and_embeddings() -> None:
    x, skip, gamma, beta = normal(2, 3, 4), normal(2, 3, 4), normal(4), normal(4)
    assert np.allclose(run("Norm", x, gamma, beta, epsilon=0.1), norm(x, gamma, beta, 0.1), atol=1e-5)
    assert np.allclose(run("AddNorm", x, skip, gamma, beta, epsilon=0.1), norm(x + skip, gamma, beta, 0.1), atol=1e-5)
    word, kind, place = normal(9, 4), normal(2, 4), normal(7, 4)
    ids, types, positions = RANDOM.integers(0, 9, (2, 3)), RANDOM.integers(0, 2, (2, 3)), np.array([[2, 3, 4]])
    total = word[ids] + kind[types] + place[positions]
    found = run("Embed", ids, types, positions, word, kind, place, gamma, beta, epsilon=0.1)
    assert np.allclose(found, norm(total, gamma, beta, 0.1), atol=1e-5)


def test_every_function_has_a_body_in_standard_operators_of_one_output() -> None:
    for name, function in FUNCTIONS.items():
        fragment = trace(function.body)
        assert len(fragment.outputs) == 1, name
        assert all(not node.domain and onnx.defs.has(node.op_type) for node in fragment.nodes), name


def test_a_number_of_a_call_reaches_the_body_through_its_attribute() -> None:
    def program(op: Any, x: Any, *, epsilon: float) -> Any:
        return op.ffc.Norm(x, np.ones(4, np.float32), np.zeros(4, np.float32), epsilon=epsilon)

    x = normal(2, 4)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    for epsilon in (1e-5, 5.0):
        found = run_stock(of_program(program, {"x": x}, {}, {"epsilon": epsilon}), {"x": x})["y"]
        assert np.allclose(found, norm(x, ones, zeros, epsilon), atol=1e-5)


def test_attribute_gives_what_a_call_says_or_the_default() -> None:
    plain = ir.node("LinearGelu", [], domain="ffc")
    tanh = ir.node("LinearGelu", [], {"approximate": "tanh"}, domain="ffc")
    assert [ops.LinearGelu.attribute(node, "approximate") for node in (plain, tanh)] == ["none", "tanh"]


def test_register_brings_the_bodies_that_are_called_and_takes_away_others() -> None:
    model = run_passes(encoder(), "opset", "clean", "fuse")
    called = {node.op_type for node in model.graph if node.domain == "ffc"}
    assert {key[1] for key in model.functions} == called
    assert "AttentionMasked" in called
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    lowered = run_passes(model, "lower")
    assert not lowered.functions
    assert "ffc" not in lowered.opset_imports
