"""Models ready to answer one query after another, as they are timed: in PyTorch, and as ONNX in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ffc.train.evaluate import session
from ffc.train.models.pretrained import takes

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["Answer", "onnx_answer", "torch_answer"]

Answer = Callable[[int], object]
"""Answers the query of the number given."""


def torch_answer(model: nn.Module, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return a PyTorch model as a system, in evaluation mode, on the processor, without gradients.

    Args:
        model: The model, which is moved to the processor.
        rows: The encoded rows.
        collator: Pads, to the length of the row itself or to a fixed one.
        chosen: Number of the row that each query asks about.
    """
    model = model.eval().to("cpu")
    names = takes(model)
    feeds = [_feed(rows, collator, row, names) for row in chosen]

    def answer(query: int) -> object:
        with torch.inference_mode():
            return model(**feeds[query])

    return answer


def onnx_answer(path: Path, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return an ONNX file as a system, in stock onnxruntime on one thread.

    Args:
        path: The file.
        rows: The encoded rows.
        collator: Pads, to the length of the row itself or to a fixed one.
        chosen: Number of the row that each query asks about.

    Raises:
        InputError: If onnxruntime cannot load it.
    """
    opened = session(path, threads=1)
    names = [each.name for each in opened.get_inputs()]
    feeds = [{name: value.numpy() for name, value in _feed(rows, collator, row, names).items()} for row in chosen]
    return lambda query: opened.run(None, feeds[query])


def _feed(rows: Rows, collator: Collator, row: int, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return what a model is given for one row, by name: int64 [1, length], spans [1, spans, 2]."""
    batch = collator([rows[row]])
    return {name: batch[name] for name in names if name in batch}
