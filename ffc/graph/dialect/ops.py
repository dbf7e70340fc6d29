"""The dialect: the building blocks of an encoder as model-local functions of domain ``ffc``.

Each is a program in standard operators (opset 23) that says what the block means, and declares what passes need to know
of it. A model that calls them carries these bodies, so it runs in any runtime at every stage; `lower` replaces the
calls by the kernels that suit a target.

Shapes below: batch B, tokens S, width W, heads H. Floats are float32, or float16 in functions named ``Half`` and in
products whose tensors all are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from ffc.graph.dialect.function import function, with_activations
from ffc.graph.dialect.trace import Op, Program, Tensor, parameters, with_signature

__all__ = ["ACTIVATIONS", "embedding", "gather", "largest"]  # and the functions

_HALF, _SINGLE = ir.DataType.FLOAT16.value, ir.DataType.FLOAT.value


# Products


def relu(op: Op, x: Tensor) -> Tensor:
    """ReLU."""
    return op.Relu(x)


def gelu(op: Op, x: Tensor, *, approximate: str = "none") -> Tensor:
    """GELU, exact or by its tanh approximation."""
    return op.Gelu(x, approximate=approximate)


ACTIVATIONS: Mapping[str, Program] = {"Relu": relu, "Gelu": gelu}
"""What may follow a product within its function: `LinearRelu` is `Linear` and ReLU, and so is it with the others."""


@function(family="product", by_token=("x",), weight="w", bias="b", of_any_float=True)
def Linear(op: Op, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """``x @ w + b`` with x [..., I], w [I, O], b [O]."""
    return op.Add(op.MatMul(x, w), b)


@function(
    family="product", weight="w", bias="b", precision="int8", exact=Linear, scales={"w": "w_scale"}, quantises="x"
)
def LinearInt8(op: Op, x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    """`Linear` with x quantised per tensor on the fly, w int8 [I, O] symmetric, w_scale float32 [O]."""
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(x, outputs=3)
    product = op.Cast(op.MatMulInteger(x_int8, w, x_zero), to=_SINGLE)
    return op.Add(op.Mul(product, op.Mul(x_scale, w_scale)), b)


def largest(op: Op, x: Tensor) -> Tensor:
    """Largest magnitude of each row of x [..., I], as [..., 1]; never zero."""
    # Two reductions read x twice; Abs would write a copy of it as well.
    return op.Max(op.ReduceMax(x, [-1]), op.Neg(op.ReduceMin(x, [-1])), 1e-9)


@function(
    family="product", weight="w", bias="b", precision="int8", exact=Linear, scales={"w": "w_scale"}, quantises="x",
    scaled_by_row=True,
)  # fmt: skip
def LinearInt8Rows(op: Op, x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    """`LinearInt8` with each row of x divided by its largest magnitude first, and the product multiplied by it again.

    A token with large activations then does not coarsen the steps of all others.
    """
    rows = largest(op, x)
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(op.Div(x, rows), outputs=3)
    product = op.Cast(op.MatMulInteger(x_int8, w, x_zero), to=_SINGLE)
    return op.Add(op.Mul(op.Mul(product, op.Mul(x_scale, w_scale)), rows), b)


LinearRelu, LinearGelu = with_activations(Linear, ACTIVATIONS)
with_activations(LinearInt8, ACTIVATIONS)
with_activations(LinearInt8Rows, ACTIVATIONS)


# Attention


def _split_heads(op: Op, x: Tensor, heads: Any) -> Tensor:
    """[B, S, H*D] → [B, H, S, D]."""
    count = op.Reshape(op.Constant(value_int=heads), [1])
    shape = op.Concat([0, 0], count, [-1], axis=0)
    return op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])


def _attention(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: Any, scale: Any, or_zero: bool = False
) -> Tensor:
    q, k, v = (_split_heads(op, x, heads) for x in (q, k, v))
    scores = op.Mul(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), op.Constant(value_float=scale))
    context = op.MatMul(_probabilities(op, scores, mask, or_zero), v)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, -1])


def _probabilities(op: Op, scores: Tensor, mask: Tensor, or_zero: bool) -> Tensor:
    """Softmax of scores and mask; `or_zero` for 0 where that is no number."""
    probabilities = op.Softmax(scores if mask is None else op.Add(scores, mask), axis=-1)
    return op.Where(op.IsNaN(probabilities), 0.0, probabilities) if or_zero else probabilities


@function(family="attention", by_token=("q",))
def Attention(op: Op, q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float) -> Tensor:
    """Scaled dot-product attention of q [B, Q, H*D] over k [B, S, H*D] and v [B, S, H*E], giving [B, Q, H*E].

    Q is S, except where queries of tokens that nobody reads were dropped.
    """
    return _attention(op, q, k, v, None, heads, scale)


@function(family="attention", by_token=("q", "mask"), mask="mask")
def AttentionMasked(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`Attention` with `mask` added to the scores; mask is [B or 1, H or 1, Q, S], spelled out over both token axes.

    A query that may attend to nothing, since all its keys are hidden by one large finite number (-1e9 or the lowest
    there is), gets the mean of all values: beside such a number scores vanish. Minus infinity must leave it a key.
    """
    return _attention(op, q, k, v, mask, heads, scale)


@function(family="attention", by_token=("q", "mask"), mask="mask")
def AttentionOrZero(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`AttentionMasked`, and 0 for a query all of whose keys are hidden by minus infinity."""
    return _attention(op, q, k, v, mask, heads, scale, or_zero=True)


def _attention_half(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: Any, scale: Any, or_zero: bool = False
) -> Tensor:
    # The queries are scaled, not the scores, which would leave the range of half precision sooner.
    q = op.Mul(q, op.Cast(op.Constant(value_float=scale), to=_HALF))
    q, k, v = (_split_heads(op, x, heads) for x in (q, k, v))
    scores = op.Cast(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), to=_SINGLE)
    context = op.MatMul(op.Cast(_probabilities(op, scores, mask, or_zero), to=_HALF), v)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [0, 0, -1])


@function(family="attention", by_token=("q",), precision="half", exact=Attention)
def AttentionHalf(op: Op, q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float) -> Tensor:
    """`Attention` over float16 tensors; Softmax is computed in float32."""
    return _attention_half(op, q, k, v, None, heads, scale)


@function(family="attention", by_token=("q", "mask"), mask="mask", precision="half", exact=AttentionMasked)
def AttentionMaskedHalf(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`AttentionMasked` over float16 tensors; the mask is float32 and Softmax is computed in float32."""
    return _attention_half(op, q, k, v, mask, heads, scale)


@function(family="attention", by_token=("q", "mask"), mask="mask", precision="half", exact=AttentionOrZero)
def AttentionOrZeroHalf(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`AttentionOrZero` over float16 tensors; the mask is float32 and Softmax is computed in float32."""
    return _attention_half(op, q, k, v, mask, heads, scale, or_zero=True)


# Norms


@function(family="norm", by_token=("x",))
def Norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    """Layer normalisation over the last axis of x [..., W]; gamma and beta are [W]."""
    return op.LayerNormalization(x, gamma, beta, epsilon=epsilon)


@function(family="norm", by_token=("x", "skip"), skip="skip")
def AddNorm(op: Op, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    """`Norm` of ``x + skip``, the residual connection; both are [..., W]."""
    return Norm(op, op.Add(x, skip), gamma, beta, epsilon=epsilon)


# Look-ups


def gather(op: Op, table: Tensor, ids: Tensor) -> Tensor:
    """Rows of an embedding table [rows, W]."""
    return op.Gather(table, ids)


@function(family="embedding", tables={"table": "ids"}, precision="half")
def GatherHalf(op: Op, table: Tensor, ids: Tensor) -> Tensor:
    """Rows of an embedding table stored as float16 [rows, W], as float32."""
    return op.Cast(op.Gather(table, ids), to=_SINGLE)


@function(family="embedding", tables={"table": "ids"}, precision="int8", scales={"table": "scale"})
def GatherInt8(op: Op, table: Tensor, scale: Tensor, ids: Tensor) -> Tensor:
    """Rows of an embedding table stored as int8 [rows, W] with one float32 scale a row, [rows, 1]."""
    return op.Mul(op.Cast(op.Gather(table, ids), to=_SINGLE), op.Gather(scale, ids))


_TABLES = {"word": "ids", "type_table": "types", "position": "positions"}
_SCALES = {"word": "word_scale", "type_table": "type_scale", "position": "position_scale"}


def embedding(rows: Program, add_norm: Program, name: str, text: str) -> Program:
    """Return the program of `Embed` with its look-ups and its norm written in some way.

    Args:
        rows: A program such as `gather`; where tables are stored with scales, it takes these too.
        add_norm: A program such as the body of `AddNorm`, for the last sum and the norm.
        name: What the program is called.
        text: Its docstring.
    """
    stored = [(table, _SCALES[table]) if "scale" in parameters(rows)[0] else (table,) for table in _TABLES]
    tensors = (*_TABLES.values(), *(tensor for each in stored for tensor in each), "gamma", "beta")

    def program(op: Op, *values: Tensor, epsilon: Any) -> Tensor:
        given = dict(zip(tensors, values, strict=True))
        words, kinds, places = (
            rows(op, *(given[tensor] for tensor in each), given[_TABLES[each[0]]]) for each in stored
        )
        return add_norm(op, op.Add(words, kinds), places, given["gamma"], given["beta"], epsilon=epsilon)  # type: ignore[no-any-return]

    return with_signature(program, tensors, parameters(AddNorm.body)[1], name, text)


_EMBED: dict[str, Any] = {"family": "embedding", "tables": _TABLES, "ends_in_norm": True}

Embed = function(**_EMBED)(
    embedding(
        gather, AddNorm.body, "Embed",
        "`Norm` of the sum of three embeddings: ids and types int [B, S], positions int [B or 1, S], tables [rows, W].",
    )
)  # fmt: skip
EmbedHalf = function(**_EMBED, precision="half", exact=Embed)(
    embedding(
        GatherHalf.body, AddNorm.body, "EmbedHalf",
        "`Embed` with its three tables stored as in `GatherHalf`; sum and norm are float32.",
    )
)  # fmt: skip
EmbedInt8 = function(**_EMBED, precision="int8", exact=Embed, scales=_SCALES)(
    embedding(GatherInt8.body, AddNorm.body, "EmbedInt8", "`Embed` with its three tables stored as in `GatherInt8`.")
)
