"""Changing a graph: new constants, programs spliced in, values replaced, all with unique and repeatable names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.graph.dialect.function import called, carry
from ffc.graph.dialect.trace import Op, Program, Tensor, as_tensor, insert, trace
from ffc.graph.shapes.inference import Shapes, infer
from ffc.graph.shapes.rule import Fact

__all__ = ["Editor", "constant", "only_consumer", "producer"]


def producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes `value`, or None."""
    return None if value is None else value.producer()


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the contents of `value` if they are fixed, else None; an initializer that is a graph input is not."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Return the node that reads `value`, or None if it is read by several places, by none, or is a graph output."""
    consumers = {use.node for use in value.uses()}
    return consumers.pop() if len(consumers) == 1 and not value.is_graph_output() else None


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
        contents = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # of any type: bfloat16 has no buffer
        key = (str(array.dtype), array.shape, hashlib.sha256(contents.data).digest())
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
        inputs: Mapping[str, Any] | Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        replaces: ir.Value,
        rule: str = "",
    ) -> ir.Value:
        """Insert a program's nodes where `replaces` is computed, and let their result take its place and its name.

        Args:
            program: The program; it has one output. `Function.call` is one.
            inputs: For each of its tensors, by name or in order, a value, an array or literal, or None.
            attributes: Its attributes, as `ir.Attr` or plain values.
            replaces: The value to replace; what nothing else needs of its computation is removed.
            rule: Name noted on the new nodes, for reports and diffs.

        Returns:
            The new value.
        """
        fragment = trace(program)
        name = replaces.name or "value"
        given = inputs if isinstance(inputs, Mapping) else dict(zip(fragment.inputs, inputs, strict=True))
        args = {key: self._argument(given[key], f"{name}.{key}") for key in fragment.inputs}
        nodes, (result,) = insert(fragment, args, _attributes(attributes or {}))
        self._put(nodes, result, replaces, rule)
        return result

    def at(self, node: ir.Node, hint: str) -> Op:
        """Return what records operators in front of `node`, each inferred as it is recorded.

        ``editor.at(node, "total").Add(x, 1.0)`` inserts an Add and returns its output; ``.ffc`` and ``.ms`` reach the
        functions of the dialect and the kernels of onnxruntime, as in a program. Arrays and literals become constants.

        Args:
            node: A node of the main graph.
            hint: Name of what is computed, made unique.
        """
        return _Inserting(self, node, hint)

    def _add(self, node: ir.Node, before: ir.Node, hint: str) -> None:
        """Put a node in front of another, its outputs named `hint`, made unique, and infer it."""
        for value in node.outputs:
            value.name = self.unique(hint)
        node.name = _mint(f"{node.outputs[0].name}/{node.op_type}", self._nodes)
        self._insert([node], before)

    def _insert(self, nodes: Sequence[ir.Node], before: ir.Node) -> None:
        """Put nodes in front of another, with the bodies of the functions that they call, and infer them."""
        shapes = self.shapes  # of the graph without them, if never asked before
        for node in nodes:
            if (function := called(node)) is not None:
                carry(self.model, function)
        self.graph.insert_before(before, nodes)
        shapes.update(nodes, before=before)

    def _put(self, nodes: Sequence[ir.Node], result: ir.Value, replaces: ir.Value, rule: str) -> None:
        """Name `nodes`, put them before what computes `replaces`, lift their constants, and swap `result` in."""
        before = replaces.producer()
        assert before is not None
        name, made_by = replaces.name or "value", before.metadata_props.get("ffc.by")
        kept = []
        for node in nodes:
            if node.op_type == "Constant" and not node.domain:
                literal = node.outputs[0]
                ir.convenience.replace_all_uses_with(literal, self.constant(constant(literal), f"{name}.constant"))
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
        if fresh:  # sizes that nothing tells are called after their value
            result.name, replaces.name = replaces.name, None
        self._insert(kept, before)
        self.replace(replaces, result, fresh=fresh)

    @cached_property
    def shapes(self) -> Shapes:
        """What is known of the values of the graph as it is now, as far as it was changed by this editor."""
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
            new, fresh = self.at(source, f"{old.name}.copy").Identity(new), True
        is_result = old.is_graph_output()
        known, readers = self.shapes.fact(old), [use.node for use in old.uses()]
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=is_result)
        if fresh or is_result:
            self._take_over(old, new, known)
        self.shapes.replaced(known, new, readers)
        if source is not None:
            self.discard(source)

    def _take_over(self, old: ir.Value, new: ir.Value, known: Fact) -> None:
        """Let `new` have the name of `old`, and where it has none, the type and shape noted there, if still `known`."""
        made_by = [node for node in [new.producer()] if node is not None]
        if old.name is not None:
            name, old.name = old.name, None
            new.name = name
            self.shapes.update(made_by)
        new.type = old.type if new.type is None else new.type
        if new.shape is None:
            new.shape = old.shape if self.shapes.agrees(new, known) else self.shapes.noted(new)
        if self.shapes.fact(new) != known:
            self.shapes.update(made_by)

    def replace_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Let `node` read `value` as its input `index`, and remove what only the input before needed.

        Where sizes change, that is passed on to all that is computed from it, and to the shapes noted there.
        """
        old = node.inputs[index]
        known = Fact() if old is None else self.shapes.fact(old)
        node.replace_input_with(index, value)
        self.shapes.replaced(known, value, [node])
        source = producer(old)
        if source is not None:
            self.discard(source)

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Give `node` an attribute, and pass on what that changes as `replace_input` does."""
        shapes = self.shapes
        node.attributes.update(_attributes({name: value}))
        shapes.changed(node)

    def discard(self, node: ir.Node) -> None:
        """Remove `node`, and then what only it needed, as far as nothing reads them."""
        pending = [node]
        while pending:
            node = pending.pop()
            if node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
                continue
            sources = [source for value in node.inputs if value is not None and (source := value.producer())]
            self.graph.remove(node, safe=True)
            pending.extend(sources)


class _Inserting(Op):
    """Records operators in front of a node of the graph of an editor."""

    def __init__(self, editor: Editor, before: ir.Node, hint: str, domain: str = "") -> None:
        super().__init__(domain)
        self._editor, self._before, self._hint = editor, before, hint

    def _of(self, domain: str) -> Op:
        return _Inserting(self._editor, self._before, self._hint, domain)

    def _record(self, node: ir.Node) -> None:
        self._editor._add(node, self._before, self._hint)

    def _literal(self, literal: Tensor) -> ir.Value:
        return self._editor.constant(literal, f"{self._hint}.constant")


def _attributes(attributes: Mapping[str, Any]) -> dict[str, ir.Attr]:
    return {
        name: value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(name, value)
        for name, value in attributes.items()
    }


def _mint(hint: str, taken: set[str]) -> str:
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}.{count}"
    taken.add(name)
    return name
