"""Replace the calls of ``ffc`` functions by the operators of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Editor, Match, Op, Sample, Tensor, rule, rules
from ffc.compiler.rules import flags, is_constant, is_scalar, normal
from ffc.graph.blocks.masks import FLOOR, is_at_least
from ffc.graph.dialect import ops
from ffc.graph.dialect.fold import fold
from ffc.graph.dialect.function import called, quantises
from ffc.graph.execute import CPU, CUDA, cuda_at_hand

_HALF, _SINGLE = ir.DataType.FLOAT16.value, ir.DataType.FLOAT.value

LEAST = -10_000.0
"""What a mask in half precision holds at least: far below any score, and in range when a score is added."""


# The first way that fits a call and a target is taken; a call without one is written as its body. A way to write a
# product is one to write the same product with an activation behind it.


def _norm(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: Any) -> Tensor:
    # Centred, the root mean square is the deviation. onnxruntime's CPU kernel for that is several times as fast as its
    # kernels for LayerNormalization and SkipLayerNormalization.
    centred = op.Sub(x, op.ReduceMean(x, [-1]))
    return op.Add(op.RMSNormalization(centred, gamma, axis=-1, epsilon=epsilon), beta)


@ops.Norm.lowering("rms-norm", target="cpu")
def norm_rms(op: Op, x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    """`Norm` through RMSNormalization."""
    return _norm(op, x, gamma, beta, epsilon)


@ops.AddNorm.lowering("rms-norm", target="cpu")
def add_norm_rms(op: Op, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    """`AddNorm` through RMSNormalization."""
    return _norm(op, op.Add(x, skip), gamma, beta, epsilon)


@ops.Attention.lowering("attention-23", target="cpu")
@ops.AttentionHalf.lowering("attention-23", target="cpu")
def attention_kernel(op: Op, q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float) -> Tensor:
    """`Attention` as the operator of opset 23."""
    return op.Attention(q, k, v, q_num_heads=heads, kv_num_heads=heads, scale=scale)


@ops.AttentionMasked.lowering("attention-23", target="cpu")
def attention_masked_kernel(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionMasked` as the operator of opset 23."""
    # It gives 0, not the mean of all values, to a query whose keys are all hidden by the lowest float.
    return op.Attention(q, k, v, op.Max(mask, FLOOR), q_num_heads=heads, kv_num_heads=heads, scale=scale)


def _or_zero(op: Op, context: Tensor, mask: Tensor, heads: int, *, half: bool = False) -> Tensor:
    """Put 0 where the context [B, Q, H*D] is that of a query whose keys a mask [B or 1, H or 1, Q, S] all hides."""
    sees = op.Transpose(op.Greater(op.ReduceMax(mask, [-1]), -np.inf), perm=[0, 2, 1, 3])
    count = op.Reshape(op.Constant(value_int=heads), [1])
    apart = op.Reshape(context, op.Concat([0, 0], count, [-1], axis=0))
    return op.Reshape(op.Mul(apart, op.Cast(sees, to=_HALF if half else _SINGLE)), [0, 0, -1])


@ops.AttentionOrZero.lowering("attention-23", target="cpu")
def attention_or_zero_kernel(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionOrZero` as the operator of opset 23."""
    context = attention_masked_kernel(op, q, k, v, mask, heads=heads, scale=scale)
    return _or_zero(op, context, mask, heads)


def _half_mask(op: Op, mask: Tensor) -> Tensor:
    # The mean that a query without keys gets is then weighted by what is left of its scores; the proof tells whether
    # anybody reads it.
    return op.Cast(op.Max(mask, LEAST), to=_HALF)


@ops.AttentionMaskedHalf.lowering("attention-23", target="cpu")
def attention_masked_half_kernel(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionMaskedHalf` as the operator of opset 23."""
    return op.Attention(q, k, v, _half_mask(op, mask), q_num_heads=heads, kv_num_heads=heads, scale=scale)


@ops.AttentionOrZeroHalf.lowering("attention-23", target="cpu")
def attention_or_zero_half_kernel(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionOrZeroHalf` as the operator of opset 23."""
    context = attention_masked_half_kernel(op, q, k, v, mask, heads=heads, scale=scale)
    return _or_zero(op, context, mask, heads, half=True)


@ops.LinearInt8.lowering("matmul-integer-to-float", target="cpu")
def linear_int8_kernel(op: Op, x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    """`LinearInt8` as onnxruntime's fused product; products of the same input come to share its quantisation."""
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(x, outputs=3)
    return op.ms.MatMulIntegerToFloat(x_int8, w, x_scale, w_scale, x_zero, None, b)


@ops.LinearInt8Rows.lowering("matmul-integer-to-float", target="cpu")
def linear_int8_rows_kernel(op: Op, x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    """`LinearInt8Rows` as onnxruntime's fused product."""
    rows = ops.largest(op, x)
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(op.Div(x, rows), outputs=3)
    product = op.ms.MatMulIntegerToFloat(x_int8, w, x_scale, w_scale, x_zero)
    return op.Add(op.Mul(product, rows), b)


# Kernels of the CUDA provider. Norms are float32 also where products are half: its SkipLayerNormalization adds up mean
# and variance in the type of its input.


@ops.AddNorm.lowering("skip-layer-norm", target="cuda", ranks=(2, 3))
def add_norm_skip(op: Op, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    """`AddNorm` as onnxruntime's fused sum and norm."""
    return op.ms.SkipLayerNormalization(x, skip, gamma, beta, epsilon=epsilon)


@ops.Attention.lowering("multi-head-attention", target="cuda")
@ops.AttentionHalf.lowering("multi-head-attention", target="cuda")
def multi_head(op: Op, q: Tensor, k: Tensor, v: Tensor, *, heads: int, scale: float) -> Tensor:
    """`Attention` or `AttentionHalf` as onnxruntime's kernel."""
    return op.ms.MultiHeadAttention(q, k, v, num_heads=heads, scale=scale)


@ops.AttentionMasked.lowering("multi-head-attention", target="cuda")
def multi_head_masked(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`AttentionMasked` as onnxruntime's kernel."""
    return op.ms.MultiHeadAttention(q, k, v, None, None, mask, num_heads=heads, scale=scale)


@ops.AttentionMaskedHalf.lowering("multi-head-attention", target="cuda")
def multi_head_masked_half(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionMaskedHalf` as onnxruntime's kernel."""
    return multi_head_masked(op, q, k, v, _half_mask(op, mask), heads=heads, scale=scale)


@ops.AttentionOrZero.lowering("multi-head-attention", target="cuda")
def multi_head_or_zero(op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float) -> Tensor:
    """`AttentionOrZero` as onnxruntime's kernel."""
    context = multi_head_masked(op, q, k, v, op.Max(mask, FLOOR), heads=heads, scale=scale)
    return _or_zero(op, context, mask, heads)


@ops.AttentionOrZeroHalf.lowering("multi-head-attention", target="cuda")
def multi_head_or_zero_half(
    op: Op, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, heads: int, scale: float
) -> Tensor:
    """`AttentionOrZeroHalf` as onnxruntime's kernel."""
    context = multi_head_masked_half(op, q, k, v, mask, heads=heads, scale=scale)
    return _or_zero(op, context, mask, heads, half=True)


@ops.LinearGelu.lowering("bias-gelu", target="cuda", given={"approximate": "none"})
def linear_bias_gelu(op: Op, x: Tensor, w: Tensor, b: Tensor, *, approximate: str = "none") -> Tensor:
    """`LinearGelu` with bias and exact GELU fused."""
    return op.ms.BiasGelu(op.MatMul(x, w), b)


@ops.LinearGelu.lowering("fast-gelu", target="cuda", given={"approximate": "tanh"})
def linear_fast_gelu(op: Op, x: Tensor, w: Tensor, b: Tensor, *, approximate: str = "none") -> Tensor:
    """`LinearGelu` with bias and the tanh form of GELU fused."""
    return op.ms.FastGelu(op.MatMul(x, w), b)


# Embeddings end in a norm, so they are written as one. EmbedLayerNormalization would take the look-ups of CUDA too, but
# asks for int32 ids and for token types of their shape; SkipLayerNormalization takes positions with a batch of 1.
for _embed, _rows in (
    (ops.Embed, ops.gather),
    (ops.EmbedHalf, ops.GatherHalf.body),
    (ops.EmbedInt8, ops.GatherInt8.body),
):
    _name = f"`{_embed.name}` with its sum and norm written as that of `AddNorm`."
    _embed.lowering("rms-norm", target="cpu")(ops.embedding(_rows, add_norm_rms, f"{_embed.name}Rms", _name))
    if _embed.precision != "int8":
        _program = ops.embedding(_rows, add_norm_skip, f"{_embed.name}Skip", _name)
        _embed.lowering("skip-layer-norm", target="cuda", ranks=(2,))(_program)


# Kernels get masks that are FLOOR or more. What makes sure of it costs nothing where the mask is told so in constants,
# and little before it is spelled out over queries.


def _is_above(match: Match) -> str | None:
    return None if is_at_least(match.values["x"], match.number("low")) else "it is not known to hold no less"


@rule(
    "max-of-more", lambda op, x: x, where=(is_scalar("low"), _is_above), shared=True,
    samples=(
        Sample({}, {"x": [-2.0, 1.0], "low": -2.0}),
        Sample({}, {"x": [-3.0, 1.0], "low": -2.0}, matches=False),
        Sample({"x": normal(2, 3)}, {"low": -2.0}, matches=False),
    ),
)  # fmt: skip
def _max_of_more(op: Op, x: Tensor, low: Tensor) -> Tensor:
    return op.Max(x, low)


def _no_less(match: Match) -> dict[str, Any]:
    return {name: np.maximum(match.array(name), match.array("low")) for name in ("one", "other")}


@rule(
    "max-of-choice", lambda op, c, one, other: op.Where(c, one, other), bind=_no_less, shared=True,
    where=(is_constant("one", "other"), is_scalar("low")),
    samples=(
        Sample({"c": flags(2, 3)}, {"one": 0.0, "other": -9.0, "low": -2.0}),
        Sample({"c": flags(2, 3), "one": normal(2, 3)}, {"other": -9.0, "low": -2.0}, matches=False),
    ),
)  # fmt: skip
def _max_of_choice(op: Op, c: Tensor, one: Tensor, other: Tensor, low: Tensor) -> Tensor:
    return op.Max(op.Where(c, one, other), low)


@rule(
    "max-of-expanded", lambda op, x, shape, low: op.Expand(op.Max(x, low), shape), where=(is_scalar("low"),),
    shared=True, samples=(Sample({"x": normal(2, 1, 3)}, {"shape": [2, 4, 3], "low": -0.5}),),
)  # fmt: skip
def _max_of_expanded(op: Op, x: Tensor, shape: Tensor, low: Tensor) -> Tensor:
    return op.Max(op.Expand(x, shape), low)


_OWN = "ffc."
"""How the notes begin that say which passes and rules made a node."""


@dataclass(frozen=True)
class Lower(ffc.Pass):
    """Replace every call of an ``ffc`` function by what suits the target; every compile ends with this.

    1. ``target=cpu`` takes the kernels of onnxruntime's CPU provider named in its table of lowerings, and bodies for
       the rest.
    2. ``target=cuda`` takes those of its CUDA provider, in float32 and, after ``fp16``, in half. That provider has none
       for int8 products whose input is quantised as the model runs; they are written as bodies.
    3. ``target=portable`` takes the bodies, so that every operator is a standard one; that is checked.
    4. What the bodies compute from attributes alone is folded, equal nodes are merged, and what exporters noted on
       nodes for debugging is dropped.

    No ``ffc`` function is left. Outputs stay equal; once numbers are rounded to int8 or half, that is proved on their
    float32 meaning, and the result as a whole is held to the budget of the pass that rounds.
    """

    name = "lower"
    rules = (_max_of_more, _max_of_choice, _max_of_expanded)

    target: Literal["cpu", "cuda", "portable"] = ffc.option(
        "what to write: kernels of onnxruntime's CPU or CUDA provider, or standard operators alone", default="cpu"
    )

    @property
    def provider(self) -> str:
        """The provider that has the kernels of the target."""
        return CUDA if self.target == "cuda" else CPU

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        editor = Editor(model)
        if self.target == "cuda":
            _note_cuda(model, log)
        for node, function in [(node, function) for node in model.graph if (function := called(node)) is not None]:
            ways, place = function.ways(node, self.target, editor.shapes), node.outputs[0].name
            chosen = next((way for way in ways if log.takes(f"{function.name} as {way.name}", place)), None)
            program, name = (function.body, "body") if chosen is None else (chosen.program, chosen.name)
            editor.splice(program, function.given(node), node.attributes, replaces=node.outputs[0], rule=name)
            log.did(f"{function.name} as {'its body' if chosen is None else chosen.name}")
        if any(node.domain == "ffc" for node in model.graph.all_nodes()):  # what nobody declared here has a body too
            common.InlinePass()(model)
            editor = Editor(model)
            log.did("other functions as their bodies")
        if any(node.domain == "com.microsoft" for node in model.graph):
            model.opset_imports["com.microsoft"] = 1
        if log.count:
            fold(editor)
            common.DeduplicateInitializersPass()(model)
            common.CommonSubexpressionEliminationPass()(model)
            rules.apply(self.rules, model, log, editor)
        if self.target == "portable":
            _check_portable(model)
        _strip(model, log)


def _note_cuda(model: ir.Model, log: ffc.Log) -> None:
    """Say what the CUDA provider leaves to the CPU, and whether it could be tried."""
    slow = sum(quantises(node) for node in model.graph)
    if slow:
        log.note(
            f"onnxruntime's CUDA provider has no kernel for {slow} int8 products, which quantise their input as the "
            "model runs: they are written as standard operators, and it hands those to the CPU; fp16 is for CUDA"
        )
    if not cuda_at_hand():
        log.note("no CUDA provider here: proved on the CPU provider, not run on CUDA")


def _strip(model: ir.Model, log: ffc.Log) -> None:
    """Drop what exporters noted on nodes and values; it is bulky and may hold paths of the machine."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    noted = 0
    for notes in [item.metadata_props for item in (*model.graph, *values)]:
        foreign = [key for key in notes if not key.startswith(_OWN)]
        noted += bool(foreign)
        for key in foreign:
            del notes[key]
    for node in model.graph:
        node.doc_string = None
    log.did("debugging notes", noted)


def _check_portable(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.domain or not onnx.defs.has(node.op_type):
            raise ffc.CannotApplyError(
                f"{node.domain or 'ai.onnx'}.{node.op_type} {node.name} is no standard operator, so the result would "
                "not be portable; compile from the original export, or use target=cpu"
            )
