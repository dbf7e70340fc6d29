"""Hand-made encoders whose head reads few tokens, in the forms in which exporters write that, and some that read all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from ffc.graph.dialect.trace import Op
from tests.graphs import WIDTH, encoder

LABELS = 3

Head = Callable[[Any, Any], Any]
"""Given `op` and the last hidden state [batch, tokens, width], returns the rows [batch, width] that are classified."""


def first(op: Any, x: Any) -> Any:
    """Take the first token as the default exporter writes ``x[:, 0]``."""
    return op.Gather(x, np.int64(0), axis=1)


def classifier(head: Head = first, *, layers: int = 2, seed: int = 0, labels: bool = True) -> ir.Model:
    """Return the encoder of `tests.graphs` with a head.

    Args:
        head: What it does with the last hidden state.
        layers: Number of layers.
        seed: Seed of the weights.
        labels: Whether dense, tanh and a product with three labels follow, output ``logits`` [batch, 3]; otherwise
            what `head` returns is the output, called ``rows``.
    """
    model = encoder(layers=layers, pooler=False, seed=seed)
    graph, op, random = model.graph, Op(), np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (0.4 * random.standard_normal(shape)).astype(np.float32)

    (state,) = graph.outputs
    rows = head(op, state)
    if labels:
        pooled = op.Tanh(op.Gemm(rows, weight(WIDTH, WIDTH), weight(WIDTH), transB=1))
        rows = op.Add(op.MatMul(pooled, weight(WIDTH, LABELS)), weight(LABELS))
        rows.shape = ir.Shape(["batch", LABELS])
    rows.name, rows.type = "logits" if labels else "rows", ir.TensorType(ir.DataType.FLOAT)
    graph.extend(op.nodes)
    graph.outputs[:] = [rows]
    state.name = "state"
    NameFixPass()(model)
    return model
