"""Which operators treat tokens apart, and which take tokens at fixed positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import onnx_ir as ir

from ffc.graph.dialect.edit import constant
from ffc.graph.dialect.function import called
from ffc.graph.shapes.dim import Dim, at_least
from ffc.graph.shapes.inference import Shapes

__all__ = ["ELEMENTWISE", "NORMALISING", "REDUCING", "TOKEN_AXIS", "Rows", "Tokens", "taken_tokens", "token_rows"]

TOKEN_AXIS = 1
"""Values are [batch, tokens, ...] wherever tokens are left out."""

ELEMENTWISE = frozenset(
    """Abs Add And Cast Celu Clip Div Dropout Elu Equal Erf Exp Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Min Mish Mul Neg Not Or Pow PRelu Reciprocal Relu Selu
    Sigmoid Sign Softplus Softsign Sqrt Sub Swish Tanh ThresholdedRelu Where Xor""".split()
)
NORMALISING = {"LayerNormalization", "LogSoftmax", "RMSNormalization", "Softmax"}
REDUCING = {"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"}
_TO_THE_END = 2**31 - 1
"""Ends of slices from here on mean "to the end": exporters write the largest int32 or int64."""

Tokens: TypeAlias = tuple[int, ...]
"""Positions along the token axis; negative ones count from the end."""

Rows: TypeAlias = dict[int, int]
"""For inputs of a node that has one row per token, by index: the axis on which their tokens lie."""


def taken_tokens(node: ir.Node, shapes: Shapes) -> Tokens | str | None:
    """Return the positions at which `node` takes tokens of its first input, why they are not known, or None."""
    source = node.inputs[0] if node.inputs else None
    shape = None if source is None else shapes.of(source)
    if node.domain or shape is None or len(shape) < 3:
        return None
    if node.op_type == "GatherND":
        return f"GatherND '{node.name}' takes tokens at computed positions"
    if node.op_type in ("Gather", "GatherElements") and _axis(node, 0, len(shape)) == TOKEN_AXIS:
        index = constant(node.inputs[1]) if node.op_type == "Gather" else None
        if index is None:
            return f"{node.op_type} '{node.name}' takes tokens at computed positions"
        return tuple(int(position) for position in index.reshape(-1)) if index.ndim < 2 else None
    if node.op_type == "Slice":
        return _sliced(node, shape)
    return None


def _sliced(node: ir.Node, shape: Sequence[Dim]) -> Tokens | str | None:
    """Return the positions at which a Slice of what has this shape takes tokens, if it takes all else whole."""
    parts = {axis: part for axis, part in (_window(node, len(shape)) or {}).items() if not _is_whole(part, shape[axis])}
    if list(parts) != [TOKEN_AXIS]:
        return None
    part, size = parts[TOKEN_AXIS], shape[TOKEN_AXIS]
    if isinstance(size, int):
        return tuple(range(size)[part]) or None
    if part.start >= 0 and part.start < part.stop and at_least(size, part.stop):
        return tuple(range(part.start, part.stop, part.step))
    if part.start < 0 and part.stop == _TO_THE_END and at_least(size, -part.start):
        return tuple(range(part.start, 0, part.step))
    return f"Slice '{node.name}' takes a number of tokens that depends on the length"


def _is_whole(part: slice, size: Dim) -> bool:
    ends = part.stop == _TO_THE_END or (isinstance(size, int) and part.stop >= size)
    return ends and (part.start, part.step) == (0, 1)


def _window(node: ir.Node, rank: int) -> dict[int, slice] | None:
    """Return what a Slice with constant bounds takes of each axis it names, or None for other bounds."""
    given = [constant(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(given, node.inputs[1:], strict=True)):
        return None
    starts, ends, axes, steps = [None if array is None else array.tolist() for array in [*given, None, None]][:4]
    if starts is None or ends is None:
        return None
    axes = range(len(starts)) if axes is None else [axis % rank for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    if any(step < 1 for step in steps):
        return None
    bounds = zip(axes, starts, ends, steps, strict=True)
    return {axis: slice(start, min(end, _TO_THE_END), step) for axis, start, end, step in bounds}


def token_rows(node: ir.Node, shapes: Shapes) -> Rows:
    """Return where the tokens of the inputs of `node` lie if it has one row per token, else nothing.

    An input that is the same for all tokens is left out.
    """
    shape = shapes.of(node.outputs[0])
    others = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if shape is None or len(shape) < 2 or (others and node.op_type != "Split"):
        return {}
    found: Rows = {}
    for index in _row_inputs(node, len(shape), shapes):
        value = node.inputs[index]
        size = None if value is None else shapes.of(value)
        if value is None:
            continue
        if size is None:
            return {}
        axis = _token_axis(node, index, len(size), len(shape))
        if axis < 0 or size[axis] == 1 != shape[TOKEN_AXIS]:
            continue
        if size[axis] != shape[TOKEN_AXIS]:
            return {}
        found[index] = axis
    return found


def _token_axis(node: ir.Node, index: int, rank: int, out_rank: int) -> int:
    """Return on which axis of an input of `rank` axes the tokens lie; it is negative where they lie on none."""
    if node.op_type == "Reshape":
        return min(TOKEN_AXIS, rank - 1)
    function = called(node)
    if function is not None and function.tensors[index] == function.mask:
        return rank - 2  # a mask is [..., queries, keys]
    return rank - out_rank + TOKEN_AXIS  # where operands are broadcast, axes are aligned at the end


def _row_inputs(node: ir.Node, rank: int, shapes: Shapes) -> Iterator[int]:
    """Yield which inputs of `node`, whose output has `rank` axes, have one row per token, if it treats tokens apart."""
    function = called(node)
    if function is not None:
        yield from (function.tensors.index(name) for name in function.by_token)
    elif node.domain:
        return
    elif node.op_type in ELEMENTWISE or (node.op_type == "Concat" and _axis(node, 0, rank) > TOKEN_AXIS):
        yield from range(len(node.inputs))
    elif node.op_type == "MatMul" and rank > 2 and node.inputs[1] is not None:
        weight = shapes.of(node.inputs[1])
        yield from (0,) if weight is not None and len(weight) == 2 else ()
    elif node.op_type in NORMALISING:
        yield from (0,) if rank > 2 and _axis(node, -1, rank) == rank - 1 else ()
    elif node.op_type in REDUCING:
        yield from (0,) if rank > 2 and _reduces_last(node, rank) else ()
    elif _leaves_tokens_in_place(node, rank):
        yield 0


def _leaves_tokens_in_place(node: ir.Node, rank: int) -> bool:
    """Whether `node`, whose outputs have `rank` axes, moves elements within each token alone."""
    if node.op_type == "Slice":
        window = _window(node, rank)
        return window is not None and TOKEN_AXIS not in window
    if node.op_type == "Split":
        return _axis(node, 0, rank) > TOKEN_AXIS
    if node.op_type == "Transpose" and "perm" in node.attributes:
        return list(node.attributes["perm"].as_ints()[: TOKEN_AXIS + 1]) == [0, TOKEN_AXIS]
    if node.op_type == "Reshape" and not node.attributes.get_int("allowzero", 0):
        target = constant(node.inputs[1])
        return target is not None and target.tolist()[: TOKEN_AXIS + 1] == [0, 0]  # batch and tokens as they are
    return False


def _axis(node: ir.Node, default: int, rank: int) -> int:
    return node.attributes.get_int("axis", default) % rank


def _reduces_last(node: ir.Node, rank: int) -> bool:
    """Whether `node` reduces the last of `rank` axes alone, and keeps it."""
    keeps = node.attributes.get_int("keepdims", 1) == 1
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return keeps and axes is not None and [axis % rank for axis in axes.reshape(-1)] == [rank - 1]
