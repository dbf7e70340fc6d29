"""Saves a model and is killed on the way: ``python -m tests.safety.killed PATH EXTERNAL STEP``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ffc.graph import files
from ffc.graph.files import publish

STEPS = {False: 3, True: 6}
"""How many calls of fsync and replace a save makes, inline and with external data: each file, its place, its folder."""

LARGE = 1 << 20


def model(scale: float) -> ir.Model:
    """Return a model with one large weight."""
    array = np.full(LARGE // 4, scale, np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([LARGE // 4]))
    w = ir.Value(name="w", type=x.type, shape=x.shape, const_value=ir.Tensor(array, name="w"))
    node = ir.node("Mul", [x, w])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", x.type, x.shape
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20}), ir_version=10)


def weight(found: ir.Model) -> np.ndarray:
    """Return that weight."""
    tensor = found.graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly(call: Callable[..., Any], calls: list[None], step: int) -> Callable[..., Any]:
    def deadly(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) - 1 == step:
            _die()
        return call(*args, **options)

    return deadly


def _half(pieces: Iterable[publish.Piece]) -> Iterable[publish.Piece]:
    for piece in pieces:
        yield piece[: len(piece) // 2]
        if len(piece) > LARGE // 2:
            _die()


def main() -> None:
    """Save, until killed."""
    path, external, step = sys.argv[1:]
    if step == "write":
        write = publish.Staging.write
        publish.Staging.write = lambda self, pieces, path: write(self, _half(pieces), path)  # type: ignore[method-assign]
    else:
        calls: list[None] = []
        os.fsync = _deadly(os.fsync, calls, int(step))
        os.replace = _deadly(os.replace, calls, int(step))
    files.save(model(2.0), Path(path), external=bool(int(external)))


if __name__ == "__main__":
    main()
