"""Operands of Range: scalars, as ONNX wants them."""

from __future__ import annotations

from ffc import Editor

__all__ = ["take_scalars"]


def take_scalars(editor: Editor) -> int:
    """Make scalars of the operands of Range that have an axis, of one element; return how many there were.

    onnxruntime counts with those as long as it does not see their shape, and refuses the model where it does, as it
    may once constants are folded.
    """
    count = 0
    for node in list(editor.graph):
        if node.op_type != "Range" or node.domain:
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and editor.shapes.of(value) == (1,):
                scalar = editor.at(node, f"{value.name}.scalar").Squeeze(value, [0])
                editor.replace_input(node, index, scalar)
                count += 1
    return count
