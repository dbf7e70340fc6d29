"""Feed-forward networks are found, gated ones too, and near misses are named with the condition that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ffc.graph.blocks.attention import NotABlockError
from ffc.graph.blocks.feed_forward import FeedForwardFinder
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.products import Products
from ffc.graph.shapes.inference import infer
from tests.graph.blocks.test_finder import TOKENS, WIDTH, roles
from tests.graphs import Draft


def feed_forward_model(
    activation: Callable[[Any, Any], Any], *, residual: bool = True, tap: bool = False, width: int = WIDTH
) -> ir.Model:
    draft = Draft()
    x = draft.input("x", "batch", TOKENS, WIDTH)
    wide = activation(draft.op, draft.linear("in", x, WIDTH, 20))
    out = draft.linear("out", wide, 20, width)
    out = draft.op.Add(out, x) if residual else out
    outputs = {"y": (out, ["batch", TOKENS, width])}
    if tap:
        outputs["wide"] = (wide, ["batch", TOKENS, 20])
    return draft.model(outputs)


def erf_gelu(op: Any, x: Any) -> Any:
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, 1.4142135)), 1.0)), 0.5)


def tanh_gelu(op: Any, x: Any) -> Any:
    inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044715)), 0.79788)
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))


ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda op, x: op.Relu(x),
    "gelu": lambda op, x: op.Gelu(x),
    "gelu as erf": erf_gelu,
    "gelu as tanh": tanh_gelu,
    "silu": lambda op, x: op.Mul(x, op.Sigmoid(x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_two_products_with_an_activation_and_a_residual_are_a_feed_forward_network(
    activation: Callable[[Any, Any], Any],
) -> None:
    assert roles(find(feed_forward_model(activation))) == ["ffn_in", "ffn_out"]


def gated_model(*, fused: bool, order: str = "gate last") -> ir.Model:
    """Return a model of one gated network: its two wide halves from one product, or from one each."""
    draft = Draft()
    op = draft.op
    x = draft.input("x", "batch", TOKENS, WIDTH)
    if fused:
        first, second = op.Split(draft.linear("in", x, WIDTH, 40), [20, 20], axis=-1, outputs=2)
    else:
        first, second = draft.linear("first", x, WIDTH, 20), draft.linear("second", x, WIDTH, 20)
    active, gate = (first, second) if order == "gate last" else (second, first)
    out = draft.linear("out", op.Mul(op.Gelu(active), gate), 20, WIDTH)
    return draft.model({"y": (op.Add(out, x), ["batch", TOKENS, WIDTH])})


@pytest.mark.parametrize("order", ["gate last", "gate first"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gated_network_is_found_with_its_gate(fused: bool, order: str) -> None:
    (layer,) = find(gated_model(fused=fused, order=order)).layers
    assert layer.ffn is not None and layer.ffn.gate is not None
    assert [product.role for product in layer.products()] == ["ffn_in", "gate", "ffn_out"]
    assert (layer.ffn.units, layer.ffn.activation) == (20, "Gelu Mul")
    halves = [tuple(range(20)), tuple(range(20, 40))] if fused else [None, None]
    names = ["in.weight", "in.weight"] if fused else ["first.weight", "second.weight"]
    if order == "gate first":
        halves, names = halves[::-1], names[::-1]
    assert [layer.ffn.ffn_in.columns, layer.ffn.gate.columns] == halves
    assert [layer.ffn.ffn_in.weight.name, layer.ffn.gate.weight.name] == names


NO_FFN: dict[str, dict[str, Any]] = {
    "no residual connection": {"activation": ACTIVATIONS["gelu"], "residual": False},
    "the activation is an output": {"activation": ACTIVATIONS["gelu"], "tap": True},
    "a softmax between": {"activation": lambda op, x: op.Softmax(x)},
    "a bias vector between": {"activation": lambda op, x: op.Add(op.Relu(x), np.ones(20, np.float32))},
    "another width": {"activation": ACTIVATIONS["gelu"], "residual": False, "width": 7},
}


WHY_NO_FFN = {
    "no residual connection": "no residual connection is added to its output",
    "the activation is an output": "is an output of the model",
    "a softmax between": "Softmax",
    "a bias vector between": "treats each unit differently",
    "another width": "it leads from width 12 to 7, not back to it",
}


@pytest.mark.parametrize("what", NO_FFN)
def test_other_pairs_of_products_are_no_feed_forward_network(what: str) -> None:
    model = feed_forward_model(**NO_FFN[what])
    assert not {"ffn_in", "ffn_out"} & set(roles(find(model)))
    products, sizes = Products(model.graph), {"batch": 2, TOKENS: 3}
    finder = FeedForwardFinder(products, infer(model), sizes, {node: index for index, node in enumerate(model.graph)})
    with pytest.raises(NotABlockError, match=WHY_NO_FFN[what]):
        finder.find(next(product for product in products.by_output.values() if product.weight.name == "out.weight"))
