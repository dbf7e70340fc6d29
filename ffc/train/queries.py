"""Models ready to answer one query after another, as they are timed: in PyTorch, and as ONNX in onnxruntime.

Each query asks about a row, whose number `chosen` gives; the collator pads it, to its own length or to a fixed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ffc.train.evaluate import feeds, session
from ffc.train.models.pretrained import taken

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["Answer", "onnx_answer", "torch_answer"]

Answer = Callable[[int], object]
"""Answers the query of the number given."""


def torch_answer(model: nn.Module, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return a PyTorch model as a system, in evaluation mode, moved to the processor, without gradients."""
    model = model.eval().to("cpu")
    given = [taken(model, collator([rows[row]])) for row in chosen]

    def answer(query: int) -> object:
        with torch.inference_mode():
            return model(**given[query])

    return answer


def onnx_answer(path: Path, rows: Rows, collator: Collator, chosen: Sequence[int]) -> Answer:
    """Return an ONNX file as a system, in stock onnxruntime on one thread.

    Raises:
        InputError: If onnxruntime cannot load it, or it takes an input that the rows lack.
    """
    opened = session(path, threads=1)
    given = [feeds(opened, collator([rows[row]])) for row in chosen]
    return lambda query: opened.run(None, given[query])
