"""Replace the calls of ``ffc`` functions by the operators of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Editor, Lowering
from ffc.compiler.targets.lowering import choose
from ffc.graph.dialect.fold import fold
from ffc.graph.execute import cuda_at_hand

_HALF = ir.DataType.FLOAT16.value

LEAST = -10_000.0
"""What a mask in half precision holds at least: far below any score, and in range when a score is added."""


def _norm(op: Any, x: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    # Centred, the root mean square is the deviation. onnxruntime's CPU kernel for that is several times as fast as its
    # kernels for LayerNormalization and SkipLayerNormalization.
    centred = op.Sub(x, op.ReduceMean(x, [-1]))
    return op.Add(op.RMSNormalization(centred, gamma, axis=-1, epsilon=epsilon), beta)


def norm_rms(op: Any, x: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """`Norm` through RMSNormalization."""
    return _norm(op, x, gamma, beta, epsilon)


def add_norm_rms(op: Any, x: Any, skip: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """`AddNorm` through RMSNormalization."""
    return _norm(op, op.Add(x, skip), gamma, beta, epsilon)


def embed_rms(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`Embed` through RMSNormalization."""
    total = op.Add(op.Add(op.Gather(word, ids), op.Gather(type_table, types)), op.Gather(position, positions))
    return _norm(op, total, gamma, beta, epsilon)


def embed_int8_rms(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, word_scale: Any, type_table: Any, type_scale: Any,
    position: Any, position_scale: Any, gamma: Any, beta: Any, *, epsilon: float,
) -> Any:  # fmt: skip
    """`EmbedInt8` through RMSNormalization."""
    rows = ffc.ops.GatherInt8
    total = op.Add(rows(op, word, word_scale, ids), rows(op, type_table, type_scale, types))
    return _norm(op, op.Add(total, rows(op, position, position_scale, positions)), gamma, beta, epsilon)


def attention_kernel(op: Any, q: Any, k: Any, v: Any, *, heads: int, scale: float) -> Any:
    """`Attention` as the operator of opset 23."""
    return op.Attention(q, k, v, q_num_heads=heads, kv_num_heads=heads, scale=scale)


def attention_masked_kernel(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`AttentionMasked` as the operator of opset 23."""
    return op.Attention(q, k, v, mask, q_num_heads=heads, kv_num_heads=heads, scale=scale)


def linear_int8_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`LinearInt8` as onnxruntime's fused product; products of the same input come to share its quantisation."""
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(x, outputs=3)
    return op.ms.MatMulIntegerToFloat(x_int8, w, x_scale, w_scale, x_zero, None, b)


def linear_int8_relu_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`LinearInt8Relu` as onnxruntime's fused product and Relu."""
    return op.Relu(linear_int8_kernel(op, x, w, w_scale, b))


def linear_int8_gelu_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any, *, approximate: str = "none") -> Any:
    """`LinearInt8Gelu` as onnxruntime's fused product and Gelu."""
    return op.Gelu(linear_int8_kernel(op, x, w, w_scale, b), approximate=approximate)


def linear_int8_rows_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`LinearInt8Rows` as onnxruntime's fused product."""
    rows = ffc.ops.largest(op, x)
    x_int8, x_scale, x_zero = op.DynamicQuantizeLinear(op.Div(x, rows), outputs=3)
    product = op.ms.MatMulIntegerToFloat(x_int8, w, x_scale, w_scale, x_zero)
    return op.Add(op.Mul(product, rows), b)


def linear_int8_rows_relu_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any) -> Any:
    """`LinearInt8RowsRelu` as onnxruntime's fused product and Relu."""
    return op.Relu(linear_int8_rows_kernel(op, x, w, w_scale, b))


def linear_int8_rows_gelu_kernel(op: Any, x: Any, w: Any, w_scale: Any, b: Any, *, approximate: str = "none") -> Any:
    """`LinearInt8RowsGelu` as onnxruntime's fused product and Gelu."""
    return op.Gelu(linear_int8_rows_kernel(op, x, w, w_scale, b), approximate=approximate)


def embed_half_rms(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`EmbedHalf` through RMSNormalization."""
    rows = ffc.ops.GatherHalf
    total = op.Add(op.Add(rows(op, word, ids), rows(op, type_table, types)), rows(op, position, positions))
    return _norm(op, total, gamma, beta, epsilon)


def _half_mask(op: Any, mask: Any) -> Any:
    return op.Cast(op.Max(mask, LEAST), to=_HALF)


def attention_masked_half_kernel(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`AttentionMaskedHalf` as the operator of opset 23."""
    return attention_masked_kernel(op, q, k, v, _half_mask(op, mask), heads=heads, scale=scale)


# Kernels of the CUDA provider. Norms are float32 also where products are half: its SkipLayerNormalization adds up mean
# and variance in the type of its input.


def add_norm_skip(op: Any, x: Any, skip: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    """`AddNorm` as onnxruntime's fused sum and norm."""
    return op.ms.SkipLayerNormalization(x, skip, gamma, beta, epsilon=epsilon)


def embed_skip(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`Embed` with the last sum and the norm fused; positions may have a batch of 1."""
    # EmbedLayerNormalization would take the look-ups too, but asks for int32 ids and for token types of their shape.
    words = op.Add(op.Gather(word, ids), op.Gather(type_table, types))
    return op.ms.SkipLayerNormalization(words, op.Gather(position, positions), gamma, beta, epsilon=epsilon)


def embed_half_skip(
    op: Any, ids: Any, types: Any, positions: Any, word: Any, type_table: Any, position: Any, gamma: Any, beta: Any,
    *, epsilon: float,
) -> Any:  # fmt: skip
    """`EmbedHalf` with the last sum and the norm fused."""
    rows = ffc.ops.GatherHalf
    words = op.Add(rows(op, word, ids), rows(op, type_table, types))
    return op.ms.SkipLayerNormalization(words, rows(op, position, positions), gamma, beta, epsilon=epsilon)


def multi_head(op: Any, q: Any, k: Any, v: Any, *, heads: int, scale: float) -> Any:
    """`Attention` or `AttentionHalf` as onnxruntime's kernel."""
    return op.ms.MultiHeadAttention(q, k, v, num_heads=heads, scale=scale)


def multi_head_masked(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`AttentionMasked` as onnxruntime's kernel."""
    return op.ms.MultiHeadAttention(q, k, v, None, None, mask, num_heads=heads, scale=scale)


def multi_head_masked_half(op: Any, q: Any, k: Any, v: Any, mask: Any, *, heads: int, scale: float) -> Any:
    """`AttentionMaskedHalf` as onnxruntime's kernel."""
    return multi_head_masked(op, q, k, v, _half_mask(op, mask), heads=heads, scale=scale)


def linear_bias_gelu(op: Any, x: Any, w: Any, b: Any, *, approximate: str = "none") -> Any:
    """`LinearGelu` with bias and exact GELU fused."""
    return op.ms.BiasGelu(op.MatMul(x, w), b)


def linear_fast_gelu(op: Any, x: Any, w: Any, b: Any, *, approximate: str = "none") -> Any:
    """`LinearGelu` with bias and the tanh form of GELU fused."""
    return op.ms.FastGelu(op.MatMul(x, w), b)


LOWERINGS = (
    Lowering("Norm", "rms-norm", "cpu", norm_rms),
    Lowering("AddNorm", "rms-norm", "cpu", add_norm_rms),
    Lowering("Embed", "rms-norm", "cpu", embed_rms),
    Lowering("EmbedInt8", "rms-norm", "cpu", embed_int8_rms),
    Lowering("Attention", "attention-23", "cpu", attention_kernel),
    Lowering("AttentionMasked", "attention-23", "cpu", attention_masked_kernel),
    Lowering("LinearInt8", "matmul-integer-to-float", "cpu", linear_int8_kernel),
    Lowering("LinearInt8Relu", "matmul-integer-to-float", "cpu", linear_int8_relu_kernel),
    Lowering("LinearInt8Gelu", "matmul-integer-to-float", "cpu", linear_int8_gelu_kernel),
    Lowering("LinearInt8Rows", "matmul-integer-to-float", "cpu", linear_int8_rows_kernel),
    Lowering("LinearInt8RowsRelu", "matmul-integer-to-float", "cpu", linear_int8_rows_relu_kernel),
    Lowering("LinearInt8RowsGelu", "matmul-integer-to-float", "cpu", linear_int8_rows_gelu_kernel),
    Lowering("EmbedHalf", "rms-norm", "cpu", embed_half_rms),
    Lowering("AttentionHalf", "attention-23", "cpu", attention_kernel),
    Lowering("AttentionMaskedHalf", "attention-23", "cpu", attention_masked_half_kernel),
    Lowering("AddNorm", "skip-layer-norm", "cuda", add_norm_skip, ranks=(2, 3)),
    Lowering("Embed", "skip-layer-norm", "cuda", embed_skip, ranks=(2,)),
    Lowering("EmbedHalf", "skip-layer-norm", "cuda", embed_half_skip, ranks=(2,)),
    Lowering("Attention", "multi-head-attention", "cuda", multi_head),
    Lowering("AttentionMasked", "multi-head-attention", "cuda", multi_head_masked),
    Lowering("AttentionHalf", "multi-head-attention", "cuda", multi_head),
    Lowering("AttentionMaskedHalf", "multi-head-attention", "cuda", multi_head_masked_half),
    Lowering("LinearGelu", "bias-gelu", "cuda", linear_bias_gelu, given={"approximate": "none"}),
    Lowering("LinearGelu", "fast-gelu", "cuda", linear_fast_gelu, given={"approximate": "tanh"}),
)
"""The first entry that fits a call and a target is taken; a call without one is written as its body."""


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

    target: Literal["cpu", "cuda", "portable"] = ffc.option(
        "what to write: kernels of onnxruntime's CPU or CUDA provider, or standard operators alone", default="cpu"
    )

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        editor = Editor(model)
        if self.target == "cuda":
            _note_cuda(model, log)
        for node in [node for node in model.graph if ffc.ops.is_call(node)]:
            chosen = choose(LOWERINGS, node, self.target, editor.shapes)
            program = ffc.ops.FUNCTIONS[node.op_type] if chosen is None else chosen.program
            inputs = dict(zip(ffc.ops.parameters(node.op_type), node.inputs, strict=True))
            name = "body" if chosen is None else chosen.name
            editor.splice(program, inputs, node.attributes, replaces=node.outputs[0], rule=name)
            log.did(f"{node.op_type} as {'its body' if chosen is None else chosen.name}")
        if any(node.domain == "com.microsoft" for node in model.graph):
            model.opset_imports["com.microsoft"] = 1
        if log.count:
            fold(model)
            common.DeduplicateInitializersPass()(model)
            common.CommonSubexpressionEliminationPass()(model)
        if self.target == "portable":
            _check_portable(model)
        _strip(model, log)


def _note_cuda(model: ir.Model, log: ffc.Log) -> None:
    """Say what the CUDA provider leaves to the CPU, and whether it could be tried."""
    slow = sum(ffc.ops.is_call(node, *ffc.ops.PLAIN) for node in model.graph)
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
