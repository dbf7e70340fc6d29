"""Tables whose rows are looked up, by a plain Gather or by a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect import ops
from ffc.graph.dialect.edit import constant
from ffc.graph.dialect.function import Function, called

__all__ = ["lookups", "table_of"]


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


def lookups(
    graph: ir.Graph, precision: Literal["half", "int8"]
) -> Iterator[tuple[ir.Node, Function, dict[str, ir.Value | None]]]:
    """Yield each node that looks up float32 tables, its like with tables in `precision`, and what is given for these.

    What is given is by name of a tensor, and lacks the scales of tables. Nodes may be replaced meanwhile.
    """
    for node in list(graph):
        function, plain = called(node), table_of(node)
        stored = function.rounded(precision) if function is not None and function.tables else None
        if function is not None and stored is not None:
            yield node, stored, function.given(node)
        elif plain is not None and plain.dtype == np.float32:
            stored = ops.GatherHalf if precision == "half" else ops.GatherInt8
            yield node, stored, {"table": node.inputs[0], "ids": node.inputs[1]}
