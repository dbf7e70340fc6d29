"""Saving models so that no file is ever half written, in the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from google.protobuf.message import EncodeError

from ffc.errors import InputError, UsageError, innermost
from ffc.graph.files import wire
from ffc.graph.files.destination import Destination, destination, named, of_standard_output
from ffc.graph.files.publish import Piece, Staging, sweep
from ffc.graph.files.tensors import Tensor, initializers, replace_tensors

__all__ = ["save"]

# A protobuf message ends at 2 GiB; the margin leaves room for what is not weights.
_INLINE_LIMIT = int(1.8 * 2**30)
# Smaller tensors stay in the model file even with external data: runtimes need shapes and axes to plan.
_EXTERNAL_MINIMUM = 1024
_ALIGNMENT = 64


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Save a model atomically: afterwards the path holds the whole new model or what it held before.

    The bytes depend on the model alone: two saves of one model are identical. Saving over the file, or the data
    file, that the model was loaded from is safe.

    Args:
        model: The model; it is not changed.
        path: Where to write the model. Links are followed, devices and pipes are written into, and ``-`` is standard
            output. A file that is replaced keeps its mode and owner. External data go beside the file, into
            ``<file name>.<hash of the data>.data``; those of former models there go, unless a file names them.
        external: True writes the weights to external data, False keeps them in the model file, None decides by size.

    Raises:
        UsageError: If the folder does not exist or cannot be written to, if a folder is at the path, or if weights
            that must stay inside do not fit into a protobuf file, or need a file beside what is none.
        InputError: If a tensor has no data, or if writing fails, for example because the disk is full.
        OSError: If standard output cannot be written.
    """
    if os.fspath(path).endswith("/"):
        raise UsageError(f"cannot save {path}: it is named as a folder; name a file, such as {path}model.onnx")
    path = named(path)
    to = _checked(path)
    copy = model.clone()
    sizes: list[int] = []

    def resident(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        known = not isinstance(tensor, ir.ExternalTensor)
        return tensor if known else ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)

    replace_tensors(copy, resident)
    if not external:
        inline = sum(sizes) <= _INLINE_LIMIT  # tensors are what counts of a model's size
        if not inline and external is False:
            raise UsageError(f"cannot save {path}: the weights do not fit into one file; allow external data")
        external = not inline
    if external and to.real is None:
        raise UsageError(f"cannot save {path}: its weights need a file of their own beside it; save to a plain file")
    try:
        if external and to.real is not None:
            data = _save_external(copy, path, to.real)
        else:
            data = None
            with Staging() as staging:
                staging.place(staging.write(_serialized(copy, path), path))
    except OSError as error:
        if of_standard_output(error):
            raise
        left = "it may have got a part" if to.real is None else "nothing was changed"
        raise InputError(f"cannot save {path}: {error.strerror or error}; {left}") from error
    if to.real is not None:
        sweep(to.real, re.compile(re.escape(to.real.name) + r"\.[0-9a-f]{16}\.data"), data)


def _checked(path: Path) -> Destination:
    """Return where a model goes, once it is known that a file can be made there."""
    try:
        to = destination(path)
    except OSError as error:
        raise UsageError(f"cannot save {path}: {error.strerror}; choose another path") from error
    if to.real is None:
        if reason := to.hindrance():
            raise UsageError(f"cannot save {path}: it {reason}; choose another path")
        return to
    folder = to.real.parent if to.is_linked else path.parent
    if not folder.is_dir():
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} does not exist; create it first")
    if path.is_dir():
        raise UsageError(f"cannot save {path}: a folder is in the way; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} is read-only; choose another path")
    return to


def _serialized(model: ir.Model, path: Path) -> Iterable[Piece]:
    """Serialise a model in pieces, in the same bytes each time. Changes `model`: its large weights leave it."""
    missing = [value.name for value in initializers(model) if value.const_value is None]
    if missing:
        raise InputError(f"cannot save {path}: initializer {missing[0]!r} has no data; give it some or remove it")
    apart: dict[str, Tensor] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        if not isinstance(tensor, ir.ExternalTensor) and wire.is_large(tensor):
            apart[name] = tensor
            value.const_value = ir.Tensor(np.empty(0, tensor.dtype.numpy()), tensor.dtype, name=name)
    try:
        proto = ir.to_proto(model)
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot save {path}: {innermost(error)}; this model cannot be written as ONNX") from error
    try:
        return list(wire.chunks(proto, apart))
    except (EncodeError, ValueError) as error:
        raise InputError(f"cannot save {path}: constants hold more than 2 GiB; make them initializers") from error


def _save_external(model: ir.Model, path: Path, real: Path) -> Path:
    """Write a model to `real`, which `path` names, and its large initializers beside it; return where these are.

    The data file is named by its contents: the model that stands there meanwhile keeps the data that it names, and a
    process killed between the two leaves the old pair or the new one. It is as private as the model. Changes `model`.
    """
    contents = hashlib.sha256()
    with Staging() as staging:
        places = _places(model)
        staged = staging.write(_hashed(_laid_out(places), contents), real)
        data = real.with_name(f"{real.name}.{contents.hexdigest()[:16]}.data")
        _refer(model, places, data.name)
        whole = staging.write(_serialized(model, path), real)
        known = data.exists()
        staging.place(staged, data)
        try:
            staging.place(whole)
        except OSError:
            if not known:
                data.unlink(missing_ok=True)
            raise
    return data


def _places(model: ir.Model) -> dict[int, tuple[Tensor, int]]:
    """Return the tensors that go to external data, each with its offset there, by identity."""
    places: dict[int, tuple[Tensor, int]] = {}
    end = 0
    for tensor in (value.const_value for value in initializers(model)):
        if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _EXTERNAL_MINIMUM:
            continue
        if id(tensor) not in places:
            places[id(tensor)] = (tensor, end)
            end += tensor.nbytes + -tensor.nbytes % _ALIGNMENT
    return places


def _laid_out(places: Mapping[int, tuple[Tensor, int]]) -> Iterator[Piece]:
    end = 0
    for tensor, start in places.values():
        yield bytes(start - end)
        yield wire.content(tensor)
        end = start + tensor.nbytes


def _hashed(pieces: Iterable[Piece], digest: hashlib._Hash) -> Iterator[Piece]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _refer(model: ir.Model, places: Mapping[int, tuple[Tensor, int]], location: str) -> None:
    for value in initializers(model):
        tensor, start = places.get(id(value.const_value), (None, 0))
        if tensor is not None:
            shape, name = ir.Shape(tensor.shape.numpy()), value.name or ""
            external = ir.ExternalTensor(location, start, tensor.nbytes, tensor.dtype, shape=shape, name=name)
            value.const_value = external
