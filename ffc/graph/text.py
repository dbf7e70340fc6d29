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

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

__all__ = ["FORMAT", "text"]

FORMAT = "ffc.text/1"
# Up to this many elements, a tensor is a parameter to read (axes, shapes, scales) rather than a weight.
_SHOWN_ELEMENTS = 8
_PLAIN = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_ENDS_SECTION = re.compile(r"Norm|^Embed")
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
            a sha256 over type, shape and bytes). Without, only its type and shape are shown.

    Returns:
        The text, one node a line, ending with a newline.
    """
    labels = _Labels(weights)
    lines = [FORMAT, *_opsets(model.opset_imports), *_graph(model.graph, labels)]
    for identifier in sorted(model.functions):
        lines += ["", *_function(model.functions[identifier], labels)]
    return "\n".join(lines) + "\n"


def _opsets(imports: Mapping[str, int]) -> list[str]:
    return [f"opset {domain or 'ai.onnx'} {imports[domain]}" for domain in sorted(imports)]


def _graph(graph: ir.Graph, labels: _Labels) -> list[str]:
    scope = _Scope(labels, sections=True)
    scope.give(graph.inputs)
    lines = []
    for value in graph.inputs:
        default = f" = {labels.of(value.const_value)}" if value.const_value is not None else ""
        lines.append(f"input %{_quoted(value.name)}: {_typed(value.type, value.shape)}{default}")
    lines += ["", *scope.body(graph)]
    if lines[-1]:
        lines.append("")
    for value in graph.outputs:
        lines.append(f"output %{_quoted(value.name)}: {_typed(value.type, value.shape)} = {scope.operand(value)}")
    return lines + scope.unused(graph)


def _function(function: ir.Function, labels: _Labels) -> list[str]:
    scope = _Scope(labels)
    scope.give(function.inputs)
    parameters = ", ".join(scope.names[value] for value in function.inputs)
    attributes = ", ".join(
        name if each.type == ir.AttributeType.UNDEFINED or each.value is None else f"{name}={labels.attribute(each)}"
        for name, each in sorted(function.attributes.items())
    )
    lines = [*_opsets(function.opset_imports), *scope.body(function.graph), scope.results(function.graph)]
    lines += scope.unused(function.graph)
    head = f"function {_operator(function)}({_semicolon(parameters, attributes)}) {{"
    return [head, *_indented(lines), "}"]


@dataclass
class _Scope:
    """Prints the nodes of one graph, a function body or a node's subgraphs; knows the names given so far."""

    labels: _Labels
    sections: bool = False
    prefix: str = ""
    names: dict[ir.Value, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    given: set[str] = field(default_factory=set)
    section: int = 0
    inlined: set[ir.Value] = field(default_factory=set)

    def give(self, inputs: Sequence[ir.Value]) -> None:
        """Keep the names of inputs, which callers know; no label may equal one."""
        self.names.update({value: _quoted(value.name) for value in inputs})
        self.given.update(self.names.values())

    def body(self, graph: ir.Graph) -> list[str]:
        lines = []
        for node in _ordered(graph):
            lines += self.node(node)
            if self.sections and _ENDS_SECTION.search(node.op_type):
                self.section += 1
                self.prefix = f"{self.section}."
                self.counts.clear()
                lines.append("")
        return lines

    def node(self, node: ir.Node) -> list[str]:
        operands = ", ".join(self.operand(value) for value in _trimmed(node.inputs))
        plain, nested = [], []
        label = self.label(node)
        inner = _Scope(self.labels, prefix=f"{label}/", names=self.names, inlined=self.inlined)
        for name, attribute in sorted(node.attributes.items()):
            if attribute.is_ref():
                plain.append(f"{name}=@{attribute.ref_attr_name}")
            elif attribute.type == ir.AttributeType.GRAPH:
                nested += inner.subgraph(name, attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for index, graph in enumerate(attribute.as_graphs()):
                    nested += inner.subgraph(f"{name}[{index}]", graph)
            else:
                plain.append(f"{name}={self.labels.attribute(attribute)}")
        results = self.define(node, label)
        call = f"{results} = {_operator(node)}({_semicolon(operands, ', '.join(plain))})"
        return [call, *_indented(nested)]

    def subgraph(self, name: str, graph: ir.Graph) -> list[str]:
        parameters = []
        for value in graph.inputs:
            self.counts["in"] += 1
            self.names[value] = f"{self.prefix}in{self.counts['in']}"
            parameters.append(f"%{self.names[value]}: {_typed(value.type, value.shape)}")
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
        return self.labels.of(value.const_value) if value.const_value is not None else "?"

    def results(self, graph: ir.Graph) -> str:
        return f"return {', '.join(self.operand(value) for value in graph.outputs)}"

    def unused(self, graph: ir.Graph) -> list[str]:
        """List what no output needs, without order: there is nothing to order it by."""
        needed = set(_ordered(graph))
        rest = [_operator(node) for node in graph if node not in needed]
        for value in graph.initializers.values():
            if value not in self.inlined and value not in self.names and value.const_value is not None:
                rest.append(self.labels.of(value.const_value))
        return [f"unused {each}" for each in sorted(rest)]


@dataclass
class _Labels:
    """Renders tensors and attributes; hashes each tensor once."""

    weights: bool
    known: dict[int, str] = field(default_factory=dict)

    def of(self, tensor: ir.TensorProtocol) -> str:
        if id(tensor) not in self.known:
            self.known[id(tensor)] = self._rendered(tensor)
        return self.known[id(tensor)]

    def _rendered(self, tensor: ir.TensorProtocol) -> str:
        kind = f"{_dtype(tensor.dtype)}{_dims(tensor.shape)}"
        if tensor.size <= _SHOWN_ELEMENTS:
            return f"{kind}{{{', '.join(_element(each) for each in tensor.numpy().reshape(-1))}}}"
        return f"{kind}#{_digest(tensor, kind)[:8]}" if self.weights else kind

    def attribute(self, attribute: ir.Attr) -> str:
        value = attribute.value
        match attribute.type:
            case ir.AttributeType.FLOAT:
                return str(np.float32(attribute.as_float()))
            case ir.AttributeType.FLOATS:
                return f"[{', '.join(str(np.float32(each)) for each in attribute.as_floats())}]"
            case ir.AttributeType.STRING:
                return _string(value)
            case ir.AttributeType.STRINGS:
                return f"[{', '.join(_string(each) for each in value)}]"
            case ir.AttributeType.INTS:
                return f"[{', '.join(str(each) for each in attribute.as_ints())}]"
            case ir.AttributeType.TENSOR:
                return self.of(attribute.as_tensor())
            case ir.AttributeType.TENSORS:
                return f"[{', '.join(self.of(each) for each in attribute.as_tensors())}]"
            case ir.AttributeType.TYPE_PROTO:
                return _typed(value.type, value.shape)
            case ir.AttributeType.TYPE_PROTOS:
                return f"[{', '.join(_typed(each.type, each.shape) for each in value)}]"
            case _:
                return str(value)


def _digest(tensor: ir.TensorProtocol, kind: str) -> str:
    """Return the sha256, in hex, over a tensor's kind and its bytes, which are not copied where numpy can view them."""
    digest = hashlib.sha256(kind.encode())
    if tensor.dtype == ir.DataType.STRING:
        for each in tensor.numpy().reshape(-1):
            digest.update(len(each).to_bytes(8, "little") + bytes(each))
    elif tensor.dtype.bitwidth < 8:
        digest.update(tensor.tobytes())
    else:
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _ordered(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that the outputs need, depth first, operands in order. Not recursive: encoders are deep."""
    order: list[ir.Node] = []
    entered: set[ir.Node] = set()
    for output in graph.outputs:
        stack = _enter(output, graph, entered)
        while stack:
            node, operands = stack[-1]
            value = next(operands, None)
            if value is None:
                order.append(node)
                stack.pop()
            else:
                stack += _enter(value, graph, entered)
    return order


def _enter(value: ir.Value, graph: ir.Graph, entered: set[ir.Node]) -> list[tuple[ir.Node, Iterator[ir.Value]]]:
    node = value.producer()
    if node is None or node.graph is not graph or node in entered:
        return []
    entered.add(node)
    return [(node, iter(_operands(node)))]


def _operands(node: ir.Node) -> list[ir.Value]:
    """Return the values a node reads: its inputs, then what its subgraphs take from around them."""
    values = [value for value in node.inputs if value is not None]
    for _, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            values += _captured(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            values += [value for graph in attribute.as_graphs() for value in _captured(graph)]
    return values


def _captured(graph: ir.Graph) -> list[ir.Value]:
    values = [value for node in _ordered(graph) for value in _operands(node)] + list(graph.outputs)
    producers = [(value, value.producer()) for value in values]
    return [value for value, producer in producers if producer is not None and producer.graph is not graph]


def _trimmed(values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Drop omitted inputs at the end: leaving them out means the same."""
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def _operator(of: ir.Node | ir.Function) -> str:
    name = of.op_type if isinstance(of, ir.Node) else of.name
    return f"{of.domain + '.' if of.domain else ''}{name}{':' + of.overload if of.overload else ''}"


def _typed(kind: ir.TypeProtocol | None, shape: ir.Shape | None) -> str:
    if kind is None:
        return "?"
    if isinstance(kind, ir.TensorType):
        return f"{_dtype(kind.dtype)}{_dims(shape)}"
    inner = kind.elem_type
    name = type(kind).__name__.removesuffix("Type").lower()
    return f"{name}({_dtype(inner) + _dims(shape) if isinstance(inner, ir.DataType) else _typed(inner, shape)})"


def _dtype(dtype: ir.DataType) -> str:
    return {ir.DataType.BOOL: "bool", ir.DataType.STRING: "str"}.get(dtype) or dtype.short_name()


def _dims(shape: ir.ShapeProtocol | None) -> str:
    """Render a shape: `*` where the rank is unknown, `?` for an unknown dimension, nothing for a scalar."""
    if shape is None:
        return "[*]"
    dims = [str(dim) if isinstance(dim, int) else "?" if dim.value is None else _dim(str(dim.value)) for dim in shape]
    return f"[{','.join(dims)}]" if dims else ""


def _dim(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][\w .()+*/,\-]*", name) else json.dumps(name)


def _element(value: np.generic | bytes) -> str:
    if isinstance(value, bytes):
        return _string(value)
    return str(value).lower() if isinstance(value, np.bool_) else str(value)


def _string(value: str | bytes) -> str:
    return json.dumps(value.decode(errors="backslashreplace") if isinstance(value, bytes) else value)


def _quoted(name: str | None) -> str:
    return name if name and _PLAIN.fullmatch(name) else json.dumps(name or "")


def _semicolon(operands: str, attributes: str) -> str:
    return "; ".join([operands, attributes]).strip() if attributes else operands


def _indented(lines: list[str]) -> list[str]:
    return [_INDENT + line if line else line for line in lines]
