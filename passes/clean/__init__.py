"""Take out what an exporter leaves behind and no one needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Editor, constant, rules
from ffc.graph.blocks.scores import passes_on
from ffc.graph.dialect.fold import fold
from ffc.graph.shapes.dim import Dim

from . import converted, flattened, gemm, identities, masks, tensorflow
from .branches import take_decided
from .ranges import take_scalars

_MAX_ROUNDS = 8


@dataclass(frozen=True)
class Clean(ffc.Pass):
    """Fold constants, and remove dead code, duplicates, identities and exporter noise.

    1. Nodes whose inputs are all constant are computed, unless that would inflate the model or round; an ``If`` that is
       decided becomes the branch that it takes.
    2. Shapes that are computed and come out constant are written down, and so is the target of a Reshape that keeps the
       dimensions which vary.
    3. The rules of its table are applied. One of them drops the ``IsNaN``/``Where`` that exporters put around a
       Softmax, where all queries of a row see the same: the mask's minus infinity becomes the lowest finite number, so
       a row that is masked throughout gives finite numbers of no meaning instead of NaN turned into zeros; other rows
       are untouched by that. Where one query may see nothing while others do, as in causal models, it stays.
    4. A Gemm by a constant weight becomes a product and a sum. What treats each token alike reads them as
       [batch, tokens, width] where an exporter makes one axis of the first two. What tf2onnx writes by arithmetic,
       pooling and products with ones and zeros becomes selections, look-ups and norms; a look-up of a row that a table
       does not have is then an error.
    5. Identities, equal nodes and equal initializers are merged.

    Outputs stay equal.
    """

    name = "clean"
    needs = ("opset",)
    # That an operand is always true comes before what may take it for a mask.
    rules = (
        *identities.RULES, *converted.RULES, *masks.RULES, *tensorflow.RULES, *gemm.RULES, *flattened.RULES,
    )  # fmt: skip

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        for _ in range(_MAX_ROUNDS):
            before = log.count
            log.did("decided branches", take_decided(model))
            editor = Editor(model)
            log.did("constants folded", fold(editor, exactly=True))
            log.did("shapes written down", _write_shapes(editor))
            log.did("scalars of Range", take_scalars(editor))
            log.did("rows on two axes", flattened.unflatten(editor))
            rules.apply(self.rules, model, log, editor)
            log.did("duplicates and dead code", _merge(editor))
            if log.count == before:
                return


def _write_shapes(editor: Editor) -> int:
    """Replace computed integer vectors that come out constant, and targets of Reshapes; return how many."""
    count = 0
    for node in list(editor.graph):
        if node.graph is None or node.domain:
            continue
        if node.op_type == "Reshape":
            count += _write_target(node, editor)
        for out in node.outputs:
            ints, dtype = editor.shapes.ints(out), editor.shapes.dtype(out)
            known = ints is not None and all(isinstance(item, int) for item in ints)
            if not known or dtype is None or constant(out) is not None or not out.uses():
                continue
            shape = editor.shapes.of(out)
            array = np.asarray(ints, dtype.numpy())
            editor.replace(out, editor.constant(array if shape else array.reshape(()), out.name or "shape"))
            count += 1
    return count


def _write_target(node: ir.Node, editor: Editor) -> int:
    """Give a Reshape a constant target: 0 where a dimension is kept, -1 for one other that varies."""
    data, target = node.inputs
    if data is None or target is None or constant(target) is not None or node.outputs[0].is_graph_output():
        return 0
    before, wanted = editor.shapes.of(data), editor.shapes.ints(target)
    zero = node.attributes.get("allowzero")
    if before is None or wanted is None or (zero is not None and zero.value and 0 in wanted):
        return 0
    literal = [_target(index, dim, before) for index, dim in enumerate(wanted)]
    if literal.count(-1) > 1:
        return 0
    node.attributes.pop("allowzero", None)
    editor.replace_input(node, 1, editor.constant(np.asarray(literal, np.int64), "target"))
    return 1


def _target(index: int, dim: Dim, before: tuple[Dim, ...]) -> int:
    if isinstance(dim, int):
        return dim
    return 0 if index < len(before) and before[index] == dim else -1


def _drop_identities(editor: Editor) -> None:
    """Let readers of an Identity, or of Dropout that is not in training, read what it copies.

    One that gives a value a second name as an output stays.
    """
    for node in list(editor.graph):
        others_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        if not passes_on(node) or node.inputs[0] is None or others_read:
            continue
        source, out = node.inputs[0], node.outputs[0]
        named = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
        if out.is_graph_output() and named:
            for use in tuple(out.uses()):
                editor.replace_input(use.node, use.idx, source)
        else:
            editor.replace(out, source)


def _merge(editor: Editor) -> int:
    """Merge identities, equal nodes and equal weights, drop what nothing reads; return how many went."""
    model, graph = editor.model, editor.graph
    before = len(graph) + len(graph.initializers)
    _drop_identities(editor)
    common.DeduplicateInitializersPass()(model)
    types = [value.type for value in graph.outputs]
    common.CommonSubexpressionEliminationPass()(model)
    for value, kind in zip(graph.outputs, types, strict=True):
        value.type = value.type or kind  # of two that are equal the first is kept, of which the file may say none
    common.RemoveUnusedNodesPass()(model)
    return before - len(graph) - len(graph.initializers)
