"""Large weights beside the protobuf instead of in it: reading and writing a model file in one pass over its bytes.

A protobuf library holds a message twice while it parses or writes it, and hands out a copy of a tensor's bytes at
every look. Reading and writing a model of 1 GB again took onnx 1.23 3.1 times its size in memory and onnx_ir 1.1 4.1
times; this takes 1.15 times, and a fifth of onnx's time (``examples/benchmarks/libraries.py``, on AVX2). So the weights
of a model file are read straight into arrays, and written straight from them; the library sees the model without them.
The format is that of protobuf's binary encoding: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Message

__all__ = ["chunks", "content", "is_large", "split", "weights"]

# Bytes from which a tensor counts as large; smaller ones (shapes, axes) are part of what a graph says.
_LARGE = 1024
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


class _MalformedError(Exception):
    """The bytes are no message; the protobuf library will say so in its own way."""


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, and where it and its contents begin and end in the file."""

    number: int
    wire: int
    start: int
    content: int
    end: int


@dataclass(frozen=True)
class _Weight:
    """A tensor whose bytes were left in the file."""

    tensor: onnx.TensorProto
    offset: int
    length: int


@dataclass(frozen=True)
class _Kept:
    """A file that is open as long as tensors read from it."""

    file: IO[bytes]


def split(source: Path | IO[bytes], *, lazily: bool = False) -> tuple[bytes, Mapping[str, ir.TensorProtocol]]:
    """Read a model file, its large initializers apart.

    Args:
        source: The file, or its contents as a stream, which is closed.
        lazily: Whether the data of those stay in the file, which stays open, and are read anew at every look.

    Returns:
        The serialised model, in which each large initializer has dimensions ``[0]`` and no data, and the tensors of
        those, by name. An initializer whose bytes do not fit its dimensions stays in the model, as does everything
        where the bytes are no message at all.

    Raises:
        OSError: If the file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.open("rb") if isinstance(source, Path) else source)
        size = file.seek(0, os.SEEK_END)
        try:
            pieces, found = _without_weights(file, size)
        except _MalformedError:
            pieces, found = [], []
        names = [weight.tensor.name for weight in found]
        if not found or len(set(names)) < len(names):
            file.seek(0)
            return file.read(), {}
        if lazily:
            kept = _Kept(file)
            weakref.finalize(kept, stack.pop_all().close)
            return b"".join(pieces), {weight.tensor.name: _lazy(kept, weight) for weight in found}
        return b"".join(pieces), {weight.tensor.name: _tensor(file, weight) for weight in found}


def weights(model: ir.Model, tensors: Mapping[str, ir.TensorProtocol]) -> None:
    """Give the initializers of `model` the tensors that `split` took from it."""
    for name, tensor in tensors.items():
        value = model.graph.initializers[name]
        value.const_value = tensor
        value.shape = ir.Shape(tensor.shape.numpy())


def is_large(tensor: ir.TensorProtocol) -> bool:
    """Whether `chunks` writes a tensor itself."""
    return _has_bytes(tensor.dtype) and tensor.nbytes >= _LARGE


def _has_bytes(dtype: ir.DataType) -> bool:
    """Whether an element of a type is whole bytes."""
    return dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and dtype.bitwidth >= 8


def chunks(proto: onnx.ModelProto, arrays: Mapping[str, ir.TensorProtocol]) -> Iterator[bytes | memoryview]:
    """Serialise a model in pieces, large initializers apart.

    Args:
        proto: The model without the data of those; it is changed.
        arrays: Their tensors, by name.

    Yields:
        The bytes of the whole model file, in order; the same for the same model.
    """
    parts = [(_head(tensor, arrays.get(tensor.name)), arrays.get(tensor.name)) for tensor in proto.graph.initializer]
    del proto.graph.initializer[:]
    graph = _serialized(proto.graph)
    proto.ClearField("graph")
    total = len(graph) + sum(len(head) + (0 if data is None else data.nbytes) for head, data in parts)
    yield _serialized(proto) + _start(_GRAPH, total) + graph
    for head, data in parts:
        yield head
        if data is not None:
            yield content(data)


def _head(tensor: onnx.TensorProto, data: ir.TensorProtocol | None) -> bytes:
    """Return an initializer as a field, up to its data, or the whole of a small one."""
    if data is None:
        return _framed(_INITIALIZER, _serialized(tensor))
    tensor.ClearField("raw_data")
    tensor.dims[:] = [int(dim) for dim in data.shape.numpy()]
    head = _serialized(tensor) + _start(_RAW_DATA, data.nbytes)
    return _start(_INITIALIZER, len(head) + data.nbytes) + head


def _serialized(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def content(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """Return the bytes of a tensor as files have them, without a copy where memory has them so."""
    array = tensor.numpy()
    plain = array.dtype.kind in "biufc" and array.dtype.newbyteorder("<") == array.dtype and array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8).data if plain else tensor.tobytes()


def _tensor(file: IO[bytes], weight: _Weight) -> ir.TensorProtocol:
    """Read a tensor into memory of its own, aligned as its type wants it, which bytes in a file are not."""
    dtype = ir.DataType(weight.tensor.data_type)
    array = np.empty(weight.length, np.uint8)
    file.seek(weight.offset)
    if file.readinto(array) != weight.length:  # type: ignore[attr-defined]
        raise OSError(f"the file became shorter while it was read, at byte {weight.offset}")
    array = array.view(dtype.numpy().newbyteorder("<")).reshape(tuple(weight.tensor.dims))
    return ir.Tensor(array, dtype, name=weight.tensor.name)


def _lazy(kept: _Kept, weight: _Weight) -> ir.LazyTensor:
    """Return a tensor that is read when it is looked at, by one thread at a time for all tensors of a file."""
    dtype, shape = ir.DataType(weight.tensor.data_type), ir.Shape(weight.tensor.dims)
    return ir.LazyTensor(lambda: _tensor(kept.file, weight), dtype, shape, name=weight.tensor.name)


def _without_weights(file: IO[bytes], size: int) -> tuple[list[bytes], list[_Weight]]:
    """Return the file in pieces without the data of large initializers, and those initializers."""
    pieces: list[bytes] = []
    found: list[_Weight] = []
    for field in _fields(file, 0, size):
        if (field.number, field.wire) != (_GRAPH, _LENGTH):
            pieces.append(_read(file, field.start, field.end))
            continue
        graph: list[bytes] = []
        for part in _fields(file, field.content, field.end):
            weight = _weight(file, part) if (part.number, part.wire) == (_INITIALIZER, _LENGTH) else None
            if weight is None:
                graph.append(_read(file, part.start, part.end))
            else:
                found.append(weight)
                shell = onnx.TensorProto()
                shell.CopyFrom(weight.tensor)
                shell.dims[:] = [0]
                shell.raw_data = b""
                graph.append(_framed(_INITIALIZER, shell.SerializeToString()))
        pieces.append(_framed(_GRAPH, b"".join(graph)))
    return pieces, found


def _weight(file: IO[bytes], field: _Field) -> _Weight | None:
    """Return an initializer whose data can be read apart: large, raw, and of the length that its dimensions say."""
    if field.end - field.content < _LARGE:
        return None
    parts = list(_fields(file, field.content, field.end))
    data = [part for part in parts if part.number == _RAW_DATA]
    if len(data) != 1 or data[0].wire != _LENGTH or data[0].end - data[0].content < _LARGE:
        return None
    head = b"".join(_read(file, part.start, part.end) for part in parts if part.number != _RAW_DATA)
    try:
        tensor = onnx.TensorProto.FromString(head)
        dtype = ir.DataType(tensor.data_type)
    except Exception:  # whatever is wrong with it, the checks of the whole model say so
        return None
    length = data[0].end - data[0].content
    # data_location says that the data lie elsewhere: then these bytes are not the tensor.
    if not _has_bytes(dtype) or min(tensor.dims, default=0) < 0 or tensor.data_location:
        return None
    fits = math.prod(tensor.dims) * dtype.bitwidth == 8 * length
    return _Weight(tensor, data[0].content, length) if fits else None


def _fields(file: IO[bytes], start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that lies between two places in a file."""
    place = start
    while place < end:
        key, content = _read_varint(file, place, end)
        wire = key & 7
        if wire == _LENGTH:
            length, content = _read_varint(file, content, end)
            after = content + length
        elif wire == _VARINT:
            _, after = _read_varint(file, content, end)
        elif wire in (_FIXED32, _FIXED64):
            after = content + (4 if wire == _FIXED32 else 8)
        else:
            raise _MalformedError
        if after > end or not key >> 3:
            raise _MalformedError
        yield _Field(key >> 3, wire, place, content, after)
        place = after


def _read_varint(file: IO[bytes], place: int, end: int) -> tuple[int, int]:
    """Return the number at `place` and the place after it."""
    number = 0
    for index, byte in enumerate(_read(file, place, min(place + 10, end))):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, place + index + 1
    raise _MalformedError


def _read(file: IO[bytes], start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _framed(number: int, content: bytes) -> bytes:
    return _start(number, len(content)) + content


def _start(number: int, length: int) -> bytes:
    """Return how a field of so many bytes begins."""
    return _varint(number << 3 | _LENGTH) + _varint(length)


def _varint(number: int) -> bytes:
    pieces = bytearray()
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])
