"""Whether the data of every tensor are there, as large as its shape says, and in files that a model may read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from ffc import limits
from ffc.errors import InputError
from ffc.graph.soundness.walk import attributes, bodies, tensors

__all__ = ["check_tensors", "data_file"]

# What numpy can hold, empty arrays included.
_MAX_RANK = 32
_MAX_SIZE = 2**48

_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check_tensors(proto: onnx.ModelProto, path: Path, *, data: bool = True, alone: bool = False) -> list[Path]:
    """Check the data of every tensor, external data where they are asked for; return their files, by location.

    A model that is `alone` has no folder, and its external data are not looked for anywhere.

    Raises:
        InputError: If a tensor's type, shape and data do not agree, or its data are missing or out of bounds.
    """
    files: dict[str, Path] = {}
    for tensor in _tensors(proto):
        where = f"cannot load {path}: tensor {tensor.name or 'of an attribute'!r}"
        length = _expected_bytes(tensor, where)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if not data:
                continue
            if alone:
                found = "keeps its data in a file, and a model in memory has no folder to find it in"
                raise InputError(f"{where} {found}; give the model's path, or load the data into it")
            keys = {entry.key: entry.value for entry in tensor.external_data}
            if len(keys) < len(tensor.external_data):
                raise InputError(f"{where} says twice where its data are; export the model again")
            location = keys.get("location", "")
            if location not in files:
                files[location] = _data_file(location, path, where)
            _check_range(keys, files[location], length, where)
        elif _held_data(tensor, where) != length:
            raise InputError(f"{where} holds too few or too many data for its shape {list(tensor.dims)}; export again")
    total, most = sum(file.stat().st_size for file in files.values()), limits.active().data
    if total > most:
        what = f"{total} bytes of external data, more than {most}"
        raise InputError(f"cannot load {path}: {what}; raise the limit 'data'")
    return [files[location] for location in sorted(files)]


def _expected_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Return the bytes (of strings and typed fields: the entries) that the shape asks for."""
    if tensor.data_type == onnx.TensorProto.UNDEFINED or tensor.data_type not in onnx.TensorProto.DataType.values():
        raise InputError(f"{where} has no known data type; export the model again")
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"{where} has a negative dimension in {list(tensor.dims)}; export the model again")
    count: int = math.prod(tensor.dims)
    if len(tensor.dims) > _MAX_RANK or max(tensor.dims, default=0) > _MAX_SIZE:
        raise InputError(f"{where} has dimensions that no array can have; export the model again")
    as_bytes = tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.HasField("raw_data")
    dtype = ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING:
        if as_bytes:
            raise InputError(f"{where} holds strings as raw data, which ONNX does not allow; export the model again")
        return count
    if as_bytes or dtype.bitwidth in (2, 4):
        return (count * dtype.bitwidth + 7) // 8
    return 2 * count if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else count


def _held_data(tensor: onnx.TensorProto, where: str) -> int:
    """Return the bytes of raw data, or else the entries in the field that belongs to the tensor's type."""
    wanted = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    held = {field: len(getattr(tensor, field)) for field in _FIELDS}
    if tensor.HasField("raw_data"):
        held, wanted = held | {"raw_data": len(tensor.raw_data)}, "raw_data"
    if any(count for field, count in held.items() if field != wanted):
        raise InputError(f"{where} holds data in a field that is not for its type; export the model again")
    return held[wanted]


def data_file(path: Path, location: str) -> Path:
    """Return where the data of a model at `path` lie: beside it or, where it is a link, beside what it links to."""
    beside = path.parent / location
    return beside if beside.exists() or not path.is_symlink() else Path(os.path.realpath(path)).parent / location


def _data_file(location: str, path: Path, where: str) -> Path:
    """Resolve a location, which comes from the model and may be hostile, to a plain file in the model's folder.

    The cache of the Hugging Face hub keeps links to its files: where the model is such a link, the folder of what it
    links to is the model's folder too. A hostile model cannot use that, for it would have to lie there.
    """
    try:
        file = data_file(path, location)
        real, homes = Path(os.path.realpath(file)), (os.path.realpath(path.parent), Path(os.path.realpath(path)).parent)
        inside = any(real.is_relative_to(home) for home in homes)
        if not location or os.path.isabs(location) or ".." in Path(location).parts or not inside:
            raise InputError(f"{where} keeps its data at {location!r}, outside the model's folder; copy the file there")
        if not real.exists():
            raise InputError(f"{where} keeps its data in {location!r}, which is missing; put it beside the model")
        if not real.is_file():
            raise InputError(f"{where} keeps its data in {location!r}, which is no regular file; export it again")
        links = real.stat().st_nlink
    except (OSError, ValueError) as error:  # a name too long, a loop of links
        raise InputError(f"{where} keeps its data in {location[:99]!r}, which cannot be read; export again") from error
    if links > 1:
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
    for body in bodies(proto):
        if isinstance(body, onnx.GraphProto):
            yield from body.initializer
        for attribute in attributes(body):
            yield from tensors(attribute)
