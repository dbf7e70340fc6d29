"""The dialect: the building blocks of an encoder as model-local functions of domain ``ffc``.

Each is a program in standard operators (opset 23) that says what the block means. A model that calls them carries
these bodies, so it runs in any runtime at every stage; `lower` replaces the calls by the kernels that suit a target.

Shapes below: batch B, tokens S, width W, heads H. Floats are float32, or float16 in functions named ``Half`` and in
products whose tensors all are.
"""

from __future__ import annotations

import functools
from typing import Any

import onnx_ir as ir

from ffc.graph.dialect.trace import OPSET, Program, trace

__all__ = ["DOMAIN", "FUNCTIONS", "IN_FLOAT32", "PLAIN", "attribute", "define", "is_call", "parameters", "register"]

DOMAIN = "ffc"
VERSION = 1


def Linear(op: Any, x: Any, w: Any, b: Any) -> Any:
    """``x @ w + b`` with x [..., I], w [I, O], b [O]."""
    return op.Add(op.MatMul(x, w), b)


def LinearRelu(op: Any, x: Any, w: Any, b: Any) -> Any:
    """ReLU of `Linear`."""
    return op.Relu(Linear(op, x, w, b))


def LinearGelu(op: Any, x: Any, w: Any, b: Any, *, approximate: str = "none") -> Any:
    """GELU of `Linear`, exact or by its tanh approximation."""
    return op.Gelu(Linear(op, x, w, b), approximate=approximate)


def LinearInt8(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`Linear` with x quantised per tensor on the fly, w int8 [I, O] symmetric, w_scale float32 [O]."""
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(x, outputs=3)
    product = op.Cast(op.MatMulInteger(x_int8, w, x_zero), to=ir.DataType.FLOAT.value)
    return op.Add(op.Mul(product, op.Mul(x_scale, w_scale)), b)


def LinearInt8Relu(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """ReLU of `LinearInt8`."""
    return op.Relu(LinearInt8(op, x, w, w_scale, b))


def LinearInt8Gelu(op: Any, x: Any, w: Any, w_scale: Any, b: Any, *, approximate: str = "none") -> Any:
    """GELU of `LinearInt8`."""
    return op.Gelu(LinearInt8(op, x, w, w_scale, b), approximate=approximate)


def largest(op: Any, x: Any) -> Any:
    """Largest magnitude of each row of x [..., I], as [..., 1]; never zero."""
    # Two reductions read x twice; Abs would write a copy of it as well.
    return op.Max(op.ReduceMax(x, [-1]), op.Neg(op.ReduceMin(x, [-1])), 1e-9)


def LinearInt8Rows(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`LinearInt8` with each row of x divided by its largest magnitude first, and the product multiplied by it again.

    A token with large activations then does not coarsen the steps of all others.
    """
    rows = largest(op, x)
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(op.Div(x, rows), outputs=3)
    product = op.Cast(op.MatMulInteger(x_int8, w, x_zero), to=ir.DataType.FLOAT.value)
    return op.Add(op.Mul(op.Mul(product, op.Mul(x_scale, w_scale)), rows), b)


def LinearInt8RowsRelu(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """ReLU of `LinearInt8Rows`."""
    return op.Relu(LinearInt8Rows(op, x, w, w_scale, b))


def LinearInt8RowsGelu(op: Any, x: Any, w: Any, w_scale: Any, b: Any, *, approximate: str = "none") -> Any:
    """GELU of `LinearInt8Rows`."""
    return op.Gelu(LinearInt8Rows(op, x, w, w_scale, b), approximate=approximate)


def _split_heads(op: Any, x: Any, heads: Any) -> Any:
    """[B, S, H*D] → [B, H, S, D]."""
    count = op.Reshape(op.Constant(value_int=heads), [1])
    shape = op.Concat([0, 0], count, [-1], axis=0)
    return op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])


def _attention(op: Any, q: Any, k: Any, v: Any, mask: Any, heads: Any, scale: Any) -> Any:
    q, k, v = (_split_heads(op, x, heads) for x in (q, k, v))
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), op.Constant(value_float=scale))
    if mask is not None:
        scores = op.Add(scores, mask)
    context = op.MatMul(op.Softmax(scores, axis=-1), v)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, -1])


def Attention(op: Any, q: Any, k: Any, v: Any, *, heads: int, scale: float) -> Any:
    """Scaled dot-product attention of q [B, Q, H*D] over k [B, S, H*D] and v [B, S, H*E], giving [B, Q, H*E].

    Q is S, except where queries of tokens that nobody reads were dropped.
    """
    return _attention(op, q, k, v, None, heads, scale)


def AttentionMasked(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`Attention` with `mask` added to the scores; mask is [B or 1, H or 1, Q, S], spelled out over both token axes."""
    return _attention(op, q, k, v, mask, heads, scale)


def _attention_half(op: Any, q: Any, k: Any, v: Any, mask: Any, heads: Any, scale: Any) -> Any:
    half, single = ir.DataType.FLOAT16.value, ir.DataType.FLOAT.value
    # The queries are scaled, not the scores, which would leave the range of half precision sooner.
    q = op.Mul(q, op.Cast(op.Constant(value_float=scale), to=half))
    q, k, v = (_split_heads(op, x, heads) for x in (q, k, v))
    scores = op.Cast(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), to=single)
    if mask is not None:
        scores = op.Add(scores, mask)
    context = op.MatMul(op.Cast(op.Softmax(scores, axis=-1), to=half), v)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, -1])


def AttentionHalf(op: Any, q: Any, k: Any, v: Any, *, heads: int, scale: float) -> Any:
    """`Attention` over float16 tensors; Softmax is computed in float32."""
    return _attention_half(op, q, k, v, None, heads, scale)


def AttentionMaskedHalf(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`AttentionMasked` over float16 tensors; the mask is float32 and Softmax is computed in float32."""
    return _attention_half(op, q, k, v, mask, heads, scale)


def Norm(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """Layer normalisation over the last axis of x [..., W]; gamma and beta are [W]."""
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon)


def AddNorm(op: Any, x: Any, skip: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """`Norm` of ``x + skip``, the residual connection; both are [..., W]."""
    return Norm(op, op.Add(x, skip), gamma, beta, epsilon=epsilon)


def Embed(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`Norm` of the sum of three embeddings: ids and types int [B, S], positions int [B or 1, S], tables [rows, W]."""
    total = op.Add(op.Add(op.Gather(word, ids), op.Gather(type_table, types)), op.Gather(position, positions))
    return Norm(op, total, gamma, beta, epsilon=epsilon)


def GatherHalf(op: Any, table: Any, ids: Any) -> Any:
    """Rows of an embedding table stored as float16 [rows, W], as float32."""
    return op.Cast(op.Gather(table, ids), to=ir.DataType.FLOAT.value)


def EmbedHalf(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`Embed` with its three tables stored as in `GatherHalf`; sum and norm are float32."""
    total = op.Add(GatherHalf(op, word, ids), GatherHalf(op, type_table, types))
    return Norm(op, op.Add(total, GatherHalf(op, position, positions)), gamma, beta, epsilon=epsilon)


def GatherInt8(op: Any, table: Any, scale: Any, ids: Any) -> Any:
    """Rows of an embedding table stored as int8 [rows, W] with one float32 scale a row, [rows, 1]."""
    return op.Mul(op.Cast(op.Gather(table, ids), to=ir.DataType.FLOAT.value), op.Gather(scale, ids))


def EmbedInt8(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, word_scale: Any, type_table: Any, type_scale: Any,
    position: Any, position_scale: Any, gamma: Any, beta: Any, *, epsilon: float,
) -> Any:  # fmt: skip
    """`Embed` with its three tables stored as in `GatherInt8`."""
    words, kinds = GatherInt8(op, word, word_scale, ids), GatherInt8(op, type_table, type_scale, types)
    total = op.Add(op.Add(words, kinds), GatherInt8(op, position, position_scale, positions))
    return Norm(op, total, gamma, beta, epsilon=epsilon)


FUNCTIONS: dict[str, Program] = {
    program.__name__: program
    for program in (
        Linear, LinearRelu, LinearGelu,
        LinearInt8, LinearInt8Relu, LinearInt8Gelu, LinearInt8Rows, LinearInt8RowsRelu, LinearInt8RowsGelu,
        Attention, AttentionMasked, AttentionHalf, AttentionMaskedHalf,
        Norm, AddNorm, Embed, GatherInt8, EmbedInt8, GatherHalf, EmbedHalf,
    )
}  # fmt: skip
"""Every function of the dialect, by name."""

PLAIN = {
    f"LinearInt8{rows}{activation}": f"Linear{activation}"
    for rows in ("", "Rows")
    for activation in ("", "Relu", "Gelu")
}
"""The fp32 function that each int8 product approximates."""

IN_FLOAT32 = {"AttentionHalf": "Attention", "AttentionMaskedHalf": "AttentionMasked", "EmbedHalf": "Embed"}
"""The function that each function of half precision is in float32; products are of the type of their tensors."""


@functools.cache
def _function(name: str) -> ir.Function:
    fragment = trace(FUNCTIONS[name])
    for index, value in enumerate(v for node in fragment.nodes for v in node.outputs):
        value.name = f"v{index}"
    graph = ir.Graph(
        list(fragment.inputs.values()), list(fragment.outputs), nodes=list(fragment.nodes), opset_imports={"": OPSET}
    )
    return ir.Function(DOMAIN, name, graph=graph, attributes=list(fragment.attributes.values()))


def is_call(node: ir.Node | None, *names: str) -> bool:
    """Whether `node` calls a function of the dialect, one of `names` where any are given."""
    return node is not None and node.domain == DOMAIN and (not names or node.op_type in names)


def attribute(node: ir.Node, name: str) -> Any:
    """Return an attribute of a call, or the default that its function states."""
    attr = node.attributes.get(name)
    return (trace(FUNCTIONS[node.op_type]).attributes[name] if attr is None else attr).value


def parameters(name: str) -> tuple[str, ...]:
    """Return the names of a function's tensors, in order."""
    return tuple(trace(FUNCTIONS[name]).inputs)


def register(model: ir.Model) -> None:
    """Give `model` the bodies of the functions that its graph calls, and take from it those that it does not."""
    called = {node.op_type for node in model.graph.all_nodes() if is_call(node)}
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    for name in sorted(called & FUNCTIONS.keys()):
        define(model, name)
    if called:
        model.opset_imports[DOMAIN] = VERSION
    else:
        model.opset_imports.pop(DOMAIN, None)


def define(model: ir.Model, name: str) -> None:
    """Give `model` the body of a function of the dialect, for calls to come, unless it has one."""
    if (DOMAIN, name, "") not in model.functions:
        function = _function(name).clone()
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
