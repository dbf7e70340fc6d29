"""Half precision, made visible where no processor computes in it: every half number rounded, or none.

onnxruntime's CPU provider lacks most half kernels. It computes in float32 instead and keeps what passes from one such
kernel to the next in float32, so a number that half precision cannot hold goes unnoticed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.function import called, register
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import moves

__all__ = ["LARGEST", "Rounding", "rounded", "roundings"]

LARGEST = float(np.finfo(np.float16).max)
"""The largest number that half precision holds, 65504."""

_CALL = "ffc.rule"
"""Note on the nodes of what `rounded` returns: what users call the value that each, or its call, computes."""

_MIXING = ("MatMul", "Softmax")
"""Operators whose results are not out of range because an input is."""


def _casts_to(node: ir.Node, dtype: ir.DataType) -> bool:
    return node.op_type == "Cast" and not node.domain and node.attributes["to"].value == dtype.value


def rounded(model: ir.Model) -> ir.Model:
    """Return a clone that computes in float32 what `model` computes in half, and rounds each result to half.

    That is what a processor with half products does, which adds up in float32. Calls of ``ffc`` functions over half
    tensors are written out, so that what lies inside them is rounded too.
    """
    clone = model.clone()
    editor = _write_out(clone)
    shapes = editor.shapes
    wide: dict[ir.Value, ir.Value] = {}
    for node in list(clone.graph):
        if node.op_type in ("Cast", "Constant") or moves(node) or _nested(node):
            continue
        if any(value is not None and _is_half(value, shapes) for value in (*node.inputs, *node.outputs)):
            node.metadata_props.setdefault(_CALL, _name(node))
        for index, value in enumerate(node.inputs):
            if value is not None and _is_half(value, shapes):
                if value not in wide:
                    wide[value] = _widened(value, node, editor)
                node.replace_input_with(index, wide[value])
        for value in node.outputs:
            if _is_half(value, shapes):
                _round(value, editor)
    register(clone)
    return clone


def _write_out(model: ir.Model) -> Editor:
    """Replace calls of functions over half tensors by their bodies, which note what they were; return the editor."""
    editor = Editor(model)
    read = {value for node in model.graph for value in node.inputs if value is not None}
    halves = {value for value in read if _is_half(value, editor.shapes)}
    for node in model.graph:
        node.metadata_props.pop(_CALL, None)
    for node in [node for node in model.graph if halves & {*node.inputs}]:
        function = called(node)
        if function is not None:
            out, inputs = node.outputs[0], function.given(node)
            editor.splice(function.body, inputs, node.attributes, replaces=out, rule=_name(node))
    return editor


def _name(node: ir.Node) -> str:
    """Return what users call what `node` computes; the pass `fp16` adds the operator."""
    return str(node.outputs[0].name).removesuffix(f"/{node.op_type}")


def _is_half(value: ir.Value, shapes: Shapes) -> bool:
    return shapes.dtype(value) == ir.DataType.FLOAT16


def _nested(node: ir.Node) -> bool:
    return any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values())


def _widened(value: ir.Value, before: ir.Node, editor: Editor) -> ir.Value:
    array = constant(value)
    if array is not None:
        return editor.constant(array.astype(np.float32), f"{value.name}.float32")
    # Right behind its source: other readers, before `before` or after, share it.
    source = value.producer()
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT.value)], num_outputs=1)
    cast.outputs[0].name = editor.unique(f"{value.name}.float32")
    if source is None:
        editor.graph.insert_before(before, cast)
    else:
        editor.graph.insert_after(source, cast)
    return cast.outputs[0]


def _round(value: ir.Value, editor: Editor) -> None:
    """Put a Cast to half behind `value`, which from now on is float32; readers get what is rounded."""
    source = value.producer()
    assert source is not None
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT16.value)], num_outputs=1)
    half = cast.outputs[0]
    half.type, half.shape = ir.TensorType(ir.DataType.FLOAT16), value.shape
    ir.convenience.replace_all_uses_with(value, half, replace_graph_outputs=value.is_graph_output())
    cast.replace_input_with(0, value)
    half.name, value.name = value.name, editor.unique(f"{value.name}.exact")
    value.type = ir.TensorType(ir.DataType.FLOAT)
    cast.metadata_props.update(source.metadata_props)
    editor.graph.insert_after(source, cast)


@dataclass(frozen=True, eq=False)
class Rounding:
    """A place where `rounded` rounds to half.

    Attributes:
        exact: The value before that, float32.
        what: The place, in words.
        parts: What users call the values computed there, or computed from what is rounded.
    """

    exact: ir.Value
    what: str
    parts: tuple[str, ...]


def roundings(model: ir.Model) -> Iterator[Rounding]:
    """Yield the places where a model that `rounded` returned rounds to half, in the order of execution."""
    for node in model.graph:
        (exact, *_) = node.inputs or (None,)
        if exact is None or exact.is_initializer() or not _casts_to(node, ir.DataType.FLOAT16):
            continue
        call = node.metadata_props.get(_CALL)
        readers = sorted({*_readers(node.outputs[0], call)} - {call})
        if call is not None:
            yield Rounding(exact, f"'{call}'", (call, *readers))
        else:
            yield Rounding(exact, f"'{exact.name}', which they read,", tuple(readers))


def _readers(value: ir.Value, call: str | None) -> Iterator[str]:
    """Yield what users call the values that are computed in half from `value`, as far as it goes through `call`."""
    pending, seen = [value], {value}
    while pending:
        for node in {use.node for use in pending.pop().uses()}:
            name = node.metadata_props.get(_CALL)
            if name is not None and name != call:
                yield name
            elif node.op_type == "Cast" or moves(node) or (name is not None and node.op_type not in _MIXING):
                fresh = [output for output in node.outputs if output not in seen]
                pending.extend(fresh)
                seen.update(fresh)
