"""Parts of a graph as models of their own: what is cut off becomes an input, what is left unread an output."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ffc.graph.dialect.edit import Editor
from ffc.graph.order import subgraphs
from ffc.graph.shapes.inference import infer

__all__ = ["Anatomy", "swept"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
_COUNTS = {
    ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
}  # fmt: skip


class Anatomy:
    """A model with its nodes in order, taken apart without being changed; what it returns are clones."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.nodes = list(model.graph)
        self._shapes = infer(model)
        self._places = {value: (i, k) for i, node in enumerate(self.nodes) for k, value in enumerate(node.outputs)}
        self._reads = [_reads(node) for node in self.nodes]

    @cached_property
    def _constant(self) -> set[ir.Value]:
        """Values that follow from weights alone: random numbers in their place would mean another model."""
        found = {value for value in self.model.graph.initializers.values() if not value.is_graph_input()}
        for node, reads in zip(self.nodes, self._reads, strict=True):
            if reads <= found:
                found.update(node.outputs)
        return found

    def cut(self, kept: Iterable[int]) -> ir.Model | None:
        """Return a model of some of the nodes, by their places.

        Where a value that they read can be an input, it becomes one. What computes shapes cannot be drawn at random,
        so it stays, as do constants. Outputs are those of the model that are left, otherwise all that was read by
        what is gone. None where nothing is left.
        """
        whole = self._closed(set(kept))
        outputs = self._outputs(whole)
        return self._built(whole, outputs) if outputs else None

    def with_outputs(self, kept: Iterable[int]) -> ir.Model | None:
        """Return the model with some of its outputs alone, by their places."""
        outputs = [place for i in kept if (place := self._places.get(self.model.graph.outputs[i]))]
        return self._built(set(range(len(self.nodes))), outputs) if outputs else None

    def bypasses(self, index: int) -> list[ir.Model]:
        """Return models without one node, one for each input of its type and shape, which takes its result's place."""
        node, found = self.nodes[index], []
        result = node.outputs[0] if node.outputs else None
        if result is None or self._shapes.of(result) is None:
            return []
        for place, value in enumerate(node.inputs):
            if value is None or not self._are_alike(value, result) or value in node.inputs[:place]:
                continue
            if not result.is_graph_output() or (value.producer() is not None and not value.is_graph_output()):
                found.append(self._bypassed(index, place))
        return found

    def folded(self) -> ir.Model | None:
        """Return the model with Constant nodes and all shapes that are known as weights; None where it has neither."""
        copy = self.model.clone()
        nodes, editor, count = list(copy.graph), Editor(copy), 0
        for value, (i, k) in self._places.items():
            array = self._known(value)
            if array is not None and value.uses() and not value.is_graph_output():
                nodes[i].outputs[k].replace_all_uses_with(editor.constant(array, f"{value.name}.known"))
                count += 1
        return swept(copy) if count else None

    def _known(self, value: ir.Value) -> np.ndarray | None:
        """Return what a computed value holds on any inputs, as far as that is told without running anything."""
        node, tensor = value.producer(), ir.convenience.get_const_tensor(value)
        if tensor is not None and node is not None and node.op_type == "Constant":
            return tensor.numpy() if tensor.dtype != ir.DataType.STRING else None
        ints, dtype, shape = self._shapes.ints(value), self._shapes.dtype(value), self._shapes.of(value)
        if ints is None or dtype is None or shape is None:
            return None
        numbers = [each for each in ints if isinstance(each, int)]
        sizes = [each for each in shape if isinstance(each, int)]
        return np.array(numbers, dtype.numpy()).reshape(sizes) if len(numbers) == len(ints) else None

    def _are_alike(self, one: ir.Value, other: ir.Value) -> bool:
        shapes = self._shapes
        return shapes.of(one) == shapes.of(other) and shapes.dtype(one) == shapes.dtype(other) is not None

    def _can_be_input(self, value: ir.Value) -> bool:
        shape, dtype = self._shapes.of(value), self._shapes.dtype(value)
        if shape is None or value in self._constant:
            return False
        return dtype in _FLOATS or (dtype in _COUNTS and len(shape) >= 2)

    def _closed(self, kept: set[int]) -> set[int]:
        """Return `kept` with what computes those of its operands that no input can stand for."""
        pending = list(kept)
        while pending:
            for value in self._reads[pending.pop()]:
                place = self._places.get(value)
                if place and place[0] not in kept and not self._can_be_input(value):
                    kept.add(place[0])
                    pending.append(place[0])
        return kept

    def _outputs(self, kept: set[int]) -> list[tuple[int, int]]:
        own = [self._places[value] for value in self.model.graph.outputs if value in self._places]
        if left := [place for place in own if place[0] in kept]:
            return left
        readers = {value for i, reads in enumerate(self._reads) if i not in kept for value in reads}
        return [
            place for value, place in self._places.items()
            if place[0] in kept and value in readers and self._can_be_input(value)
        ]  # fmt: skip

    def _built(self, kept: set[int], outputs: list[tuple[int, int]]) -> ir.Model | None:
        copy = self.model.clone()
        nodes, graph = list(copy.graph), copy.graph
        graph.outputs[:] = [nodes[i].outputs[k] for i, k in dict.fromkeys(outputs)]
        for value, (i, k) in self._places.items():
            if i in kept or not value.uses():
                continue
            if nodes[i].outputs[k].is_graph_output():  # of a subgraph, which cannot give what comes from outside
                return None
            graph.inputs.extend(self._as_input(value, nodes[i].outputs[k]))
        graph.remove([node for i, node in enumerate(nodes) if i not in kept], safe=True)
        self._describe(graph.outputs, outputs)
        return swept(copy)

    def _as_input(self, value: ir.Value, computed: ir.Value) -> list[ir.Value]:
        """Let an input stand wherever `computed`, the clone of `value`, is read; none where all that reads it goes."""
        shape, dtype = self._shapes.of(value), self._shapes.dtype(value)
        if shape is None or dtype is None:
            return []
        dims = [dim if isinstance(dim, int) else str(dim) for dim in shape]
        fresh = ir.Value(name=computed.name, type=ir.TensorType(dtype), shape=ir.Shape(dims))
        computed.name = None
        computed.replace_all_uses_with(fresh)
        return [fresh]

    def _describe(self, outputs: Iterable[ir.Value], places: Iterable[tuple[int, int]]) -> None:
        """Give outputs the type and shape that are known of them."""
        for output, (i, k) in zip(outputs, dict.fromkeys(places), strict=True):
            value = self.nodes[i].outputs[k]
            dtype = self._shapes.dtype(value)
            if output.type is None and dtype is not None:
                output.type = ir.TensorType(dtype)
            if output.shape is None:
                output.shape = self._shapes.noted(value)

    def _bypassed(self, index: int, place: int) -> ir.Model:
        copy = self.model.clone()
        node = list(copy.graph)[index]
        value = node.inputs[place]
        assert value is not None
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        return swept(copy)


def swept(model: ir.Model) -> ir.Model:
    """Remove from `model` what nothing reads, inputs as well, and return it."""
    common.RemoveUnusedNodesPass()(model)
    remove_functions: Any = common.RemoveUnusedFunctionsPass  # which says nothing of types
    remove_functions()(model)
    graph = model.graph
    read = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    for value in set(graph.inputs) - set(read):
        graph.initializers.pop(value.name or "", None)
    graph.inputs[:] = read
    return model


def _reads(node: ir.Node) -> set[ir.Value]:
    """Return what a node reads, what its subgraphs read of the graph around them included."""
    found = {value for value in node.inputs if value is not None}
    for _, graph in subgraphs(node):
        found.update(*(_reads(inner) for inner in graph), graph.outputs)
    return found
