"""The fp32 meaning of a graph whose numbers are rounded, to int8 or to half.

Rounding to int8 amplifies harmless differences, and to half makes some, so structural passes are proved on this
meaning instead: each ``LinearInt8`` becomes the ``Linear`` of its dequantised weight, and half becomes float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect import ops
from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.half import holds_half, in_float32

__all__ = ["dequantised", "exact", "holds_int8"]


def holds_int8(model: ir.Model) -> bool:
    """Whether a product of the graph is a call of an int8 function."""
    return any(ops.is_call(node, *ops.PLAIN) for node in model.graph)


def dequantised(model: ir.Model) -> ir.Model:
    """Return a clone of `model` in which int8 products are fp32 products of the dequantised weights."""
    clone = model.clone()
    editor = Editor(clone)
    for node in [node for node in clone.graph if ops.is_call(node, *ops.PLAIN)]:
        x, w, scale, b = node.inputs
        weight, scales = constant(w), constant(scale)
        assert weight is not None and scales is not None
        plain = weight.astype(np.float32) * scales
        editor.call(ops.PLAIN[node.op_type], [x, plain, b], node.attributes, replaces=node.outputs[0])
    ops.register(clone)
    return clone


def exact(model: ir.Model) -> ir.Model:
    """Return a clone of `model` in which nothing is rounded but weights: int8 products and half become fp32."""
    plain = dequantised(model)
    return in_float32(plain) if holds_half(plain) else plain
