"""Walking from the Softmax of an attention: back to the product of queries and keys, and on to that with the values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from ffc.graph.blocks.structure import Mask
from ffc.graph.dialect.edit import constant, producer
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import concrete

__all__ = ["NotABlockError", "ScoreWalk", "Scores", "factor", "passes_on"]

_LOW = -1e4
"""What takes the place of hidden scores is at most this: far below any score, as masks have it."""

_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
"""Operators that move elements and keep their order."""


class NotABlockError(Exception):
    """The walk met something that no block has there; the message says what."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What lies between the product of queries and keys and its Softmax.

    Attributes:
        product: The product: queries [..., S, D] by keys [..., D, S].
        scale: Factor on it.
        masks: What hides tokens, in order.
        shared: Whether something else reads them too, on their way to the Softmax.
    """

    product: ir.Node
    scale: float
    masks: tuple[Mask, ...]
    shared: bool


@dataclass(frozen=True, eq=False)
class ScoreWalk:
    """Walks around the Softmax of one graph.

    Attributes:
        shapes: Shapes of the graph.
        sizes: A number for each symbol in them.
    """

    shapes: Shapes
    sizes: Mapping[str, int]

    def back(self, value: ir.Value | None) -> Scores:
        """Walk from the input of a Softmax to the product of queries and keys.

        Raises:
            NotABlockError: If anything but masks, a scale and reshapes stands between.
        """
        masks: list[Mask] = []
        scale = 1.0
        end = value
        shared = value is not None and _is_shared(value)
        while (node := producer(value)) is not None and not (node.op_type == "MatMul" and not node.domain):
            if (scaled := factor(node, self.shapes)) is not None:
                value, number = scaled
                scale *= number
            elif passes_on(node) or _reshapes(node) or self._keeps_type(node):
                value = node.inputs[0]
            elif node.op_type in ("Add", "Sub", "Where") and not node.domain:
                value, mask = self._mask(node, scale)
                masks.append(mask)
            else:
                raise NotABlockError(f"{node.op_type} {node.name} stands between its scores and the product")
            shared = shared or (value is not None and _is_shared(value))
        if node is None or end is None:
            raise NotABlockError("its scores come from no product of queries and keys")
        self._check_planes(node.outputs[0], end)
        return Scores(node, scale, tuple(reversed(masks)), shared)

    def forward(self, probabilities: ir.Value) -> tuple[ir.Node, bool]:
        """Walk from the output of a Softmax to the product with the values.

        Returns:
            The product, and whether a guard against NaN was met.

        Raises:
            NotABlockError: If anything else stands between, or probabilities are read elsewhere too.
        """
        guarded = False
        value = probabilities
        while True:
            users = {use.node: use.idx for use in value.uses() if use.node.op_type not in ("IsNaN", "Shape")}
            if len(users) != 1 or value.is_graph_output():
                raise NotABlockError("its probabilities are read by several nodes or are an output of the model")
            ((node, index),) = users.items()
            if node.op_type == "MatMul" and not node.domain and index == 0:
                self._check_planes(probabilities, value)
                return node, guarded
            if _is_nan_guard(node, value):
                guarded = True
            elif not (passes_on(node) or _reshapes(node) or self._keeps_type(node)) or index:
                raise NotABlockError(f"{node.op_type} {node.name} stands between its probabilities and the values")
            value = node.outputs[0]

    def _keeps_type(self, node: ir.Node) -> bool:
        """Whether `node` casts to the type that its input has."""
        source, out = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.domain or node.op_type != "Cast" or source is None:
            return False
        return self.shapes.dtype(source) is not None and self.shapes.dtype(source) == self.shapes.dtype(out)

    def _check_planes(self, before: ir.Value, after: ir.Value) -> None:
        """Check that reshapes between two values left the planes [S, S] of scores whole."""
        if before is after:
            return
        one, other = (concrete(self.shapes, value, self.sizes) for value in (before, after))
        if one is None or other is None or one[-2:] != other[-2:] or math.prod(one) != math.prod(other):
            raise NotABlockError(f"between {before.name} and {after.name} its scores are reshaped")

    def _mask(self, node: ir.Node, scale: float) -> tuple[ir.Value, Mask]:
        """Tell the scores from the mask at an operator that joins both; `scale` applies to the result."""
        scores, mask = _filled(node, scale) if node.op_type == "Where" else self._added(node, scale)
        shape, own = self.shapes.of(scores), self.shapes.of(mask.value)
        if shape is None or (own is None and len(shape) != 4) or len(own or ()) > len(shape):
            raise NotABlockError(f"the shape of the mask {mask.value.name} at {node.op_type} {node.name} is not known")
        flat = own is not None and len(shape) == 3 and len(own) == 3 and own[0] != 1
        return scores, replace(mask, flat=flat)

    def _added(self, node: ir.Node, scale: float) -> tuple[ir.Value, Mask]:
        """Split ``scores + mask``, ``mask + scores`` or ``scores - mask``."""
        one, other = node.inputs
        assert one is not None and other is not None
        seen: dict[ir.Value, bool] = {}
        scores = [value for value in (one, other) if self._is_scores(value, seen)]
        if not scores:
            raise NotABlockError(f"{node.op_type} {node.name} adds to something that is no product of activations")
        if node.op_type == "Sub" and scores[0] is other:
            raise NotABlockError(f"Sub {node.name} subtracts its scores")
        # Of two products, one is added to the scores of the other as a mask is.
        sign = -1.0 if node.op_type == "Sub" else 1.0
        return scores[0], Mask(other if scores[0] is one else one, factor=sign * scale)

    def _is_scores(self, value: ir.Value, seen: dict[ir.Value, bool]) -> bool:
        """Whether `value` comes from a product of activations through what stands around scores; `seen` are known."""
        pending, found = [value], False
        while pending and not found:
            value = pending.pop()
            node = value.producer()
            if value in seen or node is None or node.domain:
                found = seen.get(value, False)
                continue
            seen[value] = False
            if node.op_type == "MatMul":
                found = seen[value] = all(constant(operand) is None for operand in node.inputs)
            elif (scaled := factor(node, self.shapes)) is not None:
                pending.append(scaled[0])
            elif passes_on(node) or _reshapes(node):
                pending += [operand for operand in node.inputs[:1] if operand is not None]
            elif node.op_type in ("Add", "Sub", "Where"):
                pending += [operand for operand in node.inputs if operand is not None]
        return found


def factor(node: ir.Node, shapes: Shapes) -> tuple[ir.Value, float] | None:
    """Return the operand and the number where `node` multiplies by or divides by one constant number."""
    if node.domain or node.op_type not in ("Mul", "Div"):
        return None
    one, other = node.inputs
    if constant(one) is not None and node.op_type == "Mul":
        one, other = other, one
    number = constant(other)
    if one is None or number is None or number.size != 1 or not number.reshape(-1)[0]:
        return None
    if number.ndim > 1 and number.ndim > len(shapes.of(one) or ()):  # it would add axes
        return None
    value = float(number.reshape(-1)[0])
    return one, value if node.op_type == "Mul" else 1 / value


def passes_on(node: ir.Node) -> bool:
    """Whether `node` gives its first input as it is: an Identity, or Dropout that is not in training."""
    if node.domain or node.op_type not in ("Dropout", "Identity"):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(training)
    return training is None or (array is not None and not array.any())


def _is_shared(value: ir.Value) -> bool:
    return value.is_graph_output() or len({use.node for use in value.uses() if use.node.op_type != "Shape"}) > 1


def _reshapes(node: ir.Node) -> bool:
    return not node.domain and node.op_type in _RESHAPING


def _filled(node: ir.Node, scale: float) -> tuple[ir.Value, Mask]:
    """Split ``Where(keep, scores, low)`` or ``Where(drop, low, scores)``."""
    test, one, other = node.inputs
    assert test is not None and one is not None and other is not None
    inverted = constant(one) is not None
    low, scores = (constant(one), other) if inverted else (constant(other), one)
    if low is None or not low.size or not (low * scale <= _LOW).all():
        raise NotABlockError(f"Where {node.name} fills its scores with something that is no low number")
    return scores, Mask(test, inverted=inverted, low=float(low.max()) * scale)


def _is_nan_guard(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` is ``Where(IsNaN(value), 0, value)``."""
    if node.domain or node.op_type != "Where" or node.inputs[2] is not value:
        return False
    test, zero = producer(node.inputs[0]), constant(node.inputs[1])
    if test is None or test.op_type != "IsNaN" or test.inputs[0] is not value:
        return False
    return zero is not None and not zero.any()
