"""The blocks of a model, however it is given."""

from __future__ import annotations

from ffc.graph import files
from ffc.graph.blocks.finder import find
from ffc.graph.blocks.structure import Blocks
from ffc.graph.files import ModelLike

__all__ = ["find_blocks"]


def find_blocks(model: ModelLike) -> Blocks:
    """Find attention, feed-forward networks, norms, embeddings and the head of a model.

    Args:
        model: As `ffc.load` takes it, raw from an exporter or between passes. The blocks of an ``onnx_ir.Model`` are
            made of its own nodes; it is not changed.

    Returns:
        The blocks; what looked like one and is none is listed with the reason.

    Raises:
        UsageError, InputError: As `ffc.load` does.
    """
    held = files.in_memory(model)
    return find(files.load(model, to_run=False) if held is None else held)
