"""What not every onnxruntime that ffc takes can run: tests of that are skipped where the one at hand cannot, and counted.

A model that needs it is refused there, by onnxruntime itself, in the first step of the proof.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as errors


def _needs(what: str, graph: str, opset: int = 23, gives: float | None = None) -> pytest.MarkDecorator:
    """Return a mark for tests of what a graph has; its inputs are all ones, and its output what it `gives`."""
    return pytest.mark.skipif(not _runs(graph, opset, gives), reason=f"this onnxruntime has no {what}")


def _runs(graph: str, opset: int, gives: float | None) -> bool:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {graph}')
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {value.name: np.ones(value.shape, np.float32) for value in session.get_inputs()})
    except (errors.Fail, errors.InvalidArgument, errors.NotImplemented, errors.RuntimeException):
        return False
    return gives is None or np.allclose(found[0], gives)


needs_quantize_linear = _needs(
    "QuantizeLinear of opset 23", "(float[4] x, float[1] s) => (uint8[4] y) { t = Squeeze(s) y = QuantizeLinear(x, t) }"
)  # fmt: skip
needs_opset_24 = _needs("opset 24", "(float[4] x) => (float[4] y) { y = Abs(x) }", opset=24)
needs_norm_of_one = _needs(
    "LayerNormalization of one number", "(float[2, 1] x, float[1] w) => (float[2, 1] y) { y = LayerNormalization(x, w) }"
)  # fmt: skip
needs_attention_outputs = _needs(
    "second output of Attention",
    "(float[1, 1, 2, 4] x) => (float[1, 1, 2, 4] y, float[1, 1, 2, 2] s) { y, k, v, s = Attention(x, x, x) }",
)
needs_grouped_keys = _needs(
    "right Attention with grouped keys",
    "(float[2, 5, 12] q, float[2, 5, 4] k) => (float[2, 5, 12] y) "
    "{ y = Attention<q_num_heads: int = 3, kv_num_heads: int = 1>(q, k, k) }",
    gives=1,
)
needs_bool_masks = _needs(
    "0 for a query that a bool mask hides all from",
    "(float[1, 1, 2, 4] x, float[1, 1, 2, 2] m) => (float[1, 1, 2, 4] y) "
    "{ keep = Less(m, m) y = Attention(x, x, x, keep) }",
    gives=0,
)
needs_norm_by_number = _needs(
    "LayerNormalization with one number as its scale",
    "(float[1, 2, 4] x, float[1] w) => (float[1, 2, 4] y) { s = Squeeze(w) y = LayerNormalization<axis = 1>(x, s, s) }",
)
