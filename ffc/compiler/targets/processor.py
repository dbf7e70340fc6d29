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
    runner = Runner(ir.from_onnx_text(_PRODUCT), threads=1)
    exact = 255 * 127 * _INNER
    batches = (np.full((rows, _INNER), 255, np.uint8) for rows in (1, 5))
    return any((runner.run({"x": x})["y"] != exact).any() for x in batches)


_PRODUCT = f"""<ir_version: 10, opset_import: ["" : {OPSET}]>
product (uint8[rows, {_INNER}] x) => (int32[rows, {_OUTER}] y)
<int8[{_INNER}, {_OUTER}] w = {{{", ".join(["127"] * (_INNER * _OUTER))}}}> {{ y = MatMulInteger(x, w) }}"""
"""A product with a weight at the end of its range."""
