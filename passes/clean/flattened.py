"""Let tokens keep their two axes where an exporter makes one axis of batch and tokens.

Rank 3 is what finding blocks, pruning and lowering expect; the numbers are the same row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ffc import Editor, Match, Op, Rule, Sample, Tensor, constant, rule
from ffc.compiler.rules import is_constant, normal, rank
from ffc.graph.blocks.tokens import ELEMENTWISE, NORMALISING, REDUCING
from ffc.graph.dialect.edit import producer
from ffc.graph.dialect.trace import Program
from ffc.graph.shapes.dim import Dim, product
from ffc.graph.shapes.inference import Shapes

__all__ = ["RULES", "unflatten"]


# What treats each row alike gives the same rows whether they lie on one axis or on two. So it reads what was there
# before a Reshape made [batch * tokens, width] of it, and the Reshape comes after it; at the end two of them meet.


@dataclass(frozen=True, eq=False)
class _Flat:
    """What a Reshape makes [batch * tokens, ...] of, with at most one axis more.

    Attributes:
        source: What it reads, [batch, tokens, ...].
        axes: Batch and tokens.
        width: The sizes of the axis that may come after.
    """

    source: ir.Value
    axes: tuple[Dim, ...]
    width: tuple[int, ...]


def unflatten(editor: Editor) -> int:
    """Let operators that treat rows alike read them on two axes; return how many do."""
    return sum(_unflatten(node, editor) for node in list(editor.graph))


def _unflatten(node: ir.Node, editor: Editor) -> bool:
    if node.graph is None or node.domain or len(node.outputs) != 1:
        return False
    flat = {index: found for index, value in enumerate(node.inputs) if (found := _flat(value, editor.shapes))}
    shape = editor.shapes.of(node.outputs[0])
    if not flat or shape is None or not _treats_rows_alike(node, flat, editor.shapes):
        return False
    axes, *others = (found.axes for found in flat.values())
    sizes = [dim for dim in shape[1:] if isinstance(dim, int)]
    if any(other != axes for other in others) or shape != (product(axes), *sizes):
        return False
    op = editor.at(node, f"{node.outputs[0].name}.rows")
    inputs = list(node.inputs)
    for index, found in flat.items():
        inputs[index] = _on_two_axes(op, found, editor.shapes)
    editor.replace(node.outputs[0], op.Reshape(_again(op, node, inputs), [-1, *sizes]))
    return True


def _flat(value: ir.Value | None, shapes: Shapes) -> _Flat | None:
    node = producer(value)
    if value is None or node is None or node.op_type != "Reshape" or node.domain or node.inputs[0] is None:
        return None
    before, after = shapes.of(node.inputs[0]), shapes.of(value)
    if before is None or after is None or not 0 < len(after) < min(3, len(before)) or before[1] == 1:
        return None
    inner, width = ([dim for dim in dims if isinstance(dim, int)] for dims in (before[2:], after[1:]))
    if len(inner) + 2 < len(before) or len(width) + 1 < len(after) or math.prod(inner) != math.prod(width):
        return None
    return _Flat(node.inputs[0], before[:2], tuple(width)) if after[0] == product(before[:2]) else None


def _treats_rows_alike(node: ir.Node, flat: Mapping[int, _Flat], shapes: Shapes) -> bool:
    """Whether each row of the result comes of the same row of what is flattened, and of what is the same for all."""
    rank, *others = {len(found.width) + 1 for found in flat.values()}
    same = [value for index, value in enumerate(node.inputs) if index not in flat and value is not None]
    if others or node.op_type in ELEMENTWISE:
        return not others and all(_is_one_row(value, rank, shapes) for value in same)
    if rank == 1:  # ids
        return node.op_type == "Gather" and list(flat) == [1] and not node.attributes.get_int("axis", 0)
    if list(flat) != [0]:
        return False
    if node.op_type == "MatMul":
        return len(shapes.of(same[0]) or ()) == 2
    if node.op_type in NORMALISING:
        along = node.attributes.get_int("axis", -1) in (-1, 1)
        return along and all(_is_one_row(value, rank, shapes) for value in same)
    axes = constant(node.inputs[1]) if node.op_type in REDUCING and len(node.inputs) > 1 else None
    return axes is not None and axes.tolist() in ([-1], [1]) and node.attributes.get_int("keepdims", 1) == 1


def _is_one_row(value: ir.Value, rank: int, shapes: Shapes) -> bool:
    """Whether an operand is the same for all rows of [N, ...], which has `rank` axes."""
    shape = shapes.of(value)
    return shape is not None and (len(shape) < rank or (len(shape) == rank and shape[0] == 1))


def _on_two_axes(op: Op, flat: _Flat, shapes: Shapes) -> ir.Value:
    wanted = (*flat.axes, *flat.width)
    return flat.source if shapes.of(flat.source) == wanted else op.Reshape(flat.source, [0, 0, *flat.width])


def _again(op: Op, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
    """Add the same operator to other inputs; what it does along an axis it does along the last."""
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    if node.op_type in NORMALISING:
        attributes["axis"] = -1
    given = [inputs[0], [-1]] if node.op_type in REDUCING else inputs
    result: ir.Value = op.node(node.op_type, *given, **attributes)
    return result


# What exporters set to be safe, and means nothing where there is no 0


def _says_every_size(match: Match) -> str | None:
    ints = match.editor.shapes.ints(match.values["target"])
    return None if ints is not None and 0 not in ints else "its target may hold a 0"


@rule(
    "reshape-without-zero", lambda op, x, target: op.Reshape(x, target), where=(_says_every_size,),
    samples=(
        Sample({"x": normal(2, 6)}, {"target": [-1, 3]}),
        Sample({"x": normal(0, 6)}, {"target": [3, 0]}, matches=False),
    ),
)  # fmt: skip
def _without_zero(op: Op, x: Tensor, target: Tensor) -> Tensor:
    return op.Reshape(x, target, allowzero=1)


# A Reshape of what only gives other axes is another Reshape

_RESHAPING: dict[str, Program] = {
    "reshape": lambda op, x, axes: op.Reshape(x, axes),
    "unsqueeze": lambda op, x, axes: op.Unsqueeze(x, axes),
    "squeeze": lambda op, x, axes: op.Squeeze(x, axes),
}


def _literal(match: Match) -> list[int] | None:
    """Return the target of one Reshape that does what both do: 0 keeps a size, -1 is one other that varies."""
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or 0 in after:
        return None
    kept = [index < len(before) and dim == before[index] for index, dim in enumerate(after)]
    target = [dim if isinstance(dim, int) else 0 if same else -1 for dim, same in zip(after, kept, strict=True)]
    return target if target.count(-1) < 2 else None


def _is_known(match: Match) -> str | None:
    return "more than one size varies" if _literal(match) is None else None


def _again_reshaped() -> Iterator[Rule]:
    given = {"reshape": [6, 4], "unsqueeze": [1], "squeeze": [1]}
    for name, program in _RESHAPING.items():
        x = normal(2, 1, 3, 4) if name == "squeeze" else normal(2, 3, 4)
        yield rule(
            f"reshape-of-{name}", lambda op, x, target: op.Reshape(x, target), where=(_is_known,), shared=True,
            bind=lambda match: {"target": _literal(match)},
            samples=(Sample({"x": x}, {"axes": given[name], "target": [2, 12]}),),
        )(_reshaped(program))  # fmt: skip


def _reshaped(program: Program) -> Program:
    def reshaped(op: Op, x: Tensor, axes: Tensor, target: Tensor) -> Tensor:
        return op.Reshape(program(op, x, axes), target)

    return reshaped


def _begins_alike(match: Match) -> str | None:
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or before[:2] != after[:2] or len(after) < 3:
        return "it is not known to keep batch and tokens apart"
    return None if all(isinstance(dim, int) for dim in after[2:]) else "its sizes are not known"


def _final(match: Match) -> Mapping[str, Any]:
    after = match.editor.shapes.of(match.root.outputs[0])
    assert after is not None
    return {"target": [0, 0, *(int(dim) for dim in after[2:] if isinstance(dim, int))]}


_SIZES = {"target": [2, 3, 2, 4, 1], "axes": [4]}


# squeeze(reshape(x)) is another reshape
@rule(
    "squeezed", lambda op, x, target: op.Reshape(x, target), where=(_begins_alike,), bind=_final,
    samples=(Sample({"x": normal(2, 3, 8)}, _SIZES), Sample({"x": normal(6, 8)}, _SIZES, matches=False)),
)  # fmt: skip
def _squeezed(op: Op, x: Tensor, target: Tensor, axes: Tensor) -> Tensor:
    return op.Squeeze(op.Reshape(x, target), axes)


def _is_bias(match: Match) -> str | None:
    b, width = match.array("b"), match.array("w").shape[1]
    before, after = (match.editor.shapes.of(value) for value in (match.values["x"], match.root.outputs[0]))
    if before is None or after is None or b.size != width or after[len(before) - 1 :] != b.shape:
        return "what is added is no bias of the product"
    return None if after[: len(before) - 1] == before[:-1] else "it is not known to keep batch and tokens apart"


def _heads(*b: int, matches: bool = True) -> Sample:
    constants = {"w": normal(6, 8), "target": [2, 3, 2, 4], "b": normal(*b)}
    return Sample({"x": normal(2, 3, 6)}, constants, matches=matches)


# reshape(x @ w, [B, S, H, D]) + b [H, D]
@rule(
    "bias-of-heads", lambda op, x, w, b, target: op.Reshape(op.Add(op.MatMul(x, w), b), target),
    where=(is_constant("w", "b"), rank("w", 2), _is_bias), bind=lambda match: {"b": match.array("b").reshape(-1)},
    samples=(_heads(2, 4), _heads(2, 1, matches=False), _heads(4, matches=False)),
)  # fmt: skip
def _bias_of_heads(op: Op, x: Tensor, w: Tensor, target: Tensor, b: Tensor) -> Tensor:
    return op.Add(op.Reshape(op.MatMul(x, w), target), b)


RULES = (_without_zero, *_again_reshaped(), _squeezed, _bias_of_heads)
