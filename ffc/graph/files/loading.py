"""Loading model files that are sound, and refusing those that are not."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir

from ffc import limits
from ffc.errors import InputError, innermost
from ffc.graph import soundness
from ffc.graph.files import sources, wire
from ffc.graph.files.sources import ModelLike
from ffc.graph.files.tensors import Tensor, replace_tensors

__all__ = ["clone", "digest", "is_pointer", "load", "load_like", "parts", "put_in_order", "size", "skeleton"]

_POINTER = b"version https://git-lfs.github.com/spec/"


def load(model: ModelLike, *, lazily: bool = False, to_run: bool = True, data: bool = True) -> ir.Model:
    """Load an ONNX model and check that it is whole.

    Weights in external data are memory-mapped right away, their files opened once: the model stays readable and
    unchanged when the files are replaced later, and it can be serialised whole like any other. Nodes that stand
    before what they read are sorted. What is given stays as it is.

    Args:
        model: The ``.onnx`` file, in protobuf form: its path, or open; the same in memory, as bytes or as an
            ``onnx.ModelProto``, whose weights are then all there. Of an ``onnx_ir.Model`` and a
            ``torch.onnx.ONNXProgram`` it is a clone that is returned.
        lazily: Whether weights stay in their files and are read anew at every look, so that no more than one need be
            in memory; the files must then not change meanwhile, and one thread at a time may look.
        to_run: Whether the model is to be run, so that what that takes is held to the limits.
        data: Whether external data are looked for. Without, tensors there have a type and a shape alone, and the model
            is good for printing and nothing else.

    Returns:
        The model, its nodes in topological order.

    Raises:
        UsageError: If it is nothing of that.
        InputError: If the file is missing, empty, truncated, not an ONNX model, without outputs or without an opset
            for a domain of its operators; if a tensor's data are missing, of the wrong length or outside the model's
            folder; if a node reads a value that nothing produces, or the nodes form a cycle.
    """
    held = sources.in_memory(model)
    if held is not None:
        copy = clone(held)
        put_in_order(copy)
        if held is not model:  # weights of a program that torch exported are those of the module, which may learn on
            replace_tensors(copy, _copied)
        return copy
    place = sources.path_of(model)
    path = Path(sources.MEMORY) if place is None else place
    proto, tensors = _read(model, lazily)
    in_order = soundness.check(proto, path, data=data, alone=place is None)
    loaded = _made(proto, tensors, path, in_order)
    if not data:
        return loaded
    with contextlib.ExitStack() as stack:
        opened = functools.cache(lambda location: stack.enter_context(soundness.data_file(path, location).open("rb")))
        replace_tensors(loaded, lambda tensor: _lazy(tensor, path) if lazily else _mapped(tensor, opened))
    if to_run:
        soundness.check_demand(loaded, path)
    return loaded


def clone(model: ir.Model) -> ir.Model:
    """Return a clone that remembers where the model came from."""
    copy = model.clone()
    copy.meta.update(model.meta)
    return copy


def _copied(tensor: Tensor) -> Tensor:
    return ir.Tensor(np.array(tensor.numpy()), tensor.dtype, name=tensor.name)


def _made(proto: onnx.ModelProto, tensors: Mapping[str, Tensor], path: Path, in_order: bool) -> ir.Model:
    """Return a message that was found sound as a model, with the tensors that were read apart."""
    try:
        model = ir.from_proto(proto)
        put_in_order(model)
        wire.weights(model, tensors)
        if not in_order:
            for graph in (model.graph, *(function.graph for function in model.functions.values())):
                graph.sort()
    except Exception as error:  # onnx_ir raises many kinds; its innermost message is the one that explains
        raise InputError(f"cannot load {path}: {innermost(error)}; export the model again") from error
    return model


def load_like(model: ir.Model, path: str | os.PathLike[str], what: str, advice: str) -> ir.Model:
    """Load a model whose inputs and outputs have the names of those of `model`.

    Args:
        model: The model at hand.
        path: The file.
        what: What names the file, such as an option, for the message.
        advice: What to do where names differ.

    Raises:
        InputError: If they do, or as `load` says.
    """
    found = load(path)
    for side in ("inputs", "outputs"):
        asked, given = (sorted(str(value.name) for value in getattr(each.graph, side)) for each in (model, found))
        if asked != given:
            raise InputError(
                f"{what}={path} has the {side} {', '.join(given)}, this model has {', '.join(asked)}; {advice}"
            )
    return found


def put_in_order(model: ir.Model) -> None:
    """Let a model say in one way what files say in two.

    Standard operators are imported by the name that nodes call them by: "", where it says ``ai.onnx``. Initializers
    that are listed as inputs too, as IR version 3 wants it, are weights and no inputs.
    """
    model.graph.inputs[:] = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        if "ai.onnx" in imports:
            imports[""] = imports.pop("ai.onnx")


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


def skeleton(model: ModelLike) -> tuple[onnx.ModelProto, Mapping[str, tuple[int, ...]]]:
    """Return a serialised model as protobuf has it, large weights and external data empty, and the dimensions of those.

    Raises:
        InputError: As `load` does for what is no model.
    """
    proto, tensors = _read(model, lazily=True)
    sizes = {name: tuple(tensor.shape.numpy()) for name, tensor in tensors.items()}
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            sizes[tensor.name] = tuple(tensor.dims)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.dims[:] = [0]
    return proto, sizes


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS keeps in the place of a large one: https://git-lfs.com/spec/v1."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def _files(path: Path) -> list[Path]:
    return [path, *soundness.check_tensors(_read(path, lazily=True)[0], path)]


def _in_place_of(folder: Path) -> str:
    """Say what to name where a folder was named: the model in it, or what exports one that torch has saved."""
    if inside := [*sorted(folder.glob("*.onnx")), *sorted(folder.glob("onnx/*.onnx"))]:
        return f"name the .onnx file in it, {inside[0]}"
    if (folder / "config.json").is_file():
        return f"`ffc export {folder} -o model.onnx` makes a model of it"
    return "name an .onnx file"


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"cannot load {path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"cannot load {path}: it is a folder; {_in_place_of(path)}")
    if not path.is_file():
        raise InputError(f"cannot load {path}: it is not a regular file; name an .onnx file")
    _check_size(path.stat().st_size, path)
    if is_pointer(path):
        raise InputError(f"cannot load {path}: it is a pointer of Git LFS and not the model; run `git lfs pull`")


def _check_size(size: int, name: Path | str) -> None:
    most = limits.active().file
    if size > most:
        found = f"{size} bytes, over the limit 'file' of {most}"
        raise InputError(f"cannot load {name}: it has {found}; export it with external data, or raise the limit")


def _read(model: ModelLike, lazily: bool) -> tuple[onnx.ModelProto, Mapping[str, Tensor]]:
    """Parse a serialised model, its large weights apart, and refuse what is none."""
    if not isinstance(model, str | os.PathLike):
        name, content = sources.name_of(model), sources.serialised(model)
        _check_size(len(content), name)
        content, tensors = wire.split(io.BytesIO(content), lazily=lazily)
        return soundness.parse(content, Path(name)), tensors
    path = Path(model)
    _check_readable(path)
    try:
        content, tensors = wire.split(path, lazily=lazily)
    except OSError as error:
        raise InputError(f"cannot load {path}: {error.strerror or error}; check its permissions") from error
    return soundness.parse(content, path), tensors


def _lazy(tensor: Tensor, path: Path) -> Tensor:
    """Return an external tensor as one that maps its part of a file at every look, other tensors as they are."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor

    def read() -> Tensor:
        with soundness.data_file(path, os.fspath(tensor.location)).open("rb") as file:
            return _mapped(tensor, lambda location: file)

    return ir.LazyTensor(read, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _mapped(tensor: Tensor, opened: Callable[[str], IO[bytes]]) -> Tensor:
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
