"""The canonical text of a model: what `ffc print` shows, golden graphs hold and lock files compare.

`onnx.printer` follows the order and the names of a file: renaming the values of MiniLM's export changes 285 of its 293
lines there, and none here.

Nodes stand in depth-first order from the outputs, operands in order, so that neither the order nor the names in a
file matter. A value is named ``%<section>.<op><count>``: a section ends with each normalisation (and with `Embed`),
which in an encoder makes two sections a layer, and the count restarts in each section for each operator. A node
inserted somewhere thus renames at most its like in the same half layer and leaves the lines of all other layers
alone, which neither a running number nor a count per operator would do; and a name tells where in the network it
lives. Section 0 goes without prefix. A hash over a value's operands would be as stable, but one changed weight would
rename all that follows. Shapes inferred for intermediate values are left out: they depend on what inferred them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ffc.graph.notation import Notation, operator, quoted, typed
from ffc.graph.order import ordered, subgraphs, trimmed

__all__ = ["ENDS_SECTION", "FORMAT", "text"]

FORMAT = "ffc.text/1"
ENDS_SECTION = re.compile(r"Norm|^Embed")
"""Operators after which names begin anew."""

_INDENT = "  "


def text(model: ir.Model, *, weights: bool = True) -> str:
    """Return the canonical text of a model.

    Equal texts mean equal graphs: the text ignores names of values inside, nodes and initializers, the order of
    nodes and initializers, metadata, and the type annotations of intermediate values. It shows names and types of
    inputs and outputs, opsets, operators, attributes, edges, weights and function bodies. Nodes that no output needs
    are listed by operator only.

    Args:
        model: The model, its nodes in any order.
        weights: Whether to show a hash of the contents of each tensor of more than 8 elements (the first 8 hex of
            a sha256 over type, shape and bytes). Without, only its type and shape are shown, and those of small
            tensors that training makes.

    Returns:
        The text, one node a line, ending with a newline.
    """
    notation = Notation(weights)
    lines = [FORMAT, *_opsets(model.opset_imports), *_graph(model.graph, notation)]
    for identifier in sorted(model.functions):
        lines += ["", *_function(model.functions[identifier], notation)]
    return "\n".join(lines) + "\n"


def _opsets(imports: Mapping[str, int]) -> list[str]:
    return [f"opset {domain or 'ai.onnx'} {imports[domain]}" for domain in sorted(imports)]


def _graph(graph: ir.Graph, notation: Notation) -> list[str]:
    scope = _Scope(notation, sections=True)
    scope.give(graph.inputs)
    lines = []
    for value in graph.inputs:
        default = f" = {notation.tensor(value.const_value)}" if value.const_value is not None else ""
        lines.append(f"input %{quoted(value.name)}: {typed(value.type, value.shape)}{default}")
    lines += ["", *scope.body(graph)]
    if lines[-1]:
        lines.append("")
    for value in graph.outputs:
        lines.append(f"output %{quoted(value.name)}: {typed(value.type, value.shape)} = {scope.operand(value)}")
    return lines + scope.unused(graph)


def _function(function: ir.Function, notation: Notation) -> list[str]:
    scope = _Scope(notation)
    scope.give(function.inputs)
    parameters = ", ".join(scope.names[value] for value in function.inputs)
    attributes = ", ".join(
        name if each.type == ir.AttributeType.UNDEFINED or each.value is None else f"{name}={notation.attribute(each)}"
        for name, each in sorted(function.attributes.items())
    )
    lines = [*_opsets(function.opset_imports), *scope.body(function.graph), scope.results(function.graph)]
    lines += scope.unused(function.graph)
    head = f"function {operator(function)}({_semicolon(parameters, attributes)}) {{"
    return [head, *_indented(lines), "}"]


@dataclass
class _Scope:
    """Prints the nodes of one graph, a function body or a node's subgraphs; knows the names given so far."""

    notation: Notation
    sections: bool = False
    prefix: str = ""
    names: dict[ir.Value, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    given: set[str] = field(default_factory=set)
    section: int = 0
    inlined: set[ir.Value] = field(default_factory=set)

    def give(self, inputs: Sequence[ir.Value]) -> None:
        """Keep the names of inputs, which callers know; no label may equal one."""
        self.names.update({value: quoted(value.name) for value in inputs})
        self.given.update(self.names.values())

    def body(self, graph: ir.Graph) -> list[str]:
        lines = []
        for node in ordered(graph):
            lines += self.node(node)
            if self.sections and ENDS_SECTION.search(node.op_type):
                self.section += 1
                self.prefix = f"{self.section}."
                self.counts.clear()
                lines.append("")
        return lines

    def node(self, node: ir.Node) -> list[str]:
        operands = ", ".join(self.operand(value) for value in trimmed(node.inputs))
        plain = []
        label = self.label(node)
        inner = _Scope(self.notation, prefix=f"{label}/", names=self.names, inlined=self.inlined)
        for name, attribute in sorted(node.attributes.items()):
            if attribute.is_ref():
                plain.append(f"{name}=@{attribute.ref_attr_name}")
            elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                plain.append(f"{name}={self.notation.attribute(attribute)}")
        nested = [line for name, graph in subgraphs(node) for line in inner.subgraph(name, graph)]
        results = self.define(node, label)
        call = f"{results} = {operator(node)}({_semicolon(operands, ', '.join(plain))})"
        return [call, *_indented(nested)]

    def subgraph(self, name: str, graph: ir.Graph) -> list[str]:
        parameters = []
        for value in graph.inputs:
            self.counts["in"] += 1
            self.names[value] = f"{self.prefix}in{self.counts['in']}"
            parameters.append(f"%{self.names[value]}: {typed(value.type, value.shape)}")
        lines = [*self.body(graph), self.results(graph), *self.unused(graph)]
        return [f"{name}({', '.join(parameters)}) {{", *_indented(lines), "}"]

    def label(self, node: ir.Node) -> str:
        kind = re.sub(r"\W", "_", node.op_type).lower().replace("normalization", "norm")
        while True:
            self.counts[kind] += 1
            label = f"{self.prefix}{kind}{self.counts[kind]}"
            if label not in self.given:
                return label

    def define(self, node: ir.Node, label: str) -> str:
        """Name the outputs of a node; those that nothing uses are `_`, and left out at the end where unnamed."""
        used = [bool(value.uses()) or value.is_graph_output() for value in node.outputs]
        outputs = list(node.outputs)
        while outputs and not used[len(outputs) - 1] and not outputs[-1].name:
            outputs.pop()
        for index, value in enumerate(outputs):
            self.names[value] = label if len(outputs) == 1 else f"{label}:{index}"
        return ", ".join(f"%{self.names[value]}" if use else "_" for value, use in zip(outputs, used, strict=False))

    def operand(self, value: ir.Value | None) -> str:
        if value is None:
            return "_"
        if value in self.names:
            return f"%{self.names[value]}"
        self.inlined.add(value)
        return self.notation.tensor(value.const_value) if value.const_value is not None else "?"

    def results(self, graph: ir.Graph) -> str:
        return f"return {', '.join(self.operand(value) for value in graph.outputs)}"

    def unused(self, graph: ir.Graph) -> list[str]:
        """List what no output needs, without order: there is nothing to order it by."""
        needed = set(ordered(graph))
        rest = [operator(node) for node in graph if node not in needed]
        for value in graph.initializers.values():
            if value not in self.inlined and value not in self.names and value.const_value is not None:
                rest.append(self.notation.tensor(value.const_value))
        return [f"unused {each}" for each in sorted(rest)]


def _semicolon(operands: str, attributes: str) -> str:
    return "; ".join([operands, attributes]).strip() if attributes else operands


def _indented(lines: list[str]) -> list[str]:
    return [_INDENT + line if line else line for line in lines]
