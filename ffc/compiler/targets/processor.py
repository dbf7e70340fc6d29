"""What the processor at hand does to int8 products, found out by running one."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.trace import OPSET
from ffc.graph.execute import Runner

__all__ = ["overflows"]

_INNER, _OUTER = 8, 16


@functools.cache
def overflows() -> bool:
    """Whether onnxruntime's product of uint8 inputs and int8 weights may overflow here.

    On x86 without VNNI it adds the products of two neighbours in 16 bits, and what does not fit is cut off without a
    word. A product at the ends of both ranges, whose result is known, tells. It is run with one row and with several,
    which have kernels of their own.
    """
    runner = Runner(_product(), threads=1)
    exact = 255 * 127 * _INNER
    batches = (np.full((rows, _INNER), 255, np.uint8) for rows in (1, 5))
    return any((runner.run({"x": x})["y"] != exact).any() for x in batches)


def _product() -> ir.Model:
    """Return a model of one product of x, uint8 [rows, 8], with a weight at the end of its range."""
    weight = ir.Tensor(np.full((_INNER, _OUTER), 127, np.int8), name="w")
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(["rows", _INNER]))
    w = ir.Value(name="w", type=ir.TensorType(weight.dtype), shape=weight.shape, const_value=weight)
    node = ir.node("MatMulInteger", [x, w])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.INT32), ir.Shape(["rows", _OUTER])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": OPSET}, name="product")
    return ir.Model(graph, ir_version=10)
