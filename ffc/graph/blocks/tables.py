"""Tables that are looked up by a plain Gather."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import constant

__all__ = ["table_of"]


def table_of(node: ir.Node) -> np.ndarray | None:
    """Return the table [rows, W] of floats of which `node` takes rows, None if it does no such thing.

    One number a row is no table, but the scales of one that is int8.
    """
    if node.domain or node.op_type != "Gather":
        return None
    table, axis = constant(node.inputs[0]), node.attributes.get("axis")
    if table is None or table.dtype.kind != "f" or table.ndim != 2 or table.shape[1] == 1:
        return None
    return table if axis is None or axis.value == 0 else None
