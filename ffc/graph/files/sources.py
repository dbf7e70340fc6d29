"""What a model may be given as: a path, what a file would hold, or a model in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, cast

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from ffc import limits
from ffc.errors import InputError, UsageError, innermost

__all__ = ["MEMORY", "ModelLike", "Serialised", "in_memory", "name_of", "path_of", "serialised"]

MEMORY = "a model in memory"
"""What messages and reports call a model without a file."""

_TAKEN = (
    "a path, bytes, an onnx.ModelProto, an onnx_ir.Model, a torch.onnx.ONNXProgram or a file opened for reading bytes"
)


class _Program(Protocol):
    """A ``torch.onnx.ONNXProgram``, known by what it holds, since torch need not be there."""

    @property
    def model(self) -> ir.Model:
        """The model that was exported."""


Serialised: TypeAlias = bytes | bytearray | memoryview | onnx.ModelProto | IO[bytes]
ModelLike: TypeAlias = str | os.PathLike[str] | Serialised | ir.Model | _Program


def in_memory(model: ModelLike) -> ir.Model | None:
    """Return the model itself where that is what is given, or what a program that torch exported holds."""
    found = model if isinstance(model, ir.Model) else getattr(model, "model", None)
    return found if isinstance(found, ir.Model) else None


def path_of(model: ModelLike) -> Path | None:
    """Return the file that is given, by its path or as one that is open; None for what lies in memory."""
    if isinstance(model, str | os.PathLike):
        return Path(model)
    file: Any = model
    try:  # what lies in an archive has a name too, but is not the file of that name
        known = os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return Path(os.fspath(file.name)) if known and isinstance(file.name, str | os.PathLike) else None


def name_of(model: ModelLike) -> str:
    """Return what messages and reports call a model."""
    path = model if isinstance(model, str | os.PathLike) else path_of(model)
    return MEMORY if path is None else os.fspath(path)


def serialised(model: ModelLike) -> bytes:
    """Return the bytes of a model that is given as what a file would hold.

    Raises:
        UsageError: If it is nothing that a model may be given as.
        InputError: If it cannot be read, or written by protobuf.
    """
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, onnx.ModelProto):
        try:
            return bytes(model.SerializeToString())
        except (EncodeError, ValueError) as error:  # protobuf ends at 2 GiB
            raise InputError(f"cannot load {MEMORY}: {innermost(error)}; save it and give its path") from error
    if callable(getattr(model, "read", None)) and not isinstance(model, type):
        return _content(cast(IO[bytes], model))
    raise UsageError(f"a model is {_TAKEN}, not {type(model).__name__}")


def _content(file: IO[bytes]) -> bytes:
    """Read a file that is open, no further than a model file may reach."""
    try:
        content = file.read(limits.active().file + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load {name_of(file)}: {innermost(error)}; give its path") from error
    if not isinstance(content, bytes):
        raise UsageError(f"cannot load {name_of(file)}: it gives {type(content).__name__}; open it with mode 'rb'")
    return content
