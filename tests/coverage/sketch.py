"""A random graph under construction: values with their types and symbolic shapes, weights, inputs of many kinds, and feeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str
OPSETS = (13, 14, 17, 18, 20, 21, 23)
WIDTHS = (4, 6, 8)
WORDS = 20
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
"""ONNX's number of each type, by numpy's name."""


@dataclass(frozen=True)
class Value:
    """A value of the graph.

    Attributes:
        name: Its name.
        dtype: numpy's name of its type.
        shape: Sizes, by name where a feed decides.
        means: What it says of tokens, for inputs: ``ids``, ``mask``, ``lengths``, ``scalar`` or "".
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    means: str = ""


@dataclass
class Sketch:
    """A graph under construction.

    Attributes:
        seed: All that is drawn comes of it.
    """

    seed: int
    dice: random.Random = field(init=False)
    numbers: np.random.Generator = field(init=False)
    opset: int = field(init=False)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    _used: int = 0

    def __post_init__(self) -> None:
        self.dice, self.numbers = random.Random(self.seed), np.random.default_rng(self.seed)
        self.opset = self.dice.choice(OPSETS)

    def input(self, name: str, dtype: str, shape: Sequence[Dim], means: str = "") -> Value:
        """Add a graph input."""
        value = Value(name, dtype, tuple(shape), means)
        self.inputs.append(value)
        return value

    def op(self, op_type: str, *inputs: Value | str, shape: Sequence[Dim], dtype: str = "", **attributes: Any) -> Value:
        """Add a node with one output of this shape, which has the type of the first input unless another is told."""
        first = inputs[0]
        value = Value(self._name(op_type), dtype or (first.dtype if isinstance(first, Value) else "float32"), tuple(shape))
        names = [each.name if isinstance(each, Value) else each for each in inputs]
        self.nodes.append(helper.make_node(op_type, names, [value.name], name=f"n{len(self.nodes)}", **attributes))
        return value

    def split(self, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Add a Split."""
        shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
        made = [Value(self._name("Split"), x.dtype, shape) for shape in shapes]
        given = [x.name, self.constant(np.array(sizes)).name]
        self.nodes.append(helper.make_node("Split", given, [each.name for each in made], axis=axis))
        return made

    def constant(self, array: Any, dtype: str = "int64") -> Value:
        """Add a number or an array, as an initializer or by a Constant."""
        array = np.asarray(array, dtype)
        if self.dice.random() < 0.5:
            value = Value(self._name("constant"), dtype, array.shape)
            tensor = numpy_helper.from_array(array, value.name)
            self.nodes.append(helper.make_node("Constant", [], [value.name], value=tensor))
            return value
        name = self._name("c")
        self.weights[name] = array
        return Value(name, dtype, array.shape)

    def weight(self, *shape: int, mean: float = 0.0) -> Value:
        """Add a float32 weight, or take one of this shape that is there, which happens rarely."""
        there = [name for name, array in self.weights.items() if array.shape == shape and name.startswith("w")]
        if there and mean == 0.0 and self.dice.random() < 0.2:
            return Value(self.dice.choice(there), "float32", shape)
        name = self._name("w" if mean == 0.0 else "g")
        scale = 0.1 if mean else shape[0] ** -0.5
        self.weights[name] = (mean + scale * self.numbers.standard_normal(shape)).astype(np.float32)
        return Value(name, "float32", shape)

    def reduce(self, op_type: str, x: Value, axis: int, keep: bool) -> Value:
        """Add a reduction of one axis; where its axes stand depends on the opset."""
        shape = [*x.shape[:axis], *([1] if keep else []), *x.shape[axis + 1 :]]
        written = axis - len(x.shape) * self.dice.randrange(2)
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, x, self.constant([written]), shape=shape, keepdims=int(keep))
        return self.op(op_type, x, shape=shape, keepdims=int(keep), axes=[written])

    def size(self, x: Value, axis: int) -> Value:
        """Return the size of an axis [1], read from the value where no number is known."""
        if isinstance(x.shape[axis], int):
            return self.constant([x.shape[axis]])
        shape = self.op("Shape", x, shape=(len(x.shape),), dtype="int64")
        return self.op("Gather", shape, self.constant([axis]), shape=(1,), axis=0)

    def pick(self, fits: Callable[[Value], bool]) -> Value | None:
        """Return one of the values, a late one more likely, or None where none fits."""
        found = [each for each in self.values if fits(each)]
        return found[-1 - int(len(found) * self.dice.random() ** 2)] if found else None

    def _name(self, stem: str) -> str:
        self._used += 1
        return f"{stem}_{self._used}"

    def model(self, outputs: Sequence[Value], listed: Sequence[str]) -> onnx.ModelProto:
        """Close the graph.

        Args:
            outputs: Its outputs.
            listed: Weights that are listed as inputs too.
        """
        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        more = [Value(name, str(self.weights[name].dtype), self.weights[name].shape) for name in listed]
        given, made = ([_info(each) for each in values] for values in ([*self.inputs, *more], outputs))
        graph = helper.make_graph(self.nodes, f"random {self.seed}", given, made, tensors)
        version = 10 if self.opset == 23 else 8
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=version)


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, TYPES[value.dtype], value.shape)


MASKS = ("full", "right", "left", "holed")


def feed(inputs: Sequence[Value], sizes: Mapping[str, int], mask: str, seed: int) -> dict[str, np.ndarray]:
    """Return random arrays for inputs.

    Args:
        inputs: The inputs.
        sizes: Sizes by name; a name that is a sum has that of its parts.
        mask: One of `MASKS`; every row keeps a token.
        seed: What all is drawn from.
    """
    drawn = np.random.default_rng(seed)
    return {each.name: _array(each, _shape(each.shape, sizes), mask, drawn) for each in inputs}


def _shape(shape: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else sum(sizes[part] for part in dim.split(" + ")) for dim in shape)


def _array(value: Value, shape: tuple[int, ...], mask: str, drawn: np.random.Generator) -> np.ndarray:
    if value.means == "mask":
        return _mask(mask, shape, drawn).astype(value.dtype)
    if value.means == "ids":
        return drawn.integers(0, WORDS, shape).astype(value.dtype)
    if value.means == "lengths":
        return drawn.integers(1, 4, shape).astype(value.dtype)
    if value.dtype == "bool":
        return drawn.integers(0, 2, shape).astype(bool)
    if np.dtype(value.dtype).kind in "iu":
        return drawn.integers(1, 3, shape).astype(value.dtype)
    return np.asarray(drawn.standard_normal(shape)).astype(value.dtype)


def _mask(kind: str, shape: tuple[int, ...], drawn: np.random.Generator) -> np.ndarray:
    kept, length = np.ones(shape), shape[-1]
    for row in kept.reshape(-1, length):
        lost = int(drawn.integers(0, length))
        if kind == "right":
            row[length - lost :] = 0
        elif kind == "left":
            row[:lost] = 0
        elif kind == "holed":
            row[1::2] = 0
    return kept
