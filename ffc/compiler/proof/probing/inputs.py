"""What the inputs of a model are: their types and fixed sizes, the tables that they index, and the mask."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc.errors import InputError
from ffc.graph.dialect.edit import constant
from ffc.graph.dialect.function import called

__all__ = ["dtype_of", "fixed_size", "is_mask_per_query", "likely_mask", "table_rows"]


def dtype_of(value: ir.Value) -> np.dtype:
    """Return the type of an input, float32 for one in bfloat16, as models that hold it are run.

    Raises:
        InputError: If the file does not say it.
    """
    if value.dtype in (None, ir.DataType.UNDEFINED):
        raise InputError(f"input '{value.name}' has no type; export the model again")
    return ir.DataType.FLOAT.numpy() if value.dtype == ir.DataType.BFLOAT16 else value.dtype.numpy()


def fixed_size(value: ir.Value, axis: int) -> int | None:
    """Return the size at which a dimension of an input is fixed, None where it is free."""
    dims = list(value.shape or ())
    dim = dims[axis] if axis < len(dims) else None
    return dim if isinstance(dim, int) and dim >= 0 else None


def table_rows(value: ir.Value) -> int | None:
    """Return the number of rows of the smallest constant table that ids from `value` look up as they are, or None."""
    rows: list[int] = []
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            node = use.node
            table = constant(node.inputs[0]) if node.op_type == "Gather" and use.idx == 1 else None
            call_tables = _call_tables(node, use.idx)
            depth = constant(node.inputs[1]) if node.op_type == "OneHot" and use.idx == 0 else None
            if table is not None:
                rows.append(table.shape[0])
            elif depth is not None:
                rows.append(int(depth.reshape(-1)[0]))
            elif call_tables:
                rows += call_tables
            elif node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten") and use.idx == 0:
                pending.append(node.outputs[0])
    return min(rows, default=None)


def _call_tables(node: ir.Node, index: int) -> list[int]:
    """Return the numbers of rows of the tables that input `index` of an ``ffc`` function looks up."""
    function = called(node)
    if function is None:
        return []
    given, name = function.given(node), function.tensors[index]
    tables = [constant(given[table]) for table, ids in function.tables.items() if ids == name]
    return [table.shape[0] for table in tables if table is not None]


def likely_mask(model: ir.Model) -> ir.Value | None:
    """Return the input that says which tokens are real.

    It has two axes and numbers that index no table; where there is none, it is a mask per query.
    """
    able = [v for v in model.graph.inputs if v.shape is not None and len(v.shape) == 2 and not table_rows(v)]
    per_query = [value for value in model.graph.inputs if is_mask_per_query(value)]
    named = [value for value in [*able, *per_query] if "mask" in str(value.name).lower()]
    integers = [value for value in able if value.dtype is not None and dtype_of(value).kind in "iub"]
    return next(iter([*named, *integers, *per_query]), None)


def is_mask_per_query(value: ir.Value) -> bool:
    """Return whether an input is an attention mask [B, S, S], [B, 1, S, S] or [B, 1, 1, S]."""
    if value.shape is None or len(value.shape) not in (3, 4) or value.dtype is None:
        return False
    kind = dtype_of(value).kind
    return kind == "b" or (kind in "iuf" and "mask" in str(value.name).lower())
