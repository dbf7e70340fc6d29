"""Computing what is constant in a graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.trace import OPSET
from ffc.graph.shapes.inference import Shapes

__all__ = ["FOLD_LIMIT", "fold"]

FOLD_LIMIT = 1 << 16
"""Bytes that a folded constant may have beyond those of its inputs, so that folding never inflates a model."""


def fold(editor: Editor) -> int:
    """Compute every node of the main graph whose inputs are all constant, unless that would inflate the model.

    The model is at opset 23 or later. Returns how many nodes were computed.
    """
    return sum(_fold_node(node, editor) for node in list(editor.graph))


def _fold_node(node: ir.Node, editor: Editor) -> bool:
    if node.domain or node.op_type == "Constant" or len(node.outputs) != 1 or not node.inputs:
        return False
    inputs = {str(value.name): constant(value) for value in node.inputs if value is not None}
    known = {name: array for name, array in inputs.items() if array is not None}
    if len(known) < len(inputs) or any(attr.type == ir.AttributeType.GRAPH for attr in node.attributes.values()):
        return False
    limit = FOLD_LIMIT + sum(array.nbytes for array in known.values())
    size = _size(node, editor.shapes)
    if size is None or size > limit:
        return False
    result = _evaluate(node, known, editor.model.opset_imports.get("", OPSET))
    if result is None or result.nbytes > limit:
        return False
    out = node.outputs[0]
    editor.replace(out, editor.constant(result, out.name or "folded"))
    return True


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
