"""The pass fast-gelu keeps its contract, and says when there is nothing to do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from fast_gelu import FastGelu

import ffc

TEXT = """
<ir_version: 10, opset_import: ["": 20]>
feed_forward (float[batch, 2] x) => (float[batch, 3] y)
<float[2, 3] w = {0.5, -1.0, 2.0, 1.5, 0.3, -0.7}, float[3] b = {0.1, 0.2, -0.3}> {
    product = MatMul(x, w)
    total = Add(product, b)
    y = ACTIVATION(total)
}
"""


def feed_forward(activation: str) -> ir.Model:
    """Return a model of one product and its activation."""
    return ir.from_onnx_text(TEXT.replace("ACTIVATION", activation))


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """Run a model that is in memory."""
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def test_outputs_move_by_no_more_than_the_approximation() -> None:
    model, x = feed_forward("Gelu"), np.random.default_rng(1).standard_normal((5, 2)).astype(np.float32)
    result = ffc.compile(model, [FastGelu(expect=1)])
    assert 0 < np.abs(outputs(model, x) - outputs(result.model, x)).max() < 1e-3


def test_the_budget_is_checked() -> None:
    with pytest.raises(ffc.GateError, match="mean cosine"):
        ffc.compile(feed_forward("Gelu"), [FastGelu(cosine=1.1)])


def test_a_model_without_gelu_is_left_alone() -> None:
    with pytest.raises(ffc.CannotApplyError, match="made 0 changes where expect=1"):
        ffc.compile(feed_forward("Relu"), [FastGelu(expect=1)])
