"""Model files: loading what is sound, refusing what is not, and saving so that no file is ever half written."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from ffc import limits
from ffc.errors import InputError, UsageError
from ffc.graph.files import wire
from ffc.graph.files.calls import check_calls
from ffc.graph.files.demand import check_demand
from ffc.graph.files.names import check_names, strip_notes
from ffc.graph.files.publish import Piece, Staging, sweep
from ffc.graph.files.soundness import DEFAULT_DOMAINS, check_graphs, check_tensors

__all__ = ["digest", "load", "parts", "save", "size", "skeleton"]

# A protobuf message ends at 2 GiB; the margin leaves room for what is not weights.
_INLINE_LIMIT = int(1.8 * 2**30)
# Smaller tensors stay in the model file even with external data: runtimes need shapes and axes to plan.
_EXTERNAL_MINIMUM = 1024
_ALIGNMENT = 64
_Tensor = ir.TensorProtocol


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Load an ONNX model and check that it is whole.

    Weights in external data are memory-mapped right away, their files opened once: the model stays readable and
    unchanged when the files are replaced later, and it can be serialised whole like any other. Nodes that stand
    before what they read are sorted.

    Args:
        path: The ``.onnx`` file, in protobuf form.

    Returns:
        The model, its nodes in topological order.

    Raises:
        InputError: If the file is missing, empty, truncated, not an ONNX model, without outputs or without an opset
            for standard operators; if a tensor's data are missing, of the wrong length or outside the model's
            folder; if a node reads a value that nothing produces, or the nodes form a cycle.
    """
    path = Path(path)
    proto, arrays = _read(path)
    check_calls(proto, path)
    check_names(proto, path)
    strip_notes(proto)
    check_tensors(proto, path)
    in_order = check_graphs(proto, path)
    try:
        model = ir.from_proto(proto)
        wire.weights(model, arrays)
        if not in_order:
            _sort(model)
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot load {path}: {_innermost(error)}; export the model again") from error
    with contextlib.ExitStack() as stack:
        opened = functools.cache(lambda location: stack.enter_context((path.parent / location).open("rb")))
        _replace_tensors(model, lambda tensor: _mapped(tensor, opened))
    check_demand(model, path)
    return model


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Save a model atomically: afterwards the path holds the whole new model or what it held before.

    The bytes depend on the model alone: two saves of one model are identical. Saving over the file, or the data
    file, that the model was loaded from is safe.

    Args:
        model: The model; it is not changed.
        path: Where to write the model. External data go beside it, into
            ``<file name>.<hash of the data>.data``; those of former models there go, unless a file names them.
        external: True writes the weights to external data, False keeps them in the model file, None decides by size.

    Raises:
        UsageError: If the folder does not exist or cannot be written to, if a folder is at the path, or if weights
            that must stay inside do not fit into a protobuf file.
        InputError: If a tensor has no data, or if writing fails, for example because the disk is full.
    """
    path = Path(path)
    _check_target(path)
    copy = model.clone()
    _replace_tensors(copy, _resident)
    if not external:
        inline = _bytes_inside(copy) <= _INLINE_LIMIT
        if not inline and external is False:
            raise UsageError(f"cannot save {path}: the weights do not fit into one file; allow external data")
        external = not inline
    try:
        if external:
            data = _save_external(copy, path)
        else:
            data = None
            with Staging(path.parent) as staging:
                staging.place(staging.write(_serialized(copy, path)), path)
    except OSError as error:
        raise InputError(f"cannot save {path}: {error.strerror or error}; nothing was changed") from error
    sweep(path, re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.data"), data)


def size(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a model file and of the external data files that it uses.

    Raises:
        InputError: As `load` does for files.
    """
    path = Path(path)
    return sum(file.stat().st_size for file in _files(path))


def digest(path: str | os.PathLike[str]) -> str:
    """Return the sha256, in hex, of a model file; with external data, of the digests of all its files.

    Raises:
        InputError: As `load` does for files.
    """
    digests = []
    for file in _files(Path(path)):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(each.digest() for each in digests)).hexdigest()


def parts(path: str | os.PathLike[str], outputs: Sequence[Path]) -> list[Path]:
    """Return the files of a model that writing `outputs` might destroy: itself, and its external data.

    The data files are looked up only where an output exists already; a new file is none of them.

    Raises:
        InputError: As `load` does for files.
    """
    path = Path(path)
    return _files(path) if path.is_file() and any(output.exists() for output in outputs) else [path]


def skeleton(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, Mapping[str, tuple[int, ...]]]:
    """Return a model file as protobuf has it, large weights and external data empty, and the dimensions of those.

    Raises:
        InputError: As `load` does for what is no model.
    """
    proto, arrays = _read(Path(path))
    sizes = {name: array.shape for name, array in arrays.items()}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            sizes[tensor.name] = tuple(tensor.dims)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.dims[:] = [0]
    return proto, sizes


# Reading


def _files(path: Path) -> list[Path]:
    return [path, *check_tensors(_read(path)[0], path)]


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"cannot load {path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"cannot load {path}: it is a folder; name the .onnx file in it")
    if not path.is_file():
        raise InputError(f"cannot load {path}: it is not a regular file; name an .onnx file")
    most = limits.active().file
    if path.stat().st_size > most:
        found = f"{path.stat().st_size} bytes, over the limit 'file' of {most}"
        raise InputError(f"cannot load {path}: it has {found}; export it with external data, or raise the limit")


def _read(path: Path) -> tuple[onnx.ModelProto, Mapping[str, np.ndarray]]:
    """Parse a file, its large weights apart, and refuse what is no model, even where its bytes happen to parse."""
    _check_readable(path)
    try:
        content, arrays = wire.split(path)
    except OSError as error:
        raise InputError(f"cannot load {path}: {error.strerror or error}; check its permissions") from error
    if not content:
        raise InputError(f"cannot load {path}: the file is empty; export the model again")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InputError(f"cannot load {path}: truncated or not an ONNX model; export the model again") from error
    if proto.ir_version < 1 or not proto.HasField("graph"):
        raise InputError(f"cannot load {path}: not an ONNX model, or one without a graph; export the model again")
    if not proto.graph.output:
        raise InputError(f"cannot load {path}: the graph has no outputs; export the model again")
    opsets = [opset.version for opset in proto.opset_import if opset.domain in DEFAULT_DOMAINS]
    if not opsets:
        raise InputError(f"cannot load {path}: no opset import for standard operators; truncated, or export it again")
    if len(set(opsets)) > 1 or not 1 <= opsets[0] <= onnx.defs.onnx_opset_version():
        found = f"opset {' and '.join(map(str, opsets))}, known are 1 to {onnx.defs.onnx_opset_version()}"
        raise InputError(f"cannot load {path}: it is of {found}; export it with opset_version=18")
    return proto, arrays


def _sort(model: ir.Model) -> None:
    model.graph.sort()
    for function in model.functions.values():
        function.sort()


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


# Tensors


def _replace_tensors(model: ir.Model, change: Callable[[_Tensor], _Tensor]) -> None:
    """Apply `change` to each tensor of initializers and attributes, subgraphs and functions included."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = change(value.const_value)
        for node in graph:
            for attribute in [each for each in node.attributes.values() if not each.is_ref()]:
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, change(attribute.as_tensor()))
                elif attribute.type == ir.AttributeType.TENSORS:
                    changed = [change(tensor) for tensor in attribute.as_tensors()]
                    node.attributes[attribute.name] = ir.AttrTensors(attribute.name, changed)


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        yield graph
        yield from graph.subgraphs()


def _mapped(tensor: _Tensor, opened: Callable[[str], IO[bytes]]) -> _Tensor:
    """Return an external tensor as a map of its part of a file, other tensors as they are.

    Each has a map of its own: what a pass replaces then leaves memory, though its neighbours stay.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    shape = tensor.shape.numpy()
    if tensor.nbytes == 0:
        return ir.Tensor(np.empty(shape, tensor.dtype.numpy()), tensor.dtype, name=tensor.name)
    file = opened(os.fspath(tensor.location))
    data = np.asarray(np.memmap(file, np.uint8, "r", tensor.offset or 0, tensor.nbytes))
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(data, tensor.dtype, shape=shape, name=tensor.name)
    array = np.require(data.view(tensor.dtype.numpy().newbyteorder("<")).reshape(shape), requirements="A")
    return ir.Tensor(array, tensor.dtype, name=tensor.name)


def _resident(tensor: _Tensor) -> _Tensor:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)


def _bytes_inside(model: ir.Model) -> int:
    """Return the bytes of all tensors, which is what counts of a model's size."""
    sizes: list[int] = []

    def measured(tensor: _Tensor) -> _Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    _replace_tensors(model, measured)
    return sum(sizes)


# Writing


def _check_target(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} does not exist; create it first")
    if path.is_dir():
        raise UsageError(f"cannot save {path}: a folder is in the way; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} is read-only; choose another path")


def _serialized(model: ir.Model, path: Path) -> Iterable[Piece]:
    """Serialise a model in pieces, in the same bytes each time. Changes `model`: its large weights leave it."""
    values = [value for graph in _graphs(model) for value in graph.initializers.values()]
    missing = [value.name for value in values if value.const_value is None]
    if missing:
        raise InputError(f"cannot save {path}: initializer {missing[0]!r} has no data; give it some or remove it")
    apart: dict[str, _Tensor] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        if not isinstance(tensor, ir.ExternalTensor) and wire.is_large(tensor):
            apart[name] = tensor
            value.const_value = ir.Tensor(np.empty(0, tensor.dtype.numpy()), tensor.dtype, name=name)
    try:
        proto = ir.to_proto(model)
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot save {path}: {_innermost(error)}; this model cannot be written as ONNX") from error
    try:
        return list(wire.chunks(proto, apart))
    except (EncodeError, ValueError) as error:
        raise InputError(f"cannot save {path}: constants hold more than 2 GiB; make them initializers") from error


def _save_external(model: ir.Model, path: Path) -> Path:
    """Write a model and its large initializers apart; return where these are. Changes `model`.

    The data file is named by its contents: the model that stands at `path` meanwhile keeps the data that it names, and
    a process killed between the two leaves the old pair or the new one.
    """
    contents = hashlib.sha256()
    with Staging(path.parent) as staging:
        places = _places(model)
        staged = staging.write(_hashed(_laid_out(places), contents))
        data = path.with_name(f"{path.name}.{contents.hexdigest()[:16]}.data")
        _refer(model, places, data.name)
        whole = staging.write(_serialized(model, path))
        known = data.exists()
        staging.place(staged, data)
        try:
            staging.place(whole, path)
        except OSError:
            if not known:
                data.unlink(missing_ok=True)
            raise
    return data


def _places(model: ir.Model) -> dict[int, tuple[_Tensor, int]]:
    """Return the tensors that go to external data, each with its offset there, by identity."""
    places: dict[int, tuple[_Tensor, int]] = {}
    end = 0
    for tensor in (value.const_value for graph in _graphs(model) for value in graph.initializers.values()):
        if tensor is None or id(tensor) in places or not _goes_outside(tensor):
            continue
        places[id(tensor)] = (tensor, end)
        end += tensor.nbytes + -tensor.nbytes % _ALIGNMENT
    return places


def _goes_outside(tensor: _Tensor) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _EXTERNAL_MINIMUM


def _laid_out(places: Mapping[int, tuple[_Tensor, int]]) -> Iterator[Piece]:
    end = 0
    for tensor, start in places.values():
        yield bytes(start - end)
        yield wire.content(tensor)
        end = start + tensor.nbytes


def _hashed(pieces: Iterable[Piece], digest: hashlib._Hash) -> Iterator[Piece]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _refer(model: ir.Model, places: Mapping[int, tuple[_Tensor, int]], location: str) -> None:
    for value in (value for graph in _graphs(model) for value in graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or id(tensor) not in places:
            continue
        value.const_value = ir.ExternalTensor(
            location,
            places[id(tensor)][1],
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
