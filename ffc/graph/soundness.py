"""What is checked of a model file before it is believed: its tensors' data, its edges, and the size of its calls."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from ffc.errors import InputError

__all__ = ["DEFAULT_DOMAINS", "check_calls", "check_graphs", "check_tensors"]

DEFAULT_DOMAINS = ("", "ai.onnx")
# What the calls of model-local functions may nest and expand to; a few hundred bytes can ask for 10^8 nodes.
_MAX_CALL_DEPTH = 64
_MAX_EXPANDED_NODES = 2_000_000

_Identifier = tuple[str, str, str]


def check_tensors(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """Check the data of every tensor.

    Args:
        proto: The model as parsed.
        path: Its file; external data must lie in the same folder.

    Returns:
        The external data files, sorted by location.

    Raises:
        InputError: If a tensor's type, shape and data do not agree, or its data are missing or out of bounds.
    """
    files: dict[str, Path] = {}
    for tensor in _tensors(proto):
        where = f"cannot load {path}: tensor {tensor.name or 'of an attribute'!r}"
        length = _expected_bytes(tensor, where)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            keys = {entry.key: entry.value for entry in tensor.external_data}
            location = keys.get("location", "")
            if location not in files:
                files[location] = _data_file(location, path.parent, where)
            _check_range(keys, files[location], length, where)
        elif _held_data(tensor) != length:
            raise InputError(f"{where} holds too few or too many data for its shape {list(tensor.dims)}; export again")
    return [files[location] for location in sorted(files)]


def _expected_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Return the bytes (of strings and typed fields: the entries) that the shape asks for."""
    if tensor.data_type == onnx.TensorProto.UNDEFINED or tensor.data_type not in onnx.TensorProto.DataType.values():
        raise InputError(f"{where} has no known data type; export the model again")
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"{where} has a negative dimension in {list(tensor.dims)}; export the model again")
    count: int = math.prod(tensor.dims)
    as_bytes = tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.HasField("raw_data")
    dtype = ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING:
        if as_bytes:
            raise InputError(f"{where} holds strings as raw data, which ONNX does not allow; export the model again")
        return count
    if as_bytes or dtype.bitwidth in (2, 4):
        return (count * dtype.bitwidth + 7) // 8
    return 2 * count if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else count


def _held_data(tensor: onnx.TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    fields = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
    return sum(len(getattr(tensor, field)) for field in fields)


def _data_file(location: str, folder: Path, where: str) -> Path:
    """Resolve a location, which comes from the model and may be hostile, to a plain file in the model's folder."""
    file = folder / location
    real, home = Path(os.path.realpath(file)), Path(os.path.realpath(folder))
    if not location or os.path.isabs(location) or ".." in Path(location).parts or not real.is_relative_to(home):
        raise InputError(f"{where} keeps its data at {location!r}, outside the model's folder; copy the file there")
    if not real.is_file():
        raise InputError(f"{where} keeps its data in {location!r}, which is missing; put it beside the model")
    if real.stat().st_nlink > 1:
        raise InputError(f"{where} keeps its data in {location!r}, a hard link that may expose another file; copy it")
    return file


def _check_range(keys: dict[str, str], file: Path, length: int, where: str) -> None:
    try:
        offset, stated = int(keys.get("offset", 0)), int(keys.get("length", length))
    except ValueError as error:
        raise InputError(f"{where} has an offset or length that is no number; export the model again") from error
    if offset < 0 or stated != length or offset + length > file.stat().st_size:
        raise InputError(f"{where} does not lie within {file.name!r}, which is cut off or not its own; export again")


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in _subgraphs(attribute):
                yield from _graph_tensors(graph)


def _subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)


def check_graphs(proto: onnx.ModelProto, path: Path) -> bool:
    """Check that every value is produced once before it is read, and every domain imported.

    Args:
        proto: The model as parsed.
        path: Its file, for messages.

    Returns:
        Whether all nodes are in topological order. If not, they may be out of order or form a cycle.

    Raises:
        InputError: If a value is read that nothing produces, produced twice, or of a domain without an opset.
    """
    where = f"cannot load {path}"
    in_order = _check_graph(proto.graph, set(), set(), _imported(proto.opset_import), where)
    for function in proto.functions:
        body = onnx.GraphProto(node=function.node)
        body.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
        body.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
        place = f"{where}: in function {function.domain}.{function.name}"
        in_order &= _check_graph(body, set(), set(), _imported(function.opset_import), place)
    return in_order


def _check_graph(
    graph: onnx.GraphProto, outer_ready: set[str], outer_known: set[str], domains: set[str], where: str
) -> bool:
    """Check one graph; `outer_ready` are the names computed before it runs, `outer_known` all names around it."""
    given, produced = _definitions(graph, where)
    ready, known = outer_ready | given, outer_known | given | produced
    in_order = True
    for node in graph.node:
        if node.domain not in domains:
            raise InputError(f"{where}: no opset import for domain {node.domain!r} of {node.op_type}; truncated?")
        for name in filter(None, node.input):
            if name not in known:
                raise InputError(f"{where}: {node.op_type} reads {name!r}, which nothing produces; export it again")
            in_order &= name in ready
        for subgraph in (each for attribute in node.attribute for each in _subgraphs(attribute)):
            in_order &= _check_graph(subgraph, ready, known, domains, where)
        ready.update(node.output)
    for output in graph.output:
        if output.name not in known:
            raise InputError(f"{where}: nothing produces the output {output.name!r}; export the model again")
    return in_order


def _definitions(graph: onnx.GraphProto, where: str) -> tuple[set[str], set[str]]:
    """Return the names given to a graph (inputs, initializers) and those that its nodes produce."""
    if graph.sparse_initializer:
        raise InputError(f"{where}: sparse initializers are not supported; export dense weights")
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


def check_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Check how far the calls of model-local functions expand.

    Args:
        proto: The model as parsed.
        path: Its file, for messages.

    Raises:
        InputError: If functions call themselves or expand to more nodes than any honest model has.
    """
    bodies = {(each.domain, each.name, each.overload): each.node for each in proto.functions}
    counts: dict[_Identifier, int] = {}

    def expanded(nodes: Sequence[onnx.NodeProto], depth: int) -> int:
        if depth > _MAX_CALL_DEPTH:
            raise InputError(f"cannot load {path}: functions call themselves or nest too deep; inline them first")
        return sum(1 + callee(node, depth) + nested(node, depth) for node in nodes)

    def callee(node: onnx.NodeProto, depth: int) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key in bodies and key not in counts:
            counts[key] = expanded(bodies[key], depth + 1)
        return counts.get(key, 0)

    def nested(node: onnx.NodeProto, depth: int) -> int:
        return sum(expanded(graph.node, depth + 1) for each in node.attribute for graph in _subgraphs(each))

    total = expanded(proto.graph.node, 0)
    if total > _MAX_EXPANDED_NODES:
        raise InputError(f"cannot load {path}: its function calls expand to {total} nodes; inline or simplify them")
