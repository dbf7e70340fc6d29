"""Telling a graph that another tool has quantised, which is left as it is: rounding amplifies harmless changes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["reason_to_leave", "rounded_nodes"]

# Operators whose result is rounded to few bits, or comes of operands that were.
_ROUNDED = {
    "": {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
        "QuantizeLinear",
    },
    "com.microsoft": {
        "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized", "MatMulBnb4",
        "MatMulFpQ4", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QEmbedLayerNormalization", "QGemm",
        "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool",
        "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere",
        "QMoE", "QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization", "QOrderedMatMul", "QuantizeLinear",
    },
}  # fmt: skip


def rounded_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the operators of the main graph that another tool wrote to compute with few bits."""
    return (node for node in model.graph if node.op_type in _ROUNDED.get(node.domain, ()))


def reason_to_leave(model: ir.Model) -> str | None:
    """Return why `model` is to be left as it is where another tool has quantised it, or None.

    A change of one part in ten million may move a number over the edge of a step, and so the outputs by a step: what
    is equal can then not be told from what is not. The int8 calls of ``ffc`` are no such case: their meaning is known.
    """
    node = next(rounded_nodes(model), None)
    if node is None:
        return None
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"it is quantised already ({name} {node.name}); put dequantize before, or compile from the model in float32"
