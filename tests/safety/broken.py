"""The table of broken and hostile inputs: what a row is, and what rows are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from onnx import numpy_helper

from tests import graphs

Prepare = Callable[[Path], "list[str] | None"]


@dataclass(frozen=True)
class Row:
    """One broken input.

    Attributes:
        name: What is wrong.
        prepare: Writes ``m.onnx`` and what else there is into a folder; may return arguments instead of the usual ones.
        code: The exit code.
        words: What the message says.
        quick: Whether it must be refused within a second of work.
        file_size: Bytes that a file may have, as on a full disk.
    """

    name: str
    prepare: Prepare
    code: int
    words: str
    quick: bool = False
    file_size: int | None = None


@dataclass
class _Table:
    rows: list[Row] = field(default_factory=list)

    def row(self, name: str, code: int, words: str, **options: object) -> Callable[[Prepare], Prepare]:
        def add(prepare: Prepare) -> Prepare:
            self.rows.append(Row(name, prepare, code, words, **options))  # type: ignore[arg-type]
            return prepare

        return add


TABLE = _Table()
row = TABLE.row
_ENCODER: list[bytes] = []


def encoder() -> bytes:
    """Return a sound model."""
    if not _ENCODER:
        _ENCODER.append(ir.to_proto(graphs.encoder()).SerializeToString())
    return _ENCODER[0]


def put(folder: Path, content: bytes | onnx.ModelProto, name: str = "m.onnx") -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.SerializeToString())


def parsed(body: str, *, inputs: str = "float[4] x", outputs: str = "float[a] y", opset: int = 20) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


def with_weight(array: np.ndarray, body: str = "y = Mul(x, w)") -> onnx.ModelProto:
    proto = parsed(body)
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return proto
