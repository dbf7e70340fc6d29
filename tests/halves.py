"""Small models as an exporter writes them for half precision or bfloat16."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HALF, BRAIN, FLOAT = ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT


def as_half(model: ir.Model, dtype: ir.DataType = HALF) -> ir.Model:
    """Return a clone of a float32 model in `dtype`: its weights, its casts, what it takes and what it gives."""
    clone = model.clone()
    values = [*clone.graph.initializers.values(), *clone.graph.inputs]
    values += [value for node in clone.graph.all_nodes() for value in node.outputs]
    for value in values:
        if value.const_value is not None and value.const_value.dtype == FLOAT:
            value.const_value = narrowed(value.const_value, dtype)
        if value.dtype == FLOAT:
            value.type = ir.TensorType(dtype)
    for node in clone.graph.all_nodes():
        for attr in list(node.attributes.values()):
            if attr.type == ir.AttributeType.TENSOR and attr.value.dtype == FLOAT:
                node.attributes[attr.name] = ir.AttrTensor(attr.name, narrowed(attr.value, dtype))
            elif attr.name == "to" and attr.value == FLOAT.value:
                node.attributes["to"] = ir.AttrInt64("to", dtype.value)
    return clone


def narrowed(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.Tensor:
    """Return a float32 tensor in `dtype`; the lowest number stays the lowest."""
    array = tensor.numpy()
    low = np.finfo(np.float16).min if dtype == HALF else -3.3895e38
    return ir.Tensor(np.maximum(array, np.float32(low)).astype(dtype.numpy()), name=tensor.name)
