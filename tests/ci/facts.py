"""What an editor of models must know: types, contents, which values mean the same, and whether a model is valid."""

from __future__ import annotations

import hashlib
import itertools
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ffc.graph.shapes.inference import infer

Type = tuple[ir.DataType, tuple[Any, ...]]
"""Element type and dimensions of a value, as `infer` has them."""


class Facts:
    """What is known of the values of a model's graph, by name; the model must stay as it is."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @cached_property
    def types(self) -> dict[str, Type]:
        """Types of all values of which both halves are known."""
        shapes, types = infer(self.model), {}
        for value in values(self.model.graph):
            dtype, shape = shapes.dtype(value), shapes.of(value)
            if dtype is not None and shape is not None:
                types[value.name or ""] = (dtype, shape)
        return types

    @cached_property
    def meanings(self) -> dict[str, bytes]:
        """A hash of the expression that each value is, whatever the names in it."""
        found: dict[str, bytes] = {}
        for value in [*self.model.graph.inputs, *self.model.graph.initializers.values()]:
            array = contents(value)
            found[value.name or ""] = _hash(repr(value.name).encode()) if array is None else _of_array(array)
        for node in self.model.graph:
            array = contents(node.outputs[0]) if is_constant(node) else None
            if array is not None:
                found[node.outputs[0].name or ""] = _of_array(array)
                continue
            parts = [f"{node.domain}.{node.op_type}".encode()]
            parts += [_of_attribute(node.attributes[name]) for name in sorted(node.attributes)]
            parts += [found[value.name or ""] if value else b"" for value in node.inputs]
            for index, value in enumerate(node.outputs):
                found[value.name or ""] = _hash(*parts, bytes([index]))
        return found


def is_constant(node: ir.Node) -> bool:
    """Whether a node is a standard Constant."""
    return node.op_type == "Constant" and node.domain == ""


def contents(value: ir.Value | None) -> np.ndarray | None:
    """Return the contents of an initializer or of a Constant node's output, None of what is neither."""
    if value is None or value.is_graph_input() or value.is_graph_output():
        return None
    producer = value.producer()
    if value.const_value is None and (producer is None or not is_constant(producer)):
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def values(graph: ir.Graph) -> list[ir.Value]:
    """Return all values of a graph: inputs, initializers, outputs of nodes."""
    return [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]


def sound(model: ir.Model) -> bool:
    """Whether a model is valid, but for float weights that became double; annotations that no longer hold go."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    constants = [each.t for node in proto.graph.node if node.op_type == "Constant" for each in node.attribute]
    for tensor in [*proto.graph.initializer, *constants]:
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    try:
        onnx.checker.check_model(proto)
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    told = {info.name: info.type.tensor_type for info in proto.graph.value_info}
    for value in values(model.graph):
        if value.name in told and not _agree(value, told[value.name]):
            value.type = value.shape = None
    return True


def _agree(value: ir.Value, told: onnx.TypeProto.Tensor) -> bool:
    """Whether an annotation contradicts what was inferred nowhere."""
    if value.dtype is None or value.shape is None or not told.HasField("shape"):
        return True
    dims = [each.dim_value if each.HasField("dim_value") else None for each in told.shape.dim]
    pairs = itertools.zip_longest(value.shape, dims, fillvalue=-1)
    known = [(one, other) for one, other in pairs if isinstance(one, int) and other is not None]
    return value.dtype == told.elem_type and len(value.shape) == len(dims) and all(one == two for one, two in known)


def _of_attribute(attribute: ir.Attr) -> bytes:
    value = attribute.value
    said = _of_array(value.numpy()) if attribute.type == ir.AttributeType.TENSOR else repr(value).encode()
    return _hash(attribute.name.encode(), said)


def _of_array(array: np.ndarray) -> bytes:
    return _hash(f"{array.dtype}{array.shape}".encode(), array.tobytes())


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
