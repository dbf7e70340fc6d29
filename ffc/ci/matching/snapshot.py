"""A model as plain records: what a diff compares, made from a model or from the text in a lock.

What means the same is the same here: Constant nodes and copies of weights are weights, attributes at their default are
left out, omitted operands at the end too, and what a subgraph takes from around it is an operand of the node that holds
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from ffc.graph.notation import SHOWN_ELEMENTS, Notation, digest, is_learned, is_small, operator, tensor_type, typed
from ffc.graph.order import operands_of, ordered, subgraphs, trimmed

__all__ = ["Function", "Graph", "Node", "Operand", "Port", "Snapshot", "Source", "Weight", "defaults", "of_model"]


@dataclass(frozen=True, eq=False, slots=True)
class Weight:
    """A tensor that a model holds.

    Attributes:
        type: Type and shape, as in ``f32[384,1536]``.
        content: All elements of a small one, the sha256 of a large one, nothing where it is not known.
        size: Number of elements.
        name: Its name in the file, empty where there is none.
        tensor: The data, None where only the text of a lock is known, or where contents are not asked for.
    """

    type: str
    content: str
    size: int
    name: str = ""
    tensor: ir.TensorProtocol | None = None

    @property
    def key(self) -> str:
        """What equal tensors have in common."""
        return f"{self.type}{{{self.content}}}"

    @property
    def is_large(self) -> bool:
        """Whether it is no parameter to read, such as axes: then it tells nodes apart."""
        return self.size > SHOWN_ELEMENTS


@dataclass(frozen=True, slots=True)
class Source:
    """A computed operand: output `index` of a node, or input `index` of the graph where `node` is -1."""

    node: int
    index: int


Operand = Source | Weight | None


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """An operator.

    Attributes:
        op: Operator with its domain.
        attributes: Text of each attribute that is not at its default.
        operands: What it reads; after the inputs what its subgraphs take from around them.
        outputs: Names of its outputs in the file.
        name: Its name in the file, or in a lock its label.
        by: The pass and rule that made it, empty where that is not known.
        graphs: Its subgraphs by attribute; their last inputs are what they take from around them.
    """

    op: str
    attributes: Mapping[str, str]
    operands: tuple[Operand, ...]
    outputs: tuple[str, ...]
    name: str = ""
    by: str = ""
    graphs: Mapping[str, Graph] = field(default_factory=dict)

    @property
    def sources(self) -> list[int]:
        """The nodes that it reads, as often as it reads them."""
        return [operand.node for operand in self.operands if isinstance(operand, Source) and operand.node >= 0]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output: its name, its type and its default, as text."""

    name: str
    type: str
    default: str = ""


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a graph, in canonical order, those that no output needs last.

    Attributes:
        inputs: What it takes.
        nodes: Its nodes; a source names one by its place here.
        outputs: What it gives, and where that comes from.
    """

    inputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[Port, Operand], ...]

    @functools.cached_property
    def consumers(self) -> list[list[tuple[int, int, int]]]:
        """For each node who reads it: the reader, the operand there, and the output that is read."""
        found: list[list[tuple[int, int, int]]] = [[] for _ in self.nodes]
        for reader, node in enumerate(self.nodes):
            for slot, operand in enumerate(node.operands):
                if isinstance(operand, Source) and operand.node >= 0:
                    found[operand.node].append((reader, slot, operand.index))
        return found

    @functools.cached_property
    def given(self) -> list[list[int]]:
        """For each node the outputs of the graph that it computes."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for place, (_, operand) in enumerate(self.outputs):
            if isinstance(operand, Source) and operand.node >= 0:
                found[operand.node].append(place)
        return found


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a model: its body, what its attributes are at default, and the opsets it is written in."""

    graph: Graph
    attributes: Mapping[str, str]
    opsets: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model.

    Attributes:
        graph: Its graph.
        functions: Its functions by identifier.
        opsets: Version by domain.
        name: What messages call it.
        weighed: Whether the contents of large weights are known.
    """

    graph: Graph
    functions: Mapping[str, Function]
    opsets: Mapping[str, int]
    name: str = ""
    weighed: bool = True

    def weights(self) -> Iterator[Weight]:
        """Yield the weights that the nodes and outputs of all graphs read, each as often as it is read."""
        for graph in [self.graph, *(self.functions[name].graph for name in sorted(self.functions))]:
            yield from _weights_of(graph)


def _weights_of(graph: Graph) -> Iterator[Weight]:
    for node in graph.nodes:
        yield from (operand for operand in node.operands if isinstance(operand, Weight))
        for name in sorted(node.graphs):
            yield from _weights_of(node.graphs[name])
    yield from (operand for _, operand in graph.outputs if isinstance(operand, Weight))


def of_model(model: ir.Model, name: str = "", *, weights: bool = True) -> Snapshot:
    """Return a model as records.

    Args:
        model: The model, its nodes in any order.
        name: What messages call it.
        weights: Whether to read and hash the contents of large weights, one at a time.
    """
    known: dict[int, tuple[ir.TensorProtocol, Weight]] = {}
    notation = Notation()
    reader = functools.partial(_Reader, notation=notation, weights=weights, known=known)
    functions = {}
    for identifier, function in model.functions.items():
        opsets = _opsets(function)
        attributes = {
            key: "" if each.type == ir.AttributeType.UNDEFINED or each.value is None else notation.attribute(each)
            for key, each in sorted(function.attributes.items())
        }
        functions[":".join(identifier).rstrip(":")] = Function(
            reader(opsets=opsets).graph(function.graph)[0], attributes, opsets
        )
    opsets = _opsets(model)
    return Snapshot(reader(opsets=opsets).graph(model.graph)[0], functions, opsets, name, weights)


def _opsets(of: ir.Model | ir.Function) -> dict[str, int]:
    """Return the version of each domain; that of standard operators is "", as nodes say it, whatever an import says."""
    return {"" if domain == "ai.onnx" else domain: version for domain, version in of.opset_imports.items()}


@dataclass
class _Reader:
    """Reads graphs written in certain opsets."""

    opsets: Mapping[str, int]
    notation: Notation
    weights: bool
    known: dict[int, tuple[ir.TensorProtocol, Weight]]

    def graph(self, graph: ir.Graph) -> tuple[Graph, list[ir.Value]]:
        """Return a graph, and the values that it takes from around it, which are its last inputs."""
        where: dict[ir.Value, Operand] = {value: Source(-1, index) for index, value in enumerate(graph.inputs)}
        around: list[ir.Value] = []

        def operand(value: ir.Value | None) -> Operand:
            if value is None:
                return None
            if value not in where:
                where[value] = self.weight(value)
                if where[value] is None:
                    where[value] = Source(-1, len(graph.inputs) + len(around))
                    around.append(value)
            return where[value]

        nodes: list[Node] = []
        for node in _all_nodes(graph):
            lifted = self.lifted(node, where)
            if lifted is not None:
                where[node.outputs[0]] = lifted
                continue
            place = len(nodes)
            nodes.append(self.node(node, operand))
            where.update({value: Source(place, index) for index, value in enumerate(node.outputs)})
        outputs = [(Port(value.name or "", typed(value.type, value.shape)), operand(value)) for value in graph.outputs]
        ports = [Port(value.name or "", typed(value.type, value.shape), self.default(value)) for value in graph.inputs]
        ports += [Port("", "?") for _ in around]
        return Graph(tuple(ports), tuple(nodes), tuple(outputs)), around

    def node(self, node: ir.Node, operand: Callable[[ir.Value | None], Operand]) -> Node:
        operands = [operand(value) for value in trimmed(node.inputs)]
        op = operator(node)
        usual = defaults(op, self.opsets)
        attributes, graphs = {}, {}
        for name, attribute in sorted(node.attributes.items()):
            if attribute.is_ref():
                attributes[name] = f"@{attribute.ref_attr_name}"
            elif attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                attributes[name] = self.tensors(attribute)
            elif attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                continue  # they follow
            elif (text := self.notation.attribute(attribute)) != usual.get(name):
                attributes[name] = text
        for name, body in subgraphs(node):
            graphs[name], around = self.graph(body)
            operands += [operand(value) for value in around]
        outputs = tuple(value.name or "" for value in node.outputs)
        by = node.metadata_props.get("ffc.by", "")
        return Node(op, attributes, tuple(operands), outputs, node.name or "", by, graphs)

    def tensors(self, attribute: ir.Attr) -> str:
        single = attribute.type == ir.AttributeType.TENSOR
        return ", ".join(
            self.tensor(each).key for each in ([attribute.as_tensor()] if single else attribute.as_tensors())
        )

    def weight(self, value: ir.Value) -> Weight | None:
        """Return the weight that a value is, or None; an initializer that callers may replace is none."""
        if value.const_value is None or value.producer() is not None or value.is_graph_input():
            return None
        return self.tensor(value.const_value, value.name or "")

    def lifted(self, node: ir.Node, where: Mapping[ir.Value, Operand]) -> Weight | None:
        """Return the weight that a Constant node holds or an Identity repeats, or None for any other node."""
        if node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
            copied = where.get(node.inputs[0], self.weight(node.inputs[0]))
            return copied if isinstance(copied, Weight) else None
        if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
            return None
        (attribute,) = node.attributes.values()
        if attribute.is_ref() or attribute.type not in _HELD:
            return None
        kind = _HELD[attribute.type]
        tensor = attribute.as_tensor() if kind is None else ir.tensor(np.asarray(attribute.value, kind))
        return self.tensor(tensor, node.outputs[0].name or "")

    def default(self, value: ir.Value) -> str:
        return "" if value.const_value is None else self.tensor(value.const_value).key

    def tensor(self, tensor: ir.TensorProtocol, name: str = "") -> Weight:
        if id(tensor) not in self.known:
            kind = tensor_type(tensor)
            if is_small(tensor) and (self.weights or not is_learned(tensor)):
                content = self.notation.tensor(tensor).removeprefix(kind)[1:-1]
            else:
                content = digest(tensor) if self.weights else ""
            weight = Weight(kind, content, tensor.size, name, tensor if self.weights else None)
            self.known[id(tensor)] = tensor, weight  # as long as it is held, no other has its id
        return self.known[id(tensor)][1]


_HELD: Mapping[ir.AttributeType, type | None] = {
    ir.AttributeType.TENSOR: None,
    ir.AttributeType.FLOAT: np.float32,
    ir.AttributeType.FLOATS: np.float32,
    ir.AttributeType.INT: np.int64,
    ir.AttributeType.INTS: np.int64,
}


def _all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes that the outputs need in canonical order, then the others, each after what it reads."""
    needed = ordered(graph)
    yield from needed
    rest = set(graph) - set(needed)
    if rest:
        done: set[ir.Node] = set()
        waiting: Sequence[ir.Node] = [node for node in graph if node in rest]
        while waiting:
            later = []
            for node in waiting:
                sources = [value.producer() for value in operands_of(node)]
                if all(source not in rest or source in done for source in sources):
                    done.add(node)
                    yield node
                else:
                    later.append(node)
            waiting = later


def defaults(op: str, opsets: Mapping[str, int]) -> Mapping[str, str]:
    """Return the text of each attribute that an operator has by default in some opsets, as far as onnx knows it."""
    domain, _, kind = op.rpartition(".")
    return _defaults(kind, domain, opsets.get(domain, 0))


@functools.lru_cache(maxsize=4096)
def _defaults(op_type: str, domain: str, version: int) -> Mapping[str, str]:
    try:
        schema = onnx.defs.get_schema(op_type, version or 1, domain)
    except onnx.defs.SchemaError:
        return {}
    found = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type:
            found[name] = Notation().attribute(ir.serde.deserialize_attribute(attribute.default_value))
    return found
