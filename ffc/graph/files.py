"""Model files: loading what is sound, refusing what is not, and saving so that no file is ever half written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from ffc.errors import InputError, UsageError
from ffc.graph.soundness import DEFAULT_DOMAINS, check_calls, check_graphs, check_tensors

__all__ = ["digest", "load", "save", "size"]

# A protobuf message ends at 2 GiB; the margin leaves room for what is not weights.
_INLINE_LIMIT = int(1.8 * 2**30)
# Smaller tensors stay in the model file even with external data: runtimes need shapes and axes to plan.
_EXTERNAL_MINIMUM = 1024
_ALIGNMENT = 64
_Tensor = ir.TensorProtocol


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Load an ONNX model and check that it is whole.

    Weights in external data are memory-mapped once per file, right away: the model stays readable and unchanged
    when the files are replaced later, and it can be serialised whole like any other. Nodes that stand before what
    they read are sorted.

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
    proto = _read(path)
    check_tensors(proto, path)
    in_order = check_graphs(proto, path)
    check_calls(proto, path)
    try:
        model = ir.from_proto(proto)
        if not in_order:
            _sort(model)
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot load {path}: {_innermost(error)}; export the model again") from error
    maps: dict[str, np.ndarray] = {}
    _replace_tensors(model, lambda tensor: _mapped(tensor, path.parent, maps))
    return model


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Save a model atomically: afterwards the path holds the whole new model or what it held before.

    The bytes depend on the model alone: two saves of one model are identical. Saving over the file, or the data
    file, that the model was loaded from is safe.

    Args:
        model: The model; it is not changed.
        path: Where to write the model. External data go to ``<file name>.data`` beside it.
        external: True writes the weights to external data, False keeps them in the model file, None decides by size.

    Raises:
        UsageError: If the folder does not exist or cannot be written to, if a folder is at the path, or if weights
            that must stay inside do not fit into a protobuf file.
        InputError: If a tensor has no data, or if writing fails, for example because the disk is full.
    """
    path = Path(path)
    data = path.with_name(path.name + ".data")
    _check_target(path)
    _check_target(data)
    copy = model.clone()
    _replace_tensors(copy, _resident)
    content = b""
    if not external:
        content = _serialized(copy, path) if _weight_bytes(copy) <= _INLINE_LIMIT else b""
        inline = 0 < len(content) <= _INLINE_LIMIT
        if not inline and external is False:
            raise UsageError(f"cannot save {path}: the weights do not fit into one file; allow external data")
        external = not inline
    try:
        if external:
            _save_external(copy, path, data)
        else:
            _publish([(lambda file: file.write(content), path)])
    except OSError as error:
        raise InputError(f"cannot save {path}: {error.strerror or error}; nothing was changed") from error


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


# Reading


def _files(path: Path) -> list[Path]:
    return [path, *check_tensors(_read(path), path)]


def _read(path: Path) -> onnx.ModelProto:
    """Parse a file and refuse what is no model, even where its bytes happen to parse."""
    if not path.exists():
        raise InputError(f"cannot load {path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"cannot load {path}: it is a folder; name the .onnx file in it")
    if not path.is_file():
        raise InputError(f"cannot load {path}: it is not a regular file; name an .onnx file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot load {path}: {error.strerror}; check its permissions") from error
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
    if not any(opset.domain in DEFAULT_DOMAINS for opset in proto.opset_import):
        raise InputError(f"cannot load {path}: no opset import for standard operators; truncated, or export it again")
    return proto


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


def _mapped(tensor: _Tensor, folder: Path, maps: dict[str, np.ndarray]) -> _Tensor:
    """Return an external tensor as a view of its memory-mapped file, other tensors as they are."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    shape = tensor.shape.numpy()
    if tensor.nbytes == 0:
        return ir.Tensor(np.empty(shape, tensor.dtype.numpy()), tensor.dtype, name=tensor.name)
    location = os.fspath(tensor.location)
    if location not in maps:
        maps[location] = np.asarray(np.memmap(folder / location, np.uint8, "r"))
    start = tensor.offset or 0
    data = maps[location][start : start + tensor.nbytes]
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(data, tensor.dtype, shape=shape, name=tensor.name)
    array = data.view(tensor.dtype.numpy().newbyteorder("<")).reshape(shape)
    return ir.Tensor(array, tensor.dtype, name=tensor.name)


def _resident(tensor: _Tensor) -> _Tensor:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for graph in _graphs(model) for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


# Writing


def _check_target(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} does not exist; create it first")
    if path.is_dir():
        raise UsageError(f"cannot save {path}: a folder is in the way; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot save {path}: folder {str(folder)!r} is read-only; choose another path")


def _serialized(model: ir.Model, path: Path) -> bytes:
    """Serialise a model, in the same bytes each time; empty where it does not fit into a protobuf message."""
    values = [value for graph in _graphs(model) for value in graph.initializers.values()]
    missing = [value.name for value in values if value.const_value is None]
    if missing:
        raise InputError(f"cannot save {path}: initializer {missing[0]!r} has no data; give it some or remove it")
    try:
        proto = ir.to_proto(model)
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot save {path}: {_innermost(error)}; this model cannot be written as ONNX") from error
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError):
        return b""


def _save_external(model: ir.Model, path: Path, data: Path) -> None:
    """Write the large initializers of `model` to `data` and the rest to `path`. Changes `model`."""
    places: dict[int, tuple[_Tensor, int]] = {}
    end = 0
    for graph in _graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _EXTERNAL_MINIMUM:
                continue
            if id(tensor) not in places:
                places[id(tensor)] = (tensor, end)
                end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            value.const_value = ir.ExternalTensor(
                data.name,
                places[id(tensor)][1],
                tensor.nbytes,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )
    content = _serialized(model, path)
    if not content:
        raise InputError(f"cannot save {path}: constants hold more than 2 GiB; make them initializers")

    def write(file: IO[bytes]) -> None:
        for tensor, start in places.values():
            file.seek(start)
            file.write(tensor.tobytes())

    _publish([(write, data), (lambda file: file.write(content), path)])


def _publish(files: Sequence[tuple[Callable[[IO[bytes]], object], Path]]) -> None:
    """Write all files under temporary names, then put them in place in order; on failure, nothing has changed."""
    token = secrets.token_hex(6)
    staged = [(path.with_name(f".ffc-{token}-{index}.tmp"), path) for index, (_, path) in enumerate(files)]
    kept = [(path.with_name(f".ffc-{token}-{index}.old"), path) for index, (_, path) in enumerate(files)]
    placed = 0
    try:
        for (write, _), (temporary, _) in zip(files, staged, strict=True):
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        for index, (temporary, path) in enumerate(staged):
            if index + 1 < len(staged) and path.exists():
                # The old data would be lost if the model could not be replaced after them.
                os.replace(path, kept[index][0])
            os.replace(temporary, path)
            placed += 1
    except BaseException:
        for _, path in staged[:placed]:
            path.unlink(missing_ok=True)
        for old, path in kept:
            if old.exists():
                os.replace(old, path)
        raise
    finally:
        for temporary, _ in [*staged, *kept]:
            temporary.unlink(missing_ok=True)
    _sync_folder(staged[-1][1].parent)


def _sync_folder(folder: Path) -> None:
    """Make the new names survive a power cut, where the system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
