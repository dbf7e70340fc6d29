"""Whether every value that a node reads is produced, once, and every operator is of a domain that is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from ffc.errors import InputError
from ffc.graph.soundness.parsing import DEFAULT_DOMAINS
from ffc.graph.soundness.walk import subgraphs

__all__ = ["check_graphs"]


def check_graphs(proto: onnx.ModelProto, path: Path) -> bool:
    """Check that every value is produced once before it is read, and every domain imported.

    Returns:
        Whether all nodes are in topological order. If not, they may be out of order or form a cycle.

    Raises:
        InputError: If a value is read that nothing produces, produced twice, or of a domain without an opset.
    """
    where = f"cannot load {path}"
    in_order = _check_graph(proto.graph, (), _imported(proto.opset_import), where)
    identifiers = [(each.domain, each.name, each.overload) for each in proto.functions]
    if len(set(identifiers)) < len(identifiers):
        raise InputError(f"{where}: a function is defined twice; export the model again")
    for function in proto.functions:
        body = onnx.GraphProto(node=function.node)
        body.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
        body.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
        place = f"{where}: in function {function.domain}.{function.name}"
        for attribute in function.attribute_proto:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or subgraphs(attribute):
                found = f"the default of {attribute.name!r} is a graph or sparse"
                raise InputError(f"{place}: {found}; inline the function")
        in_order &= _check_graph(body, (), _imported(function.opset_import), place)
    return in_order


@dataclass(frozen=True)
class _Scope:
    """The names of one graph: all of them, and those that are computed by the time its nodes have run so far."""

    known: set[str]
    ready: set[str]


def _check_graph(graph: onnx.GraphProto, outer: tuple[_Scope, ...], domains: set[str], where: str) -> bool:
    """Check one graph; `outer` are the scopes around it."""
    given, produced = _definitions(graph, where)
    scopes = (*outer, _Scope(given | produced, given))
    in_order = True
    for node in graph.node:
        if node.domain not in domains:
            raise InputError(f"{where}: no opset import for domain {node.domain!r} of {node.op_type}; truncated?")
        for name in filter(None, node.input):
            if not any(name in scope.known for scope in scopes):
                raise InputError(f"{where}: {node.op_type} reads {name!r}, which nothing produces; export it again")
            in_order &= any(name in scope.ready for scope in scopes)
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise InputError(f"{where}: sparse tensors are not supported; export dense weights")
            for subgraph in subgraphs(attribute):
                in_order &= _check_graph(subgraph, scopes, domains, where)
        scopes[-1].ready.update(node.output)
    for output in graph.output:
        if not any(output.name in scope.known for scope in scopes):
            raise InputError(f"{where}: nothing produces the output {output.name!r}; export the model again")
    return in_order


def _definitions(graph: onnx.GraphProto, where: str) -> tuple[set[str], set[str]]:
    """Return the names given to a graph (inputs, initializers) and those that its nodes produce."""
    if graph.sparse_initializer:
        raise InputError(f"{where}: sparse initializers are not supported; export dense weights")
    for what, named in (("input", graph.input), ("output", graph.output), ("initializer", graph.initializer)):
        names = Counter(each.name for each in named)
        twice = next((name for name, count in names.items() if count > 1 or not name), None)
        if twice is not None:
            raise InputError(f"{where}: the {what} {twice!r} is listed twice or has no name; export the model again")
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    seen = set(given)
    for name in (each for node in graph.node for each in node.output if each):
        if name in seen:
            raise InputError(f"{where}: value {name!r} is produced twice; export the model again")
        seen.add(name)
    return given, seen - given


def _imported(opsets: Sequence[onnx.OperatorSetIdProto]) -> set[str]:
    """Return the imported domains; the standard one goes by two names."""
    domains = {opset.domain for opset in opsets}
    return domains | set(DEFAULT_DOMAINS) if domains & set(DEFAULT_DOMAINS) else domains
