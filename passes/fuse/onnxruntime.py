"""Reading the fused float operators of onnxruntime, found in graphs that were optimised before, as blocks.

What they compute is kept to the letter, whatever one thinks of it: lengths in place of a mask mean padding on the
right, and what is masked gets ``mask_filter_value`` added, not minus infinity. Forms that are not read, and operators
of half precision or int8, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc import Editor, Log, Match, Op, Sample, Tensor, constant, ops, rule, rules
from ffc.compiler.rules import normal

__all__ = ["RULES", "read_kernels"]

DOMAIN = "com.microsoft"

# What the operators take where an attribute is left out.
EPSILON = 1e-12
FILTER = -10_000.0


def read_kernels(editor: Editor, log: Log) -> None:
    """Replace onnxruntime's fused float operators by ``ffc`` calls and standard operators; name those that stay."""
    for node in list(editor.graph):
        reader = _READERS.get(node.op_type) if node.domain == DOMAIN else None
        if reader is None or not log.takes(f"{node.op_type} of onnxruntime", node.outputs[0].name):
            continue
        why = reader(node, editor)
        if why:
            log.missed(f"{node.op_type} {node.name}", why)
        else:
            log.did(f"{node.op_type} of onnxruntime")
    rules.apply(RULES, editor.model, log, editor)


# Norms


def _skip_norm(node: ir.Node, editor: Editor) -> str | None:
    """Norm of the sum of input, skip and bias; the fourth output is that sum."""
    x, skip, gamma, beta, bias = _inputs(node, 5)
    if _is_read(node, 1) or _is_read(node, 2):
        return "its mean or deviation is read"
    if not _are_float32(gamma, optional=beta):
        return "its parameters are not float32 constants"
    epsilon = {"epsilon": _given(node, "epsilon", EPSILON)}
    if bias is not None:
        x = editor.at(node, f"{node.name}.biased").Add(x, bias)
    parameters = [gamma, np.zeros(_array(gamma).shape, np.float32) if beta is None else beta]
    function, summands = ops.AddNorm, [x, skip]
    if _is_read(node, 3) or not _have_same_shape(editor, node):
        total = _sum(editor, node, x, skip)
        function, summands = ops.Norm, [total]
        if _is_read(node, 3):
            editor.replace(node.outputs[3], total, fresh=True)
    editor.splice(function.call, [*summands, *parameters], epsilon, replaces=node.outputs[0], rule="skip-norm")
    return None


def _have_same_shape(editor: Editor, node: ir.Node) -> bool:
    one, other = (editor.shapes.of(value) for value in node.inputs[:2] if value is not None)
    return one is not None and one == other


def _embed_norm(node: ir.Node, editor: Editor) -> str | None:
    """Norm of the sum of embeddings; the second output counts the ones of the mask, the third is that sum."""
    ids, types, word, position, kinds, gamma, beta, mask, places = _inputs(node, 9)
    if not _are_float32(word, position, gamma, beta, optional=kinds):
        return "its tables are not float32 constants"
    if _is_read(node, 1) and _given(node, "mask_index_type", 1) != 1:
        return "its mask index is not a number of tokens"
    if _is_read(node, 1):
        editor.replace(node.outputs[1], _length_of(editor, node, ids, mask), fresh=True)
    if places is None:
        op = editor.at(node, f"{node.name}.places")
        places = op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(ids, start=1, end=2), [0]), 1), [0])
    epsilon = {"epsilon": _given(node, "epsilon", EPSILON)}
    if types is not None and not _is_read(node, 2):
        inputs = [ids, types, places, word, kinds, position, gamma, beta]
        editor.splice(ops.Embed.call, inputs, epsilon, replaces=node.outputs[0], rule="embed-norm")
        return None
    looked_up = [(word, ids), (position, places), *([] if types is None else [(kinds, types)])]
    rows = [editor.at(node, f"{node.name}.rows").Gather(table, index) for table, index in looked_up]
    total = _sum(editor, node, *rows)
    if _is_read(node, 2):
        editor.replace(node.outputs[2], total, fresh=True)
    editor.splice(ops.Norm.call, [total, gamma, beta], epsilon, replaces=node.outputs[0], rule="embed-norm")
    return None


def _length_of(editor: Editor, node: ir.Node, ids: ir.Value | None, mask: ir.Value | None) -> ir.Value:
    """Return how many ones each row of `mask` has, or zeros where there is no mask, int32 [B]."""
    op = editor.at(node, f"{node.name}.length")
    if mask is None:
        return op.Expand(np.zeros(1, np.int32), op.Shape(ids, start=0, end=1))
    return op.ReduceSum(op.Cast(op.Equal(mask, np.int32(1)), to=ir.DataType.INT32.value), [1], keepdims=0)


# Attention


def _attention(node: ir.Node, editor: Editor) -> str | None:
    """Attention over one packed product."""
    x, weight, bias, mask, past, added, counted = _inputs(node, 7)
    if past is not None or counted is not None or _is_read(node, 1):
        return "it keeps a cache"
    odd = next((name for name in ("unidirectional", "do_rotary") if _given(node, name, 0)), None)
    if odd:
        return f"its attribute {odd} is set"
    if not _are_float32(weight, optional=bias):
        return "its weight is not a float32 constant"
    assert x is not None
    matrix = _array(weight)
    vector = np.zeros(matrix.shape[1], np.float32) if bias is None else _array(bias)
    sizes = _given(node, "qkv_hidden_sizes", (matrix.shape[1] // 3,) * 3)
    masks = _masks(editor, node, x, mask, added)
    if isinstance(masks, str):
        return masks
    ends = np.cumsum(sizes)
    parts = [(matrix[:, end - size : end], vector[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    inputs = [
        editor.at(node, f"{node.name}.{role}").ffc.Linear(x, np.ascontiguousarray(columns), b.copy())
        for role, (columns, b) in zip("qkv", parts, strict=True)
    ]
    _call(editor, node, inputs, masks, int(sizes[0]))
    return None


def _multi_head(node: ir.Node, editor: Editor) -> str | None:
    """Attention over queries, keys and values [B, S, W]; the packed forms have no CPU kernel to be proved against."""
    query, _, _, bias, mask, added, *cache = _inputs(node, 10)
    assert query is not None
    if any(cache) or any(_is_read(node, index) for index in range(1, len(node.outputs))):
        return "it keeps a cache or shows its scores"
    if _given(node, "unidirectional", 0):
        return "its attribute unidirectional is set"
    if editor.shapes.dtype(query) != ir.DataType.FLOAT or not _are_float32(optional=bias):
        return "it is not computed in float32, or its bias is no constant"
    width = _width(node, editor)
    if isinstance(width, str):
        return width
    masks = _masks(editor, node, query, mask, added)
    if isinstance(masks, str):
        return masks
    inputs = list(node.inputs[:3])
    if bias is not None:
        parts = np.split(_array(bias), [width, 2 * width])
        pairs = zip(inputs, parts, "qkv", strict=True)
        inputs = [editor.at(node, f"{node.name}.{role}").Add(x, b) for x, b, role in pairs]
    _call(editor, node, inputs, masks, width)
    return None


def _width(node: ir.Node, editor: Editor) -> int | str:
    """Return the width of queries and keys, or why they are of a form that is not read."""
    shapes = [None if value is None else editor.shapes.of(value) for value in _inputs(node, 3)]
    query, key, value = shapes
    if query is None or key is None or value is None or {len(query), len(key), len(value)} != {3}:
        return "its queries, keys and values are not three of [batch, tokens, width]"
    if not query[:2] == key[:2] == value[:2]:
        return "its keys are not of the tokens of its queries"
    width = query[2]
    return width if isinstance(width, int) else "its width is not known"


def _call(
    editor: Editor, node: ir.Node, inputs: Sequence[ir.Value | None], masks: Sequence[ir.Value], width: int
) -> None:
    heads = int(node.attributes["num_heads"].as_int())
    scale = _given(node, "scale", 0.0) or 1 / math.sqrt(width // heads)
    attributes = {"heads": heads, "scale": float(scale)}
    function = ops.AttentionMasked if masks else ops.Attention
    total = [_sum(editor, node, *masks)] if masks else []
    editor.splice(function.call, [*inputs, *total], attributes, replaces=node.outputs[0], rule="attention-kernel")


def _masks(
    editor: Editor, node: ir.Node, x: ir.Value, mask: ir.Value | None, added: ir.Value | None
) -> list[ir.Value] | str:
    """Return what is added to the scores, [B or 1, H or 1, S, S] each, or why that cannot be told."""
    found = [] if added is None else [added]
    if mask is None:
        return found
    shape, tokens = editor.shapes.of(mask), editor.shapes.of(x)
    if shape is None or tokens is None:
        return "the shape of its mask is not known"
    if len(shape) not in (1, 2, 3) or (len(shape) == 1 and shape[0] != tokens[0]):
        return f"its mask of {len(shape)} axes is of a form that is not read"
    low = np.float32(_given(node, "mask_filter_value", FILTER))
    axes = [1, 2] if len(shape) == 2 else [1]
    op = editor.at(node, f"{node.name}.mask")
    count = op.Shape(x, start=1, end=2)
    keep = _before_length(op, mask, count) if len(shape) == 1 else op.Unsqueeze(op.Greater(mask, np.int32(0)), axes)
    return [op.Expand(op.Where(keep, np.float32(0), low), op.Concat([1, 1], count, count, axis=0)), *found]


def _before_length(op: Op, lengths: ir.Value, count: ir.Value) -> ir.Value:
    """Return which of `count` tokens come before the length of each row, bool [B, 1, 1, S]."""
    places = op.Range(0, op.Squeeze(count, [0]), 1)
    return op.Less(places, op.Unsqueeze(op.Cast(lengths, to=ir.DataType.INT64.value), [1, 2, 3]))


_READERS: Mapping[str, Callable[[ir.Node, Editor], str | None]] = {
    "Attention": _attention,
    "EmbedLayerNormalization": _embed_norm,
    "MultiHeadAttention": _multi_head,
    "SkipLayerNormalization": _skip_norm,
}


# What the readers share


def _inputs(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * count][:count]


def _given(node: ir.Node, name: str, default: Any) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _is_read(node: ir.Node, index: int) -> bool:
    if index >= len(node.outputs):
        return False
    value = node.outputs[index]
    return bool(value.uses()) or value.is_graph_output()


def _array(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    assert array is not None
    return array


def _are_float32(*values: ir.Value | None, optional: ir.Value | None = None) -> bool:
    arrays = [constant(value) for value in (*values, *([] if optional is None else [optional]))]
    return all(array is not None and array.dtype == np.float32 for array in arrays)


def _sum(editor: Editor, node: ir.Node, *values: ir.Value | None) -> ir.Value:
    total, *others = values
    for other in others:
        total = editor.at(node, f"{node.name}.sum").Add(total, other)
    assert total is not None
    return total


# Rules


_X, _BIAS = {"x": normal(2, 3, 5, scale=3)}, {"b": normal(5)}


@rule("ms-gelu", lambda op, x: op.Gelu(x), samples=(Sample(_X),))
def _ms_gelu(op: Op, x: Tensor) -> Tensor:
    return op.ms.Gelu(x)


@rule("bias-gelu", lambda op, x, b: op.Gelu(op.Add(x, b)), samples=(Sample(_X, _BIAS),))
def _bias_gelu(op: Op, x: Tensor, b: Tensor) -> Tensor:
    return op.ms.BiasGelu(x, b)


@rule("fast-gelu", lambda op, x: op.Gelu(x, approximate="tanh"), samples=(Sample(_X),))
def _fast_gelu(op: Op, x: Tensor) -> Tensor:
    return op.ms.FastGelu(x)


@rule("fast-gelu-bias", lambda op, x, b: op.Gelu(op.Add(x, b), approximate="tanh"), samples=(Sample(_X, _BIAS),))
def _fast_gelu_bias(op: Op, x: Tensor, b: Tensor) -> Tensor:
    return op.ms.FastGelu(x, b)


def _factor(match: Match) -> Mapping[str, Any]:
    return {"factor": match.attributes["alpha"].as_float()}


def _matrices(x: tuple[int, ...], other: tuple[int, ...], *, matches: bool = True) -> Sample:
    return Sample({"x": normal(*x), "other": normal(*other)}, {}, {"alpha": 0.25}, matches)


# alpha * (x @ other)
@rule(
    "fused-matmul", lambda op, x, other, factor: op.Mul(op.MatMul(x, other), factor), bind=_factor,
    samples=(_matrices((2, 3, 4, 5), (2, 3, 5, 6)),),
)  # fmt: skip
def _fused_matmul(op: Op, x: Tensor, other: Tensor, *, alpha: float) -> Tensor:
    return op.ms.FusedMatMul(x, other, alpha=alpha)


def _four_axes(match: Match) -> str | None:
    shape = match.editor.shapes.of(match.values["other"])
    return None if shape is not None and len(shape) == 4 else "its second operand is not known to have 4 axes"


# alpha * (x @ other^T)
@rule(
    "fused-matmul-transposed",
    lambda op, x, other, factor: op.Mul(op.MatMul(x, op.Transpose(other, perm=[0, 1, 3, 2])), factor),
    bind=_factor, where=(_four_axes,),
    samples=(_matrices((2, 3, 4, 5), (2, 3, 6, 5)), _matrices((4, 5), (6, 5), matches=False)),
)  # fmt: skip
def _fused_matmul_transposed(op: Op, x: Tensor, other: Tensor, *, alpha: float) -> Tensor:
    return op.ms.FusedMatMul(x, other, alpha=alpha, transB=1)


RULES = (_ms_gelu, _bias_gelu, _fast_gelu, _fast_gelu_bias, _fused_matmul, _fused_matmul_transposed)
