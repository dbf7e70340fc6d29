"""How the parts of a model are written as text: tensors, types, shapes, attributes, names and operators."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = [
    "SHOWN_ELEMENTS", "Notation", "digest", "is_learned", "is_small", "operator", "quoted", "quoted_string",
    "tensor_type", "typed",
]  # fmt: skip

SHOWN_ELEMENTS = 8
"""Up to this many elements, a tensor is a parameter to read (axes, shapes, scales) rather than a weight."""

_PLAIN = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)


@dataclass
class Notation:
    """Writes tensors and attributes; hashes each tensor once.

    Attributes:
        weights: Whether to show what weights hold: a hash of each tensor of more than 8 elements, and the elements of
            those that are small.
    """

    weights: bool = True
    known: dict[int, tuple[ir.TensorProtocol, str]] = field(default_factory=dict)

    def tensor(self, tensor: ir.TensorProtocol) -> str:
        """Return type, shape, and contents: all of a small tensor, the first 8 hex of a sha256 of a large one."""
        if id(tensor) not in self.known:
            self.known[id(tensor)] = tensor, self._rendered(tensor)  # as long as it is held, no other has its id
        return self.known[id(tensor)][1]

    def _rendered(self, tensor: ir.TensorProtocol) -> str:
        kind = tensor_type(tensor)
        if isinstance(tensor, ir.ExternalTensor):  # only a model that was loaded without its data has any
            return kind
        if is_small(tensor) and (self.weights or not is_learned(tensor)):
            return f"{kind}{{{', '.join(_element(each) for each in tensor.numpy().reshape(-1))}}}"
        return f"{kind}#{digest(tensor)[:8]}" if self.weights else kind

    def attribute(self, attribute: ir.Attr) -> str:
        """Return the value of an attribute that holds no graph."""
        written: dict[str, Callable[[Any], str]] = {
            "FLOAT": lambda value: str(np.float32(value)),
            "STRING": quoted_string,
            "TENSOR": self.tensor,
            "TYPE_PROTO": lambda value: typed(value.type, value.shape),
        }
        kind = attribute.type.name
        write = written.get(kind.removesuffix("S"), str)
        return f"[{', '.join(map(write, attribute.value))}]" if kind.endswith("S") else write(attribute.value)


def is_small(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is one to read (axes, shapes, scales) rather than a weight."""
    return tensor.size <= SHOWN_ELEMENTS


def is_learned(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is of a kind that training or quantising makes: several numbers that are not whole, or bytes."""
    bytewise = tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return tensor.size > 1 and (bytewise or tensor.dtype.is_floating_point())


def tensor_type(tensor: ir.TensorProtocol) -> str:
    """Return type and shape of a tensor, as in ``f32[384,1536]``."""
    return f"{_dtype(tensor.dtype)}{_dims(tensor.shape)}"


def digest(tensor: ir.TensorProtocol) -> str:
    """Return the sha256, in hex, over a tensor's type, shape and bytes, not copied where numpy can view them."""
    found = hashlib.sha256(tensor_type(tensor).encode())
    if tensor.dtype == ir.DataType.STRING:
        for each in tensor.numpy().reshape(-1):
            found.update(len(each).to_bytes(8, "little") + bytes(each))
    elif tensor.dtype.bitwidth < 8:
        found.update(tensor.tobytes())
    else:
        found.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def operator(of: ir.Node | ir.Function) -> str:
    """Return the operator of a node, or the name of a function, with domain and overload where it has them."""
    name = of.op_type if isinstance(of, ir.Node) else of.name
    return f"{of.domain + '.' if of.domain else ''}{name}{':' + of.overload if of.overload else ''}"


def typed(kind: ir.TypeProtocol | None, shape: ir.Shape | None) -> str:
    """Return a type as text: ``f32[batch,384]``, ``*`` where the rank is unknown, ``?`` where anything is."""
    if kind is None:
        return "?"
    if isinstance(kind, ir.TensorType):
        return f"{_dtype(kind.dtype)}{_dims(shape)}"
    inner = kind.elem_type
    name = type(kind).__name__.removesuffix("Type").lower()
    return f"{name}({_dtype(inner) + _dims(shape) if isinstance(inner, ir.DataType) else typed(inner, shape)})"


def _dtype(dtype: ir.DataType) -> str:
    return {ir.DataType.BOOL: "bool", ir.DataType.STRING: "str"}.get(dtype) or dtype.short_name()


def _dims(shape: ir.ShapeProtocol | None) -> str:
    """Render a shape: `*` where the rank is unknown, `?` for an unknown dimension, nothing for a scalar."""
    if shape is None:
        return "[*]"
    dims = [str(dim) if isinstance(dim, int) else "?" if dim.value is None else _dim(str(dim.value)) for dim in shape]
    return f"[{','.join(dims)}]" if dims else ""


def _dim(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w .()+*/,\-]*", name) else json.dumps(name)


def _element(value: np.generic | bytes) -> str:
    if isinstance(value, bytes):
        return quoted_string(value)
    return str(value).lower() if isinstance(value, np.bool_) else str(value)


def quoted_string(value: str | bytes) -> str:
    """Return a string in quotes of JSON."""
    return json.dumps(value.decode(errors="backslashreplace") if isinstance(value, bytes) else value)


def quoted(name: str | None) -> str:
    """Return a name, in quotes of JSON unless it is a plain word."""
    return name if name and _PLAIN.fullmatch(name) else json.dumps(name or "")
