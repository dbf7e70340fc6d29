"""Changing a graph: new constants, programs spliced in, values replaced, all with unique and repeatable names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.trace import Program, as_tensor, insert, trace
from ffc.graph.shapes.inference import Shapes, infer

__all__ = ["Editor", "constant", "is_output", "only_consumer", "producer"]


def producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes `value`, or None."""
    return None if value is None else value.producer()


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the contents of `value` if they are fixed, else None; an initializer that is a graph input is not."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_output(value: ir.Value) -> bool:
    """Whether `value` is an output of its graph."""
    return value.is_graph_output()


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Return the node that reads `value`, or None if it is read by several places, by none, or is a graph output."""
    consumers = {use.node for use in value.uses()}
    return consumers.pop() if len(consumers) == 1 and not is_output(value) else None


class Editor:
    """Makes changes to the main graph of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        values = [*self.graph.inputs, *self.graph.initializers.values()]
        values += [value for node in self.graph.all_nodes() for value in node.outputs]
        self._names = {value.name for value in values if value.name}
        self._nodes = {node.name for node in self.graph.all_nodes() if node.name}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def unique(self, hint: str) -> str:
        """Return `hint`, or the first of ``hint.1``, ``hint.2``, … that no value of the graph is called."""
        return _mint(hint, self._names)

    def constant(self, literal: Any, hint: str = "constant") -> ir.Value:
        """Return an initializer that holds `literal`; equal ones made by this editor are one."""
        tensor = as_tensor(literal)
        array = tensor.numpy()
        key = (str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array).data).digest())
        if key not in self._constants:
            name = self.unique(hint)
            tensor.name = name
            value = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def splice(
        self,
        program: Program,
        inputs: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        replaces: ir.Value,
        rule: str = "",
    ) -> ir.Value:
        """Insert a program's nodes where `replaces` is computed, and let their result take its place and its name.

        Args:
            program: The program; it has one output.
            inputs: For each of its tensors a value, an array or literal, or None.
            attributes: Its attributes, as `ir.Attr` or plain values.
            replaces: The value to replace; what nothing else needs of its computation is removed.
            rule: Name noted on the new nodes, for reports and diffs.

        Returns:
            The new value.
        """
        fragment = trace(program)
        name = replaces.name or "value"
        args = {key: self._argument(inputs[key], f"{name}.{key}") for key in fragment.inputs}
        nodes, (result,) = insert(fragment, args, {attr.name: attr for attr in _attributes(attributes)})
        self._put(nodes, result, replaces, rule)
        return result

    def call(
        self,
        function: str,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        replaces: ir.Value,
        rule: str = "",
    ) -> ir.Value:
        """Insert a call of an ``ffc`` function where `replaces` is computed, and let its result take that place.

        Args:
            function: Name of the function.
            inputs: A value, an array or literal, or None for each of its tensors, in order.
            attributes: Its attributes.
            replaces: The value to replace; what nothing else needs of its computation is removed.
            rule: Name noted on the new node.

        Returns:
            The new value.
        """
        args = [self._argument(item, f"{replaces.name}.{index}") for index, item in enumerate(inputs)]
        node = ir.Node("ffc", function, args, _attributes(attributes), num_outputs=1)
        self._put([node], node.outputs[0], replaces, rule)
        return node.outputs[0]

    def add(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        before: ir.Node,
        hint: str,
    ) -> ir.Value:
        """Insert one node before another.

        Args:
            domain: Domain of the operator, empty for the default one.
            op_type: The operator; it has one output.
            inputs: A value, an array or literal, or None for each of its inputs.
            attributes: Its attributes.
            before: The node it is put in front of.
            hint: Name of its output, made unique.

        Returns:
            Its output.
        """
        name = self.unique(hint)
        args = [self._argument(item, f"{name}.{index}") for index, item in enumerate(inputs)]
        node = ir.Node(domain, op_type, args, _attributes(attributes), num_outputs=1)
        node.name, node.outputs[0].name = _mint(f"{name}/{op_type}", self._nodes), name
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _put(self, nodes: Sequence[ir.Node], result: ir.Value, replaces: ir.Value, rule: str) -> None:
        """Name `nodes`, put them before what computes `replaces`, lift their constants, and swap `result` in."""
        before = replaces.producer()
        assert before is not None
        name, made_by = replaces.name or "value", before.metadata_props.get("ffc.by")
        kept = []
        for node in nodes:
            if node.op_type == "Constant" and not node.domain:
                literal = _literal(node)
                ir.convenience.replace_all_uses_with(node.outputs[0], self.constant(literal, f"{name}.constant"))
                continue
            node.name = _mint(f"{name}/{node.op_type}", self._nodes)
            for value in node.outputs:
                if value is not result:
                    value.name = self.unique(f"{name}/{node.op_type}")
            if rule:
                node.metadata_props["ffc.rule"] = rule
            if made_by:
                node.metadata_props["ffc.by"] = made_by
            kept.append(node)
        fresh = any(result in node.outputs for node in kept)
        self.graph.insert_before(before, kept)
        self.replace(replaces, result, fresh=fresh)

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the graph as it is when first asked; values made later have none."""
        return infer(self.model)

    def _argument(self, item: Any, hint: str) -> ir.Value | None:
        return item if item is None or isinstance(item, ir.Value) else self.constant(item, hint)

    def replace(self, old: ir.Value, new: ir.Value, *, fresh: bool = False) -> None:
        """Let `new` stand wherever `old` did, and remove what only `old` needed.

        Args:
            old: A computed value. If it is an output of the model, the output keeps its name.
            new: What takes its place.
            fresh: Whether `new` was made for this and shall take over name, type and shape.
        """
        source = old.producer()
        taken = new.is_graph_input() or new.is_initializer() or new.is_graph_output()
        if old.is_graph_output() and taken:  # two names for one value: outputs need a node each
            assert source is not None
            copy = ir.Node("", "Identity", [new], num_outputs=1)
            self.graph.insert_before(source, copy)
            new, fresh = copy.outputs[0], True
        is_result = old.is_graph_output()
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=is_result)
        if fresh or is_result:
            name, old.name = old.name, None
            new.name = name
            new.type = old.type if new.type is None else new.type
            new.shape = old.shape if new.shape is None else new.shape
        if source is not None:
            self.discard(source)

    def discard(self, node: ir.Node) -> None:
        """Remove `node`, and then what only it needed, as far as nothing reads them."""
        pending = [node]
        while pending:
            node = pending.pop()
            if node.graph is None or any(value.uses() or is_output(value) for value in node.outputs):
                continue
            sources = [source for value in node.inputs if value is not None and (source := value.producer())]
            self.graph.remove(node, safe=True)
            pending.extend(sources)


def _attributes(attributes: Mapping[str, Any] | None) -> list[ir.Attr]:
    return [
        value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(name, value)
        for name, value in (attributes or {}).items()
    ]


def _mint(hint: str, taken: set[str]) -> str:
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}.{count}"
    taken.add(name)
    return name


def _literal(node: ir.Node) -> np.ndarray:
    """Return the contents of a Constant node in any of its forms."""
    (attr,) = node.attributes.values()
    if attr.type == ir.AttributeType.TENSOR:
        return attr.as_tensor().numpy()
    kind = np.float32 if attr.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS) else np.int64
    return np.asarray(attr.value, kind)
