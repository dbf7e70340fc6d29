"""Take out what an exporter leaves behind and no one needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

import ffc
from ffc import Editor, Match, Rule, Sample, constant, rules
from ffc.graph.blocks.scores import passes_on
from ffc.graph.dialect.fold import fold
from ffc.graph.shapes.dim import Dim

from . import flattened, tensorflow

LOWEST = float(np.finfo(np.float32).min)
"""Stands for minus infinity in masks: what it is added to gets probability 0, and a row of it stays finite."""

_MAX_ROUNDS = 8


# Rules


def _keep(op: Any, x: Any) -> Any:
    return x


def _guarded(op: Any, scores: Any, keep: Any, low: Any) -> Any:
    probabilities = op.Softmax(op.Add(scores, op.Where(keep, 0.0, low)), axis=-1)
    return op.Where(op.IsNaN(probabilities), 0.0, probabilities)


def _unguarded(op: Any, scores: Any, keep: Any, low: Any, zero: Any) -> Any:
    return op.Softmax(op.Add(scores, op.Where(keep, zero, low)), axis=-1)


def _guard_samples(random: np.random.Generator) -> Iterator[Sample]:
    for batch, heads, tokens, low in ((1, 1, 3, -np.inf), (2, 4, 7, LOWEST)):
        keep = random.random((batch, 1, 1, tokens)) < 0.7
        keep[..., 0] = True  # a row masked throughout is allowed to differ
        scores = random.standard_normal((batch, heads, tokens, tokens)).astype(np.float32)
        inputs = {"scores": scores, "keep": keep}
        yield Sample(inputs, {"low": np.full((), low, np.float32)})
        yield Sample(inputs, {"low": np.full((), np.nan, np.float32)}, matches=False)
        yield Sample(inputs, {"low": np.full((1, 1, 1, tokens), low, np.float32)}, matches=False)


def _is_low(match: Match) -> str | None:
    return None if float(match.array("low").reshape(-1)[0]) < 0 else "what masks is not negative"


def _finite(match: Match) -> Mapping[str, Any]:
    low = match.array("low")
    return {"low": np.maximum(low, np.finfo(low.dtype).min), "zero": np.zeros((), low.dtype)}


def _looked_up(op: Any, mask: Any, batch: Any, length: Any) -> Any:
    rows = op.Unsqueeze(op.Unsqueeze(op.Range(0, batch, 1), [1, 2]), [3])
    tokens = op.Unsqueeze(op.Unsqueeze(op.Range(0, length, 1), [0, 1]), [2])
    shape = op.Shape(op.Max(rows, tokens))
    places = [op.Unsqueeze(op.Expand(positions, shape), [-1]) for positions in (rows, tokens)]
    return op.GatherND(mask, op.Concat(*places, axis=-1))


def _whole(op: Any, mask: Any) -> Any:
    return op.Unsqueeze(mask, [1, 2])


def _whole_mask(match: Match) -> str | None:
    shapes = match.editor.shapes
    sizes = [shapes.ints(match.values[name]) for name in ("batch", "length")]
    mask = shapes.of(match.values["mask"])
    if mask is None or len(mask) != 2 or sizes != [mask[:1], mask[1:]]:
        return "not all of the mask is looked up"
    return None


def _lookup_samples(random: np.random.Generator) -> Iterator[Sample]:
    for batch, length in ((1, 3), (2, 5)):
        mask = random.random((batch, length)) < 0.5
        yield Sample({"mask": mask}, {"batch": np.array(batch), "length": np.array(length)})
        yield Sample({"mask": mask}, {"batch": np.array(batch), "length": np.array(length - 1)}, matches=False)


def _not_negative(op: Any, keep: Any, length: Any) -> Any:
    positions = op.Unsqueeze(op.Unsqueeze(op.Range(0, length, 1), [0, 1]), [3])
    return op.And(op.GreaterOrEqual(positions, 0), keep)


def _expanded(op: Any, keep: Any, length: Any) -> Any:
    return op.Expand(keep, op.Concat([1, 1], op.Reshape(length, [1]), [1], axis=0))


def _not_negative_samples(random: np.random.Generator) -> Iterator[Sample]:
    for batch, length in ((1, 3), (2, 5)):
        yield Sample({"keep": random.random((batch, 1, 1, length)) < 0.5, "length": np.array(length)})


def _cast(op: Any, x: Any, *, to: int) -> Any:
    return op.Cast(x, to=to)


def _cast_samples(random: np.random.Generator) -> Iterator[Sample]:
    x = random.standard_normal((2, 3)).astype(np.float32)
    yield Sample({"x": x}, attributes={"to": ir.DataType.FLOAT.value})
    yield Sample({"x": x}, attributes={"to": ir.DataType.INT64.value}, matches=False)


def _same_type(match: Match) -> str | None:
    value, wanted = match.values["x"], match.attributes["to"].as_int()
    found = match.editor.shapes.dtype(value)
    return None if found == ir.DataType(wanted) else f"it casts {found} to {ir.DataType(wanted)}"


def _transpose(op: Any, x: Any, *, perm: tuple[int, ...]) -> Any:
    return op.Transpose(x, perm=perm)


def _in_place(match: Match) -> str | None:
    perm = list(match.attributes["perm"].as_ints())
    return None if perm == sorted(perm) else f"it moves axes {perm}"


def _transpose_samples(random: np.random.Generator) -> Iterator[Sample]:
    x = random.standard_normal((2, 3, 4)).astype(np.float32)
    yield Sample({"x": x}, attributes={"perm": [0, 1, 2]})
    yield Sample({"x": x}, attributes={"perm": [0, 2, 1]}, matches=False)


def _reshape(op: Any, x: Any, shape: Any) -> Any:
    return op.Reshape(x, shape)


def _expand(op: Any, x: Any, shape: Any) -> Any:
    return op.Expand(x, shape)


def _same_shape(match: Match) -> str | None:
    shapes = match.editor.shapes
    before, after = shapes.of(match.values["x"]), shapes.of(match.root.outputs[0])
    return None if before is not None and before == after else "it changes the shape"


def _shape_samples(random: np.random.Generator) -> Iterator[Sample]:
    x = random.standard_normal((2, 3)).astype(np.float32)
    yield Sample({"x": x}, {"shape": np.array([2, 3])})
    yield Sample({"x": x[:1]}, {"shape": np.array([1, 1, 3])}, matches=False)


def _and(op: Any, x: Any, always: Any) -> Any:
    return op.And(x, always)


def _always_true(match: Match) -> str | None:
    array = constant(match.values["always"])
    if array is None or not array.all():
        return "neither operand is always true"
    return _same_shape(match)


def _and_samples(random: np.random.Generator) -> Iterator[Sample]:
    x = random.random((2, 3)) < 0.5
    yield Sample({"x": x}, {"always": np.ones((), np.bool_)})
    yield Sample({"x": x}, {"always": np.ones((1, 3), np.bool_)})
    yield Sample({"x": x}, {"always": np.zeros((), np.bool_)}, matches=False)
    yield Sample({"x": x}, {"always": np.ones((4, 2, 3), np.bool_)}, matches=False)


def _mul(op: Any, x: Any, one: Any) -> Any:
    return op.Mul(x, one)


def _is_one(match: Match) -> str | None:
    return _same_shape(match) if (match.array("one") == 1).all() else "the factor is not 1"


def _mul_samples(random: np.random.Generator) -> Iterator[Sample]:
    x = random.standard_normal((2, 3)).astype(np.float32)
    yield Sample({"x": x}, {"one": np.ones((), np.float32)})
    yield Sample({"x": x}, {"one": np.full(3, 2, np.float32)}, matches=False)


RULES = (
    # Where(IsNaN(p), 0, p) around p = Softmax(scores + mask): with a mask made finite no NaN can arise
    Rule(
        "nan-guard", _guarded, _unguarded, _guard_samples, bind=_finite, shared=True,
        where=(rules.is_scalar("low"), _is_low),
    ),
    # mask[row, token] for every row and token: the mask itself
    Rule("mask-lookup", _looked_up, _whole, _lookup_samples, where=(_whole_mask,), shared=True),
    # before the next, which would take a True for a mask
    Rule("and-true", _and, _keep, _and_samples, where=(_always_true,)),
    # keep, and the position is not negative: it never is; only the broadcast over positions stays
    Rule("position-not-negative", _not_negative, _expanded, _not_negative_samples, shared=True),
    Rule("cast-to-same", _cast, _keep, _cast_samples, where=(_same_type,)),
    Rule("transpose-nothing", _transpose, _keep, _transpose_samples, where=(_in_place,)),
    Rule("reshape-to-same", _reshape, _keep, _shape_samples, where=(_same_shape,)),
    Rule("expand-to-same", _expand, _keep, _shape_samples, where=(_same_shape,)),
    Rule("times-one", _mul, _keep, _mul_samples, where=(rules.is_constant("one"), _is_one)),
)  # fmt: skip


@dataclass(frozen=True)
class Clean(ffc.Pass):
    """Fold constants, and remove dead code, duplicates, identities and exporter noise.

    1. Nodes whose inputs are all constant are computed, unless that would inflate the model.
    2. Shapes that are computed and come out constant are written down, and so is the target of a Reshape that keeps the
       dimensions which vary.
    3. The rules of its table are applied. One of them drops the ``IsNaN``/``Where`` that exporters put around a
       Softmax: the mask's minus infinity becomes the lowest finite number, so a row that is masked throughout gives
       finite numbers of no meaning instead of NaN turned into zeros; other rows are untouched by that.
    4. Products of flattened tokens read them as [batch, tokens, width]; what tf2onnx writes by arithmetic and pooling
       becomes selections and norms.
    5. Identities, equal nodes and equal initializers are merged.

    Outputs stay equal.
    """

    name = "clean"
    needs = ("opset",)
    rules = (*RULES, *tensorflow.RULES, *flattened.RULES)

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        for _ in range(_MAX_ROUNDS):
            before, editor = log.count, Editor(model)
            log.did("constants folded", fold(editor))
            log.did("shapes written down", _write_shapes(editor))
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
        if not passes_on(node) or node.inputs[0] is None or any(value.uses() for value in node.outputs[1:]):
            continue
        if any(value.is_graph_output() for value in node.outputs[1:]):
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
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return before - len(graph) - len(graph.initializers)
