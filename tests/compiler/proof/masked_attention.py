"""An attention under a mask of any kind, for the tests of probes and rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.graphs import Draft

INT64, BOOL, FLOAT = ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT


def attention_with(*shape: int | str, dtype: ir.DataType, name: str = "attention_mask") -> ir.Model:
    """Return a model of x, [batch, seq, 4], that attends to itself under a mask of `shape`."""
    draft = Draft()
    op = draft.op
    x, mask = draft.input("x", "batch", "seq", 4), draft.input(name, *shape, dtype=dtype)
    scores = op.MatMul(op.Unsqueeze(x, [1]), op.Transpose(op.Unsqueeze(x, [1]), perm=[0, 1, 3, 2]))
    across = op.Unsqueeze(mask, [1]) if len(shape) == 3 else mask
    if dtype == FLOAT:
        scores = op.Add(scores, across)
    else:
        scores = op.Where(op.Cast(across, to=BOOL.value), scores, np.float32(-np.inf))
    result = op.Squeeze(op.MatMul(op.Softmax(scores, axis=-1), op.Unsqueeze(x, [1])), [1])
    return draft.model({"y": (result, ["batch", "seq", 4])})
