"""The fp32 meaning of a graph whose numbers are rounded, to int8 or to half.

Rounding to int8 amplifies harmless differences, and to half makes some, so structural passes are proved on this
meaning instead: each ``LinearInt8`` becomes the ``Linear`` of its dequantised weight, and half becomes float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.function import called, quantises
from ffc.graph.dialect.widen import holds_half, in_float32

__all__ = ["dequantised", "exact", "holds_int8", "rounds"]


def holds_int8(model: ir.Model) -> bool:
    """Whether the graph calls a function that rounds what it is given to int8."""
    return any(quantises(node) for node in model.graph)


def rounds(model: ir.Model) -> bool:
    """Whether `model` rounds numbers, to int8 or to half, be it as they leave."""
    return holds_int8(model) or holds_half(model)


def dequantised(model: ir.Model) -> ir.Model:
    """Return a clone of `model` in which int8 products are fp32 products of the dequantised weights."""
    clone = model.clone()
    editor = Editor(clone)
    for node in list(clone.graph):
        function = called(node)
        if function is None or function.exact is None or not function.quantises:
            continue
        given: dict[str, Any] = function.given(node)
        for tensor, scales in function.scales.items():
            stored, scale = constant(given[tensor]), constant(given[scales])
            assert stored is not None and scale is not None
            given[tensor] = stored.astype(np.float32) * scale
        editor.splice(function.exact.call, given, node.attributes, replaces=node.outputs[0])
    return clone


def exact(model: ir.Model) -> ir.Model:
    """Return a clone of `model` in which nothing is rounded but weights: int8 products and half become fp32."""
    plain = dequantised(model)
    return in_float32(plain) if holds_half(plain) else plain
