"""Whether bytes are a model at all, even where they happen to parse."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ffc.errors import InputError

__all__ = ["DEFAULT_DOMAINS", "parse"]

DEFAULT_DOMAINS = ("", "ai.onnx")
"""The two names of the domain of standard operators."""


def parse(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse the bytes of a model file, of which large weights may have been left out.

    Raises:
        InputError: If they are none, no ONNX model, one without outputs, or one of an opset that is not known.
    """
    if not content:
        raise InputError(f"cannot load {path}: it is empty; export the model again")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InputError(f"cannot load {path}: truncated or not an ONNX model; export the model again") from error
    if proto.ir_version < 1 or not proto.HasField("graph"):
        raise InputError(f"cannot load {path}: not an ONNX model, or one without a graph; export the model again")
    if not proto.graph.output:
        raise InputError(f"cannot load {path}: the graph has no outputs; export the model again")
    opsets = [opset.version for opset in proto.opset_import if opset.domain in DEFAULT_DOMAINS]
    if not proto.opset_import:
        raise InputError(f"cannot load {path}: it imports no opset; truncated, or export it again")
    if opsets and (len(set(opsets)) > 1 or not 1 <= opsets[0] <= onnx.defs.onnx_opset_version()):
        found = f"opset {' and '.join(map(str, opsets))}, known are 1 to {onnx.defs.onnx_opset_version()}"
        raise InputError(f"cannot load {path}: it is of {found}; export it with opset_version=18")
    return proto
