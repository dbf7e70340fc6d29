"""The canonical text of a model read back into records, so that a lock is compared as a model is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ffc.ci.matching.snapshot import Function, Graph, Node, Operand, Port, Snapshot, Source, Weight, defaults
from ffc.graph import text

__all__ = ["MalformedError", "read_text"]

_OPENING, _CLOSING = "[{(", "]})"
_TENSOR = re.compile(r"([a-z]\w*(?:\[[\d,]*\])?)(?:\{(.*)\}|#[0-9a-f]+)?", re.DOTALL)
_HELD = {"value": None, "value_float": "f32", "value_floats": "f32", "value_int": "i64", "value_ints": "i64"}
"""What a Constant node holds, by its attribute: a tensor, or numbers of one type."""


class MalformedError(Exception):
    """A line that is no line of the text; the message says which and why."""


def read_text(lines: Sequence[str], name: str = "") -> Snapshot:
    """Read the lines of the canonical text of a model, as `ffc.graph.text.text` writes it without weights.

    Raises:
        MalformedError: If it is not such a text.
    """
    if not lines or lines[0] != text.FORMAT:
        raise MalformedError(f"the graph begins with {lines[0] if lines else ''!r}, wanted {text.FORMAT!r}")
    places = [index for index, line in enumerate(lines) if line.startswith("function ")]
    main = lines[1 : places[0] if places else len(lines)]
    functions = {}
    for start, end in zip(places, [*places, len(lines)][1:], strict=True):
        identifier, function = _function([line for line in lines[start:end] if line])
        functions[identifier] = function
    opsets = _opsets(main)
    graph = _Body(opsets).graph([line for line in main if line and not line.startswith("opset ")])
    return Snapshot(graph, functions, opsets, name, weighed=False)


def _opsets(lines: Sequence[str]) -> dict[str, int]:
    found = {}
    for line in lines:
        if line.startswith("opset "):
            _, domain, version = _parts(line, 3)
            found["" if domain == "ai.onnx" else domain] = int(version)
    return found


def _parts(line: str, count: int) -> list[str]:
    parts = line.split(" ")
    if len(parts) != count:
        raise MalformedError(f"line {line[:60]!r} has {len(parts)} words, wanted {count}")
    return parts


def _function(lines: Sequence[str]) -> tuple[str, Function]:
    head = lines[0].removeprefix("function ").removesuffix(" {")
    identifier, inside = _call(head)
    parameters, attributes = _halves(inside)
    body = [line.removeprefix("  ") for line in lines[1:-1]]
    opsets = _opsets(body)
    scope = _Body(opsets)
    ports = [Port(_named(each)[0], "?") for each in parameters]
    graph = scope.body([line for line in body if not line.startswith("opset ")], ports, ())
    named = dict(_attribute(each) if "=" in each else (each, "") for each in attributes)
    domain, _, kind = identifier.rpartition(".")
    return f"{domain}:{kind}", Function(graph, named, opsets)


@dataclass
class _Body:
    """Reads the nodes of one graph; knows the values that it has and, by `outer`, those around it."""

    opsets: dict[str, int]
    outer: _Body | None = None
    values: dict[str, Operand] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: int = 0
    around: list[str] = field(default_factory=list)

    def graph(self, lines: Sequence[str]) -> Graph:
        """Read the main graph: inputs, nodes and outputs."""
        ports = []
        for line in [line for line in lines if line.startswith("input ")]:
            name, rest = _named(line.removeprefix("input %"))
            kind, _, default = rest.removeprefix(": ").partition(" = ")
            ports.append(Port(name, kind, default))
        ends = [line for line in lines if line.startswith("output ")]
        body = [line for line in lines if not line.startswith(("input ", "output ", "unused "))]
        return self.body(body, ports, ends)

    def body(self, lines: Sequence[str], ports: Sequence[Port], ends: Sequence[str]) -> Graph:
        """Read nodes, up to what is returned or given as outputs."""
        self.inputs = len(ports)
        self.values = {port.name: Source(-1, index) for index, port in enumerate(ports)}
        outputs: list[tuple[Port, Operand]] = []
        for line, nested in _statements(lines):
            if line.startswith("return "):
                given = _split(line.removeprefix("return "))
                outputs = [(Port("", "?"), self.operand(each)) for each in given]
            elif not line.startswith("unused "):
                self.node(line, nested)
        for line in ends:
            name, rest = _named(line.removeprefix("output %"))
            kind, _, operand = rest.removeprefix(": ").rpartition(" = ")
            outputs.append((Port(name, kind), self.operand(operand)))
        extra = [Port("", "?") for _ in self.around]
        return Graph((*ports, *extra), tuple(self.nodes), tuple(outputs))

    def node(self, line: str, nested: Sequence[str]) -> None:
        results, _, call = line.partition(" = ") if line.startswith(("%", "_")) else ("", "", line)
        op, inside = _call(call)
        operands, attributes = _halves(inside)
        lifted = _constant(op, dict(map(_attribute, attributes)))
        if lifted is not None:
            self.values[_named(results.removeprefix("%"))[0]] = lifted
            return
        read = [self.operand(each) for each in operands]
        usual = defaults(op, self.opsets)
        values = {name: value for name, value in map(_attribute, attributes) if usual.get(name) != value}
        graphs = {}
        for name, ports, lines in _subgraphs(nested):
            inner = _Body(self.opsets, self)
            graphs[name] = inner.body(lines, ports, ())
            read += [self.operand(f"%{each}") for each in inner.around]
        names = [_named(each.removeprefix("%"))[0] if each != "_" else "" for each in _split(results)]
        place = len(self.nodes)
        label = names[0].partition(":")[0] if names else ""
        self.nodes.append(Node(op, values, tuple(read), tuple(names), label, graphs=graphs))
        self.values.update({each: Source(place, index) for index, each in enumerate(names) if each})

    def operand(self, written: str) -> Operand:
        if written == "_":
            return None
        if not written.startswith("%"):
            return _weight(written)
        name, _ = _named(written[1:])
        if name not in self.values:
            if self.outer is None:
                raise MalformedError(f"value {written[:60]!r} is read and never computed")
            self.values[name] = Source(-1, self.inputs + len(self.around))
            self.around.append(written[1:])
        return self.values[name]


def _constant(op: str, attributes: dict[str, str]) -> Weight | None:
    """Return the weight that a Constant node holds, as records have it, or None for any other node."""
    if op != "Constant" or len(attributes) != 1:
        return None
    ((name, value),) = attributes.items()
    if name not in _HELD or value.startswith("@"):
        return None
    kind = _HELD[name]
    if kind is None:
        return _weight(value)
    several = value.startswith("[")
    elements = value.strip("[]")
    count = len(_split(elements))
    return Weight(f"{kind}[{count}]" if several else kind, elements, count if several else 1)


def _weight(written: str) -> Weight:
    found = _TENSOR.fullmatch(written)
    if found is None:
        raise MalformedError(f"operand {written[:60]!r} is neither a value nor a tensor")
    kind, content = found.group(1), found.group(2)
    return Weight(kind, content or "", math.prod(map(int, re.findall(r"\d+", kind.partition("[")[2]))))


def _named(written: str) -> tuple[str, str]:
    """Return the name that a text begins with, and the rest."""
    if written.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(written)
        except ValueError as error:
            raise MalformedError(f"name {written[:60]!r} has no end") from error
        return str(name), written[end:]
    end = next((index for index, char in enumerate(written) if char in " ,;()"), len(written))
    end = end - 1 if written[:end].endswith(":") else end
    return written[:end], written[end:]


def _call(written: str) -> tuple[str, str]:
    """Part ``op(inside)``."""
    op, bracket, inside = written.partition("(")
    if not bracket or not inside.endswith(")"):
        raise MalformedError(f"line {written[:60]!r} is no call")
    return op, inside[:-1]


def _halves(inside: str) -> tuple[list[str], list[str]]:
    """Part operands and attributes, which a semicolon parts."""
    halves = _split(inside, ";")
    if len(halves) > 2:
        raise MalformedError(f"call {inside[:60]!r} has more than one semicolon")
    return _split(halves[0]), _split(halves[1]) if len(halves) == 2 else []


def _split(written: str, at: str = ",") -> list[str]:
    """Part a text at commas, or semicolons, that stand in no bracket and no string."""
    parts, depth, start, quoted, skip = [], 0, 0, False, False
    for index, char in enumerate(written):
        if skip:
            skip = False
        elif quoted:
            skip, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        elif char == at and not depth:
            parts.append(written[start:index].strip())
            start = index + 1
    last = written[start:].strip()
    return [*parts, last] if last or parts else []


def _attribute(written: str) -> tuple[str, str]:
    name, equals, value = written.partition("=")
    if not equals:
        raise MalformedError(f"attribute {written[:60]!r} has no value")
    return name, value


def _statements(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield lines with the indented ones that follow them."""
    line: str | None = None
    nested: list[str] = []
    for each in lines:
        if each.startswith("  "):
            if line is None:
                raise MalformedError(f"line {each[:60]!r} is indented below nothing")
            nested.append(each[2:])
            continue
        if line is not None:
            yield line, nested
        line, nested = each, []
    if line is not None:
        yield line, nested


def _subgraphs(lines: Sequence[str]) -> Iterator[tuple[str, list[Port], list[str]]]:
    """Yield name, inputs and body of the subgraphs below a node."""
    for line, body in _statements([line for line in lines if line != "}"]):
        name, inside = _call(line.removesuffix(" {"))
        ports = []
        for each in _split(inside):
            label, rest = _named(each.removeprefix("%"))
            ports.append(Port(label, rest.removeprefix(": ")))
        yield name, ports, body
