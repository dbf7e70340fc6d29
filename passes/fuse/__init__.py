"""Replace the blocks of an encoder by calls of the ``ffc`` functions that stand for them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

import ffc
from ffc import Editor, rules
from ffc.graph.blocks.attention_call import AttentionCalls
from ffc.graph.blocks.prequantised import reason_to_leave
from ffc.graph.blocks.structure import Attention
from ffc.graph.dialect.widen import computes_in_half

from . import embeddings, gelu, norms, onnxruntime, products, survey, tokens_first

# Norms are whole before a sum joins them. The rule for embeddings stands before that for a norm of a sum, which would
# take the last of theirs.
PARTS = (*gelu.RULES, *norms.RULES)
RULES = (*PARTS, *embeddings.RULES, *norms.RESIDUAL, *products.RULES)


@dataclass(frozen=True)
class Fuse(ffc.Pass):
    """Recognise the blocks of an encoder and replace them by calls of ``ffc`` functions.

    1. Attention, found by its structure (`ffc.find_blocks`) whatever an exporter wrote around it, becomes
       ``Attention``, ``AttentionMasked`` or ``AttentionOrZero`` on queries, keys and values; a fused QKV product is
       split into three.
    2. What has its tokens before the batch, as ``torch.nn.MultiheadAttention`` does, gets them behind it.
    3. GELU in its forms, layer norms, residual additions, embeddings and products with their activation are
       recognised by the rules of its table.
    4. Float operators that onnxruntime or its tools fused before (``Attention``, ``MultiHeadAttention``,
       ``SkipLayerNormalization``, ``EmbedLayerNormalization``, ``BiasGelu``, ``FastGelu``, ``FusedMatMul``) are read
       as the same blocks; those of int8 and half precision stay.

    The mask stays what the model computes, so padding on the right, on the left, or with holes means what it meant.
    Outputs stay equal.
    """

    name = "fuse"
    needs = ("clean",)
    rules = (*onnxruntime.RULES, *tokens_first.RULES, *RULES)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        reason = reason_to_leave(model)
        if reason:
            log.missed("the model", reason)
            return
        if computes_in_half(model):
            log.note("it computes in half, where no block is looked for; put widen before, and fp16 behind")
        editor = Editor(model)
        onnxruntime.read_kernels(editor, log)
        blocks = ffc.find_blocks(model)
        calls = AttentionCalls(editor)
        for layer in blocks.layers:
            attention = layer.attention
            if attention is None or attention.node.domain:
                continue
            if why := _obstacle(attention, editor) or calls.obstacle(attention):
                log.missed(f"attention of layer {layer.index}", why)
                continue
            if not log.takes("attention", attention.context.name):
                continue
            calls.put(attention)
            log.did("attention")
        for miss in blocks.unmatched:
            log.missed(miss.where, miss.why)
        for table in (tokens_first.RULES, PARTS, RULES):
            rules.apply(table, model, log, editor)

    def survey(self, tried: ffc.Tried) -> ffc.Survey:
        """See `ffc.Pass.survey`: every block with the call that it became."""
        return ffc.Survey(survey.findings((*onnxruntime.RULES, *RULES), tried), tried.refused)


def _obstacle(attention: Attention, editor: Editor) -> str:
    """Return why a call shall not take the place of attention that was found, empty where nothing is against it."""
    if editor.shapes.dtype(attention.context) != ir.DataType.FLOAT:
        return "it is not computed in float32"
    return "its scores are read elsewhere too, and would be computed twice" if attention.shared else ""
