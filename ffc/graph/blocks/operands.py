"""Following queries, keys and values of an attention back to what computes them.

Which column of a product is which part of which head is not guessed from the operators on the way: positions are sent
through them (`positions`) and read off at the end, so any chain of reshapes, transposes, splits and slices will do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ffc.graph.blocks.products import Products, Reader
from ffc.graph.blocks.scores import NotABlockError, factor, passes_on
from ffc.graph.blocks.structure import Operand
from ffc.graph.shapes.inference import Shapes
from ffc.graph.shapes.positions import concrete, move, moves

__all__ = ["MAX_POSITIONS", "Arrangement", "Found", "OperandWalk", "plane_of_keys", "plane_of_tokens", "side_by_side"]

MAX_POSITIONS = 1 << 26
"""Elements that are followed, half a gigabyte of positions."""

Arrangement = Callable[[np.ndarray, int], np.ndarray]
"""Given an array laid out as an operand is and the size of its batch, returns it as [B, H, S, D]."""


def plane_of_tokens(array: np.ndarray, batch: int) -> np.ndarray:
    """Arrange [B, H, S, D] or [B*H, S, D], as a product of activations reads queries and values."""
    if array.ndim == 4:
        return array
    if array.ndim != 3 or array.shape[0] % batch:
        raise NotABlockError(f"an operand is laid out {list(array.shape)}, not [batch, heads, tokens, size]")
    return array.reshape(batch, -1, *array.shape[1:])


def plane_of_keys(array: np.ndarray, batch: int) -> np.ndarray:
    """Arrange [B, H, D, S] or [B*H, D, S], as a product of activations reads keys."""
    return plane_of_tokens(array.swapaxes(-1, -2) if array.ndim > 1 else array, batch)


def side_by_side(heads: int) -> Arrangement:
    """Return an arrangement of [B, S, heads * size]."""

    def arrange(array: np.ndarray, batch: int) -> np.ndarray:
        if array.ndim == 4:
            return array
        if array.ndim != 3 or array.shape[2] % heads:
            raise NotABlockError(f"an operand of shape {list(array.shape)} does not split into {heads} heads")
        return array.reshape(*array.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    return arrange


@dataclass(frozen=True, eq=False)
class Found:
    """An operand and what was learned on the way to it.

    Attributes:
        reader: Where attention reads it.
        operand: The operand.
        scale: The factors between `operand` and the attention, multiplied.
        shape: Batch, heads, tokens and size of a head, with numbers put in for symbols.
        why: Why it is not the output of a constant product; empty where it is.
    """

    reader: Reader
    operand: Operand
    scale: float
    shape: tuple[int, int, int, int]
    why: str


@dataclass(frozen=True, eq=False)
class _Step:
    """A node on the way: what it reads and computes, and the factor it multiplies by; moves may have 1."""

    node: ir.Node
    source: ir.Value
    out: ir.Value
    factor: float


@dataclass(frozen=True, eq=False)
class OperandWalk:
    """Walks back from the operands of attention in one graph.

    Attributes:
        products: The graph's products.
        shapes: Its shapes.
        sizes: A number for each symbol in them, small, to send positions through.
    """

    products: Products
    shapes: Shapes
    sizes: Mapping[str, int]

    def find(self, reader: Reader, arrange: Arrangement) -> Found:
        """Return what computes the operand that attention reads: a product if only moves and factors stand between.

        Raises:
            NotABlockError: If nothing on the way has heads and tokens in axes of their own, or side by side.
        """
        value = reader[0].inputs[reader[1]]
        if value is None:
            raise NotABlockError("an operand is missing")
        steps, reason = self._steps(value)
        whole = None
        for count in range(len(steps), -1, -1):  # the furthest first
            base = steps[count - 1].source if count else value
            scale = math.prod(step.factor for step in steps[:count])
            try:
                operand, shape = self._read(base, steps[:count], arrange)
            except NotABlockError as error:
                reason = reason or str(error)
                continue
            if whole is None and operand.product is not None and operand.product.columns is not None:
                whole = Found(reader, operand, scale, shape, "")
                continue  # on to where its columns are cut out
            if whole is None:
                why = "" if operand.product else reason or f"{base.name} has its heads in an axis of their own"
                return Found(reader, operand, scale, shape, why)
            if scale == whole.scale:
                return replace(whole, operand=replace(whole.operand, apart=operand))
        if whole is None:
            raise NotABlockError(reason)
        return whole

    def _steps(self, value: ir.Value) -> tuple[list[_Step], str]:
        """Walk back as far as elements are only moved and scaled; say why no product was reached, if none was."""
        steps: list[_Step] = []
        while value not in self.products.by_output:
            node = value.producer()
            if node is None:
                return steps, "an operand comes from no product with a constant weight"
            scaled = factor(node, self.shapes)
            if scaled is None and not (moves(node) or passes_on(node)):
                return steps, f"{node.op_type} {node.name} stands before a product with a constant weight"
            source, number = (node.inputs[0], 1.0) if scaled is None else scaled
            if source is None:
                return steps, f"{node.op_type} {node.name} reads nothing"
            steps.append(_Step(node, source, value, number))
            value = source
        return steps, ""

    def _read(
        self, base: ir.Value, steps: list[_Step], arrange: Arrangement
    ) -> tuple[Operand, tuple[int, int, int, int]]:
        """Return `base` as the operand, if it holds heads and tokens in an order that can be told."""
        start = concrete(self.shapes, base, self.sizes)
        if start is None:
            raise NotABlockError(f"the shape of {base.name} is not known")
        if len(start) not in (3, 4) or not 0 < math.prod(start) <= MAX_POSITIONS:
            raise NotABlockError(f"the shape of {base.name}, {list(start)}, is not [batch, tokens, width]")
        before = np.arange(math.prod(start)).reshape(start)
        moved = self._send(before, steps)
        try:
            return self._arranged(base, before, arrange(moved, start[0]))
        except NotABlockError as error:
            if len(start) == 4:
                raise
            reason = error
        axes = (1, 0, 2)  # what has its tokens first
        try:
            operand, shape = self._arranged(base, before.transpose(axes), arrange(moved, start[1]))
        except NotABlockError:
            raise reason from None
        return replace(operand, axes=axes), shape

    def _arranged(
        self, base: ir.Value, before: np.ndarray, array: np.ndarray
    ) -> tuple[Operand, tuple[int, int, int, int]]:
        """Return `base` as the operand, given its positions as [B, S, W] or in four axes, and as [B, H, S, D]."""
        shape = (array.shape[0], array.shape[1], array.shape[2], array.shape[3])
        if before.ndim == 4:
            return Operand(base, shape[1], _axes(before, array)), shape
        columns = _columns(array, before)
        product = self.products.by_output.get(base)
        flat = tuple(int(column) for column in columns.reshape(-1))
        if flat != tuple(range(before.shape[2])):
            if product is None:
                raise NotABlockError(f"the heads of {base.name} are not in order")
            product = replace(product, columns=flat)
        return Operand(base, shape[1], product=product), shape

    def _send(self, array: np.ndarray, steps: list[_Step]) -> np.ndarray:
        for step in reversed(steps):
            if not moves(step.node):
                continue
            moved = move(step.node, array, step.out, self.shapes, self.sizes)
            if moved is None:
                what = f"{step.node.op_type} {step.node.name}"
                raise NotABlockError(f"what {what} does depends on shapes that are not known")
            array = moved
        return array


def _axes(before: np.ndarray, array: np.ndarray) -> tuple[int, ...]:
    """Return which axes of `before` are batch, token, head and element, given `array`, [B, H, S, D] of the same."""
    for axes in itertools.permutations(range(4)):
        if np.array_equal(before.transpose(axes).swapaxes(1, 2), array):
            return axes
    raise NotABlockError(f"an operand of shape {list(before.shape)} is not [batch, heads, tokens, size] in any order")


def _columns(array: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return which column of `before`, [B, S, W], each (head, element) is, given the same laid out [B, H, S, D]."""
    if array.shape[0] != before.shape[0] or array.shape[2] != before.shape[1]:
        raise NotABlockError(f"an operand is laid out {list(array.shape)}, not [batch, heads, tokens, size]")
    rows, width = before[:, None, :, :1], before.shape[2]
    columns = array[0, :, 0, :] - rows[0, 0, 0]
    inside = columns.size and columns.min() >= 0 and columns.max() < width
    if not inside or not np.array_equal(array, rows + columns[None, :, None, :]):
        raise NotABlockError("an operand mixes tokens")
    return np.asarray(columns)
