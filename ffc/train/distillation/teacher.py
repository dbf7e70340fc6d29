"""What a teacher says about rows that come again every epoch: run once, kept in memory and in a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ffc.errors import UsageError
from ffc.graph.files import publish
from ffc.train.distillation.objective import Batch, Lesson
from ffc.train.evaluate import predict
from ffc.train.models.digest import digest
from ffc.train.models.pretrained import takes

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["CachedTeacher", "cached_logits"]


class CachedTeacher:
    """A teacher whose logits are known: it looks them up by the row numbers of a batch."""

    def __init__(self, logits: np.ndarray, rows: Rows, device: torch.device) -> None:
        """Keep the logits, float32 [n, C] in the order of the rows, on the device where training runs.

        Raises:
            UsageError: If two rows have the same number, by which they are looked up.
        """
        numbers = torch.tensor([row["index"] for row in rows])
        if len(torch.unique(numbers)) != len(numbers):
            raise UsageError(
                "two training rows have the same `index`, by which the teacher's logits are kept; number anew"
            )
        table = torch.empty(int(numbers.max()) + 1, logits.shape[1])
        table[numbers] = torch.from_numpy(logits)
        self._logits: Tensor = table.to(device)

    def __call__(self, batch: Batch) -> Lesson:
        """Return the logits of the rows of a batch."""
        return Lesson(self._logits[batch["index"]])

    def close(self) -> None:
        """Do nothing: no model is held."""


def cached_logits(model: nn.Module, rows: Rows, collator: Collator, folder: Path) -> np.ndarray:
    """Return the logits of a teacher on rows, float32 [rows, C] in their order.

    They come from a file ``teacher-DIGEST.npz`` of the folder if they are there; otherwise the teacher is run and the
    file written.

    Raises:
        UsageError: If the folder cannot be written.
        InputError: As `ffc.train.evaluate.predict`.
    """
    path = folder / f"teacher-{_digest(model, rows)[:16]}.npz"
    # A file that is damaged is as good as none: the teacher runs again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        kept: np.ndarray = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)["logits"]
        if kept.shape[0] == len(rows) and kept.dtype == np.float32:
            return kept
    logits = predict(model, rows, collator)
    content = io.BytesIO()
    np.savez(content, logits=logits)
    with publish.asked_for(f"{path}", "choose another folder"):
        publish.make_folder(folder)
        publish.write(path, content.getvalue())
    return logits


def _digest(model: nn.Module, rows: Rows) -> str:
    """Return the sha256, in hex, of all that the logits of a model on rows depend on."""
    total = hashlib.sha256(repr(model).encode())  # activations and sizes, which the weights do not tell
    total.update(digest(model).encode())
    names = takes(model)
    for row in rows:
        total.update(repr([row.get(name) for name in names]).encode())
    return total.hexdigest()
