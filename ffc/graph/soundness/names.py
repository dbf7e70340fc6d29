"""The texts in a model file: names that can be shown and looked up, and notes that nobody obeys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from ffc import limits
from ffc.errors import InputError
from ffc.graph.soundness.walk import Body, attributes, bodies, tensors

__all__ = ["check_names", "strip_notes"]

_KEPT = "ffc."
_NOTE_LENGTH = 1 << 16


def strip_notes(proto: onnx.ModelProto) -> None:
    """Take out, in place, what a model says beside what it computes: metadata except ``ffc.*``, docs, training.

    Runtimes obey some metadata: ``ort_config``, for one, sets options of onnxruntime's session. Notes on the nodes of
    the main graph stay where they are text, to tell where a node comes from; a compile leaves none but ffc's own.
    """
    _keep(proto, _KEPT)
    for name in ("doc_string", "training_info", "configuration"):
        proto.ClearField(name)
    for number, body in enumerate(bodies(proto)):  # the first is the main graph
        _strip_body(body)
        for node in body.node:
            _clear(node, "doc_string", "device_configurations")
            _keep(node, *((_KEPT, "pkg.") if number == 0 else ()))
        for attribute in attributes(body):
            _clear(attribute, "doc_string")
            for tensor in tensors(attribute):
                _clear(tensor, "doc_string", "metadata_props")


def _strip_body(body: Body) -> None:
    if isinstance(body, onnx.FunctionProto):
        _clear(body, "doc_string", "metadata_props")
        for each in body.value_info:
            _clear(each, "doc_string")
        return
    _clear(body, "doc_string", "metadata_props", "quantization_annotation")
    for part in [*body.input, *body.output, *body.value_info, *body.initializer]:
        _clear(part, "doc_string", "metadata_props")


def _clear(message: Any, *fields: str) -> None:
    for name in fields:
        message.ClearField(name)


def _keep(message: Any, *prefixes: str) -> None:
    """Keep the notes whose key begins with one of `prefixes` and that are text."""
    if not message.metadata_props:
        return
    kept = [(each.key, each.value) for each in message.metadata_props if _is_note(each, prefixes)]
    del message.metadata_props[:]
    for key, value in dict(kept).items():
        message.metadata_props.add(key=key, value=value)


def _is_note(entry: onnx.StringStringEntryProto, prefixes: Sequence[str]) -> bool:
    # protobuf hands out bytes where a text is not UTF-8.
    if not isinstance(entry.key, str) or not isinstance(entry.value, str) or len(entry.value) > _NOTE_LENGTH:
        return False
    return entry.key.startswith(tuple(prefixes)) and entry.key.isprintable() and "\0" not in entry.value


def check_names(proto: onnx.ModelProto, path: Path) -> None:
    """Check that every name is text that can be printed on one line, and not endless.

    A name may come to stand in a message, a report or a terminal, which line breaks and control sequences would forge.

    Raises:
        InputError: If a name has other characters than printable ones, or is too long.
    """
    longest = limits.active().name
    for name in _names(proto):
        if isinstance(name, bytes):  # what protobuf hands out where a text is not UTF-8
            raise InputError(f"cannot load {path}: the name {name[:40]!r} is not text; damaged, or export it again")
        if not name.isprintable():
            raise InputError(f"cannot load {path}: the name {name[:40]!a} has control characters; export it again")
        if len(name) > longest:
            what = f"the name {name[:40]!r}... has {len(name)} characters, more than {longest}"
            raise InputError(f"cannot load {path}: {what}; export it again, or raise the limit 'name'")


def _names(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    yield from (proto.producer_name, proto.producer_version, proto.domain)
    yield from (opset.domain for opset in proto.opset_import)
    for body in bodies(proto):
        yield from _graph_names(body) if isinstance(body, onnx.GraphProto) else _function_names(body)
        for node in body.node:
            yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        for attribute in attributes(body):
            yield from (attribute.name, attribute.ref_attr_name)
            yield from _tensor_names(tensors(attribute))


def _function_names(function: onnx.FunctionProto) -> Iterator[str | bytes]:
    yield from (function.domain, function.name, function.overload)
    yield from (opset.domain for opset in function.opset_import)
    yield from [*function.input, *function.output, *function.attribute]
    yield from _value_names(function.value_info)


def _graph_names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    yield graph.name
    yield from _value_names([*graph.input, *graph.output, *graph.value_info])
    yield from _tensor_names(graph.initializer)


def _value_names(values: Iterable[onnx.ValueInfoProto]) -> Iterator[str | bytes]:
    for value in values:
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _tensor_names(held: Iterable[onnx.TensorProto]) -> Iterator[str | bytes]:
    for tensor in held:
        yield tensor.name
        yield from (entry.value for entry in tensor.external_data)
