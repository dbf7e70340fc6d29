"""Computing what is constant in a graph."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.trace import OPSET
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import moves

__all__ = ["FOLD_LIMIT", "fold"]

FOLD_LIMIT = 1 << 16
"""Bytes that a folded constant may have beyond those of its inputs, so that folding never inflates a model."""

_EXACT = 256
"""Integers up to this are the same in bfloat16, and in half."""

_LEFT = {"Constant", "DequantizeLinear", "QuantizeLinear"}
"""What is not computed: by the last two onnxruntime tells which products to compute with few bits."""


def fold(editor: Editor, *, exactly: bool = False) -> int:
    """Compute every node of the main graph whose inputs are all constant, unless that would inflate the model.

    Args:
        editor: Of a model at opset 23 or later.
        exactly: Whether to leave what would be rounded to half or bfloat16.

    Returns:
        How many nodes were computed.
    """
    return sum(_fold_node(node, editor, exactly) for node in list(editor.graph))


def _fold_node(node: ir.Node, editor: Editor, exactly: bool) -> bool:
    if node.domain or node.op_type in _LEFT or len(node.outputs) != 1 or not node.inputs:
        return False
    inputs = {str(value.name): constant(value) for value in node.inputs if value is not None}
    known = {name: array for name, array in inputs.items() if array is not None}
    if len(known) < len(inputs) or any(attr.type == ir.AttributeType.GRAPH for attr in node.attributes.values()):
        return False
    limit = FOLD_LIMIT + sum(array.nbytes for array in known.values())
    size = _size(node, editor.shapes)
    if size is None or size > limit or (exactly and _may_round(node, known.values(), editor.shapes)):
        return False
    result = _evaluate(node, known, editor.model.opset_imports.get("", OPSET))
    if result is None or result.nbytes > limit:
        return False
    out = node.outputs[0]
    editor.replace(out, editor.constant(result, out.name or "folded"))
    return True


def _may_round(node: ir.Node, given: Iterable[np.ndarray], shapes: Shapes) -> bool:
    """Whether `node` gives half or bfloat16, and does more than move elements or cast small integers."""
    if shapes.dtype(node.outputs[0]) not in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) or moves(node):
        return False
    small = all(array.dtype.kind in "iub" and (np.abs(array) <= _EXACT).all() for array in given)
    return node.op_type != "Cast" or not small


def _size(node: ir.Node, shapes: Shapes) -> int | None:
    """Return the bytes of what `node` computes before it is computed, or None if they are not known.

    They must follow from its inputs: the shape that a model records for a value may be a lie.
    """
    shape, dtype = shapes.concluded(node), shapes.dtype(node.outputs[0])
    if shape is None or dtype is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return math.prod(dim for dim in shape if isinstance(dim, int)) * math.ceil(dtype.itemsize)


def _evaluate(node: ir.Node, inputs: dict[str, Any], version: int) -> np.ndarray | None:
    proto = ir.to_proto(node)
    opset = [onnx.helper.make_opsetid("", version)]
    infos = [onnx.helper.make_tensor_value_info(name, 0, None) for name in inputs]
    outputs = [onnx.helper.make_tensor_value_info(proto.output[0], 0, None)]
    graph = onnx.helper.make_graph([proto], "fold", infos, outputs)
    try:
        results: Any = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opset)).run(None, inputs)
        return np.asarray(results[0])
    except Exception:  # whatever the evaluator lacks, the runtime has: the node stays
        return None
