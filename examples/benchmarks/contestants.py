"""The ways to make an exported encoder faster that are measured against each other, each from one file to another."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXPORT = "export"
PEER = "ort optimizer, int8"

Build = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Contestant:
    """One way from an exported model to the model that is served.

    Attributes:
        name: What the table calls it.
        build: Reads the first path, writes the second, raises whatever it likes when it cannot.
    """

    name: str
    build: Build


def export(source: Path, out: Path) -> None:
    """Leave the model as the exporter wrote it."""
    shutil.copy(source, out)


def ort_optimized(source: Path, out: Path) -> None:
    """Run onnxruntime's transformers optimizer, which finds the head count and the width by itself."""
    from onnxruntime.transformers.optimizer import optimize_model

    optimize_model(str(source), model_type="bert", num_heads=0, hidden_size=0).save_model_to_file(str(out))


def ort_int8(source: Path, out: Path) -> None:
    """Run onnxruntime's dynamic quantization, int8 weights per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of a missing pre-processing on every model
    try:
        quantize_dynamic(source, out, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(disabled)


def ort_optimized_int8(source: Path, out: Path) -> None:
    """Run both of onnxruntime's tools, in the order its documentation advises."""
    fused = out.with_suffix(".fused.onnx")
    ort_optimized(source, fused)
    ort_int8(fused, out)


def ort_optimized_int8_tensor(source: Path, out: Path) -> None:
    """Run both of onnxruntime's tools with their defaults, one scale a weight."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fused = out.with_suffix(".fused.onnx")
    ort_optimized(source, fused)
    quantize_dynamic(fused, out, weight_type=QuantType.QInt8)


def compiled(passes: str) -> Build:
    """Return a build that runs the compiler with a chain of passes, such as ``"fuse,int8"``."""

    def build(source: Path, out: Path) -> None:
        import ffc

        ffc.compile(source, passes=passes, out=out)

    return build


CONTESTANTS = (
    Contestant(EXPORT, export),
    Contestant("ort int8", ort_int8),
    Contestant(PEER, ort_optimized_int8),
    Contestant("ffc fuse", compiled("fuse")),
    Contestant("ffc fuse,int8", compiled("fuse,int8")),
    Contestant("ffc fuse,int8 tensor", compiled("fuse,int8{rows=}")),
)
