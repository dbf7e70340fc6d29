"""Inputs that say where tokens are, such as the starts and ends of spans, told by what a graph does with them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import constant

__all__ = ["draw_token_indices", "holds_token_indices"]

_COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_PARTS = ("Cast", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def holds_token_indices(value: ir.Value) -> bool:
    """Return whether an input says where tokens are, as the starts and ends of spans do.

    Its integers are compared with the places of a row, a Range or a constant vector, and serve nothing else.
    """
    if value.dtype is None or not value.dtype.is_integer():
        return False
    compared = False
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if node.op_type in _COMPARISONS:
                if not _counts_tokens(node.inputs[1 - use.idx]):
                    return False
                compared = True
            elif node.op_type in _PARTS and use.idx == 0:
                pending += node.outputs
            elif node.op_type != "Shape":
                return False
    return compared


def draw_token_indices(mask: np.ndarray, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Draw places, ascending along the last axis, from the first real token of each row up to the end of its last.

    Args:
        mask: Which tokens are real, bool [B, S]; a row without any has places throughout.
        shape: [B, ...].
        random: What is drawn from.
    """
    first, end = mask.argmax(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    drawn = random.random(shape).T * (end - first + 1) + first
    return np.sort(drawn.T.astype(np.int64), axis=-1)


def _counts_tokens(value: ir.Value | None) -> bool:
    """Return whether a value counts the places of a row."""
    while value is not None and (node := value.producer()) is not None and node.op_type in _PARTS:
        value = node.inputs[0]
    if value is None or (node := value.producer()) is None or node.op_type == "Constant":
        fixed = constant(value)
        return fixed is not None and fixed.size > 1
    return node.op_type == "Range"
