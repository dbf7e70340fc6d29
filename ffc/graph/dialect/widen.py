"""Half precision and bfloat16 as float32: what a model that computes in them means, and what it gives.

Types alone change and the structure stays, so that models of any opset will do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ffc.graph.dialect.edit import Editor
from ffc.graph.dialect.function import called, register
from ffc.graph.shapes.positions import moves

__all__ = ["computes_in_half", "holds_bfloat16", "holds_half", "in_float32", "runnable", "widen"]

_HALF, _BRAIN = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
_FLOAT = ir.DataType.FLOAT

_NAMING_TYPES = {"dtype", "output_datatype", "output_dtype", "precision", "softmax_precision", "stash_type", "to"}
"""Attributes of standard operators that name the type of what is computed."""


_MEANT = np.sqrt([2, 0.5, 2 / np.pi, 0.044715**2]).astype(np.float32)
"""Numbers that formulas of GELU have. One constant number that is any of them, rounded, stands for it."""


def computes_in_half(model: ir.Model) -> bool:
    """Whether `model` stores weights in half or bfloat16 or computes in them: more than casts of inputs and outputs."""
    if any(_is_narrow(value) for value in _weights(model)):
        return True
    if any(_types(node) & {_HALF, _BRAIN} and not _is_edge(node, model) for node in _nodes(model)):
        return True
    return any(use.node.op_type != "Cast" for value in model.graph.inputs if _is_narrow(value) for use in value.uses())


def holds_half(model: ir.Model) -> bool:
    """Whether any number of `model` is in half or bfloat16, be it an output alone."""
    return bool(_held(model) & {_HALF, _BRAIN})


def holds_bfloat16(model: ir.Model) -> bool:
    """Whether any number of `model` is in bfloat16, be it an output alone."""
    return _BRAIN in _held(model)


def widen(model: ir.Model) -> tuple[int, int]:
    """Let `model` compute in float32 what it computes in half or bfloat16, from the weights as they hold them.

    Inputs and outputs keep their types: casts stand where they enter and leave. Functions that are not ffc's are
    inlined, since what is given to one may name a type.

    Returns:
        How many weights and how many operators were changed.
    """
    _inline(model)
    editor = Editor(model)
    for value in [value for value in model.graph.inputs if _is_narrow(value)]:
        _enter(value, editor)
    for value in [value for value in model.graph.outputs if _is_narrow(value)]:
        _leave(value, editor)
    return _widen_inside(model, {*model.graph.inputs}, {node for node in model.graph if _is_edge(node, model)})


def in_float32(model: ir.Model) -> ir.Model:
    """Return a clone that computes in float32 what `model` computes in half or bfloat16, and gives float32.

    Inputs in half keep their type, also where they are outputs; those in bfloat16, which numpy does not know, become
    float32.
    """
    clone = model.clone()
    _inline(clone)
    editor = Editor(clone)
    halves = [value for value in clone.graph.inputs if value.dtype == _HALF]
    kept = {*halves}
    for value in halves:
        _enter(value, editor)
    for value in clone.graph.outputs:
        if value not in kept:
            value.type = _widened(value.type)
    _widen_inside(clone, kept, set())
    return clone


def runnable(model: ir.Model) -> ir.Model:
    """Return what the CPU provider of onnxruntime can run to show what `model` gives: a clone, if it holds bfloat16.

    That provider has hardly a kernel for bfloat16, and numpy lacks the type. So the clone computes in float32, rounds
    to bfloat16 each result that is in it, and takes and gives what `in_float32` says. A processor with products in
    bfloat16, which add up in float32, gives the same but for the order of sums.
    """
    if not holds_bfloat16(model):
        return model
    flat = model.clone()
    _inline(flat)
    shapes = Editor(flat).shapes
    types = [[shapes.dtype(value) or value.dtype for value in node.outputs] for node in flat.graph.all_nodes()]
    clone = in_float32(flat)
    editor = Editor(clone)
    for node, found in zip(list(clone.graph.all_nodes()), types, strict=True):
        for value, dtype in zip(node.outputs, found, strict=True):
            if dtype in (_HALF, _BRAIN) and node.op_type != "Constant" and not moves(node):
                _behind(value, editor, dtype, _FLOAT)
    return clone


def _is_narrow(value: ir.Value) -> bool:
    return value.dtype in (_HALF, _BRAIN)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield all nodes but those of ffc's functions, which call half by its name."""
    yield from model.graph.all_nodes()
    for key, function in model.functions.items():
        if key[0] != "ffc":
            yield from function.all_nodes()


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()


def _types(node: ir.Node) -> set[ir.DataType]:
    """Return the types that the attributes of `node` hold or name, half for a function over half."""
    function = called(node)
    if function is not None:
        return {_HALF} if function.precision == "half" else set()
    if not node.attributes:  # as of most: this is asked of every node at every step
        return set()
    found = {attr.value.dtype for attr in node.attributes.values() if attr.type == ir.AttributeType.TENSOR}
    return found | {ir.DataType(attr.value) for attr in node.attributes.values() if _names_type(node, attr)}


def _names_type(node: ir.Node, attr: ir.Attr) -> bool:
    if node.domain or attr.name not in _NAMING_TYPES or attr.is_ref() or attr.type != ir.AttributeType.INT:
        return False
    return attr.value in (_HALF.value, _BRAIN.value)


def _held(model: ir.Model) -> set[ir.DataType | None]:
    values = [*model.graph.inputs, *model.graph.outputs, *_weights(model)]
    return {value.dtype for value in values}.union(*(_types(node) for node in _nodes(model)))


def _is_edge(node: ir.Node, model: ir.Model) -> bool:
    """Whether `node` casts to half or bfloat16 for an output of the model and nothing else."""
    if node.op_type != "Cast" or node.domain or node.graph is not model.graph or not _types(node):
        return False
    (out,) = node.outputs
    return out.is_graph_output() and not out.uses()


def _inline(model: ir.Model) -> None:
    if any(key[0] != "ffc" for key in model.functions):
        common.InlinePass()(model)


def _enter(value: ir.Value, editor: Editor) -> None:
    """Let what reads an input of the model read it cast to float32."""
    uses = [use for use in value.uses() if use.node.op_type != "Cast"]
    if not uses:
        return
    cast = _cast(value, _FLOAT)
    cast.outputs[0].name = editor.unique(f"{value.name}.float32")
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])
    editor.graph.insert_before(editor.graph[0], cast)


def _leave(value: ir.Value, editor: Editor) -> None:
    """Cast an output of the model to its type where it leaves, unless it does that already or is an input."""
    node = value.producer()
    if not value.is_graph_input() and not (node is not None and _is_edge(node, editor.model)):
        assert value.dtype is not None
        _behind(value, editor, value.dtype)


def _behind(value: ir.Value, editor: Editor, *types: ir.DataType) -> None:
    """Put casts behind `value`, whose name the last result takes; outputs are that, and so is what readers read.

    With one type only outputs of the graph are: others go on reading what was there.
    """
    source, last = value.producer(), value
    graph = editor.graph if source is None or source.graph is None else source.graph
    uses, outputs = tuple(value.uses()), [index for index, out in enumerate(graph.outputs) if out is value]
    casts = []
    for dtype in types:
        casts.append(_cast(last, dtype))
        last = casts[-1].outputs[0]
        last.name = editor.unique(f"{value.name}.rounded")
    name = value.name
    value.name = editor.unique(f"{name}.float32")
    last.name = name
    for index in outputs:
        graph.outputs[index] = last
    if len(types) > 1:
        for use in uses:
            use.node.replace_input_with(use.idx, last)
    if source is not None:
        graph.insert_after(source, casts)
    elif len(graph):
        graph.insert_before(graph[0], casts)
    else:
        graph.extend(casts)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], num_outputs=1)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    return cast


def _widen_inside(model: ir.Model, kept: set[ir.Value], edges: set[ir.Node]) -> tuple[int, int]:
    """Widen all but the values `kept` and what the nodes `edges` cast to; return how many weights and operators."""
    weights = operators = 0
    for graph in model.graphs():
        for value in [value for value in graph.initializers.values() if _is_narrow(value) and value not in kept]:
            assert value.const_value is not None
            value.const_value = _wide(value.const_value)
            value.type = _widened(value.type)
            weights += 1
        for value in (value for value in graph.inputs if value not in kept):
            value.type = _widened(value.type)
    for node in (node for node in model.graph.all_nodes() if node not in edges):
        before = [value.type for value in node.outputs]
        for value in node.outputs:
            value.type = _widened(value.type)
        operators += _widen_attributes(node) or before != [value.type for value in node.outputs]
    register(model)
    return weights, operators


def _widen_attributes(node: ir.Node) -> bool:
    """Widen what the attributes of a node hold and name, or the function that it calls; return whether any did."""
    function = called(node)
    if function is not None:
        if function.precision != "half" or function.exact is None:
            return False
        node.op_type = function.exact.name
        return True
    changed = False
    for attr in list(node.attributes.values()):
        if attr.type == ir.AttributeType.TENSOR and not attr.is_ref() and attr.value.dtype in (_HALF, _BRAIN):
            node.attributes[attr.name] = ir.AttrTensor(attr.name, _wide(attr.value))
            changed = True
        elif _names_type(node, attr):
            node.attributes[attr.name] = ir.AttrInt64(attr.name, _FLOAT.value)
            changed = True
    return changed


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor in float32: the numbers that it holds, or the one that it stands for."""
    array = tensor.numpy()
    wide = array.astype(np.float32)
    for meant in _MEANT if array.size == 1 else ():
        if meant.astype(array.dtype) == array.reshape(-1)[0]:
            wide = np.full_like(wide, meant)
    return ir.Tensor(wide, name=tensor.name)


def _widened(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """Return a type with float32 for half and bfloat16, in sequences and optionals too."""
    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        inner = _widened(kind.elem_type)
        assert inner is not None
        return type(kind)(inner, denotation=kind.denotation)
    if isinstance(kind, ir.TensorType) and kind.dtype in (_HALF, _BRAIN):
        return ir.TensorType(_FLOAT, denotation=kind.denotation)
    return kind
