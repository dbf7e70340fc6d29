"""Logits of a model on rows: of a torch module, or of an ONNX file in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from ffc.errors import InputError, one_line
from ffc.progress import Tell
from ffc.train.checks import check_rows
from ffc.train.models.pretrained import read_logits, taken

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["batches", "evaluating", "feeds", "predict", "predict_onnx", "session"]


def predict(
    model: nn.Module, rows: Rows, collator: Collator, *, batch_size: int = 64, progress: Tell | None = None
) -> np.ndarray:
    """Return the logits of a torch model, on the device that it is on.

    Args:
        model: A classifier; which of its modules were training is put back afterwards.
        rows: What to classify.
        collator: Makes a batch of some rows.
        batch_size: Rows at a time; those of similar length go together.
        progress: Told after each batch.

    Returns:
        float32 [rows, labels], in the order of the rows.

    Raises:
        UsageError: If a row is longer than the model takes.
        InputError: If there are no rows, or one holds a token that the model does not know.
        CannotApplyError: If it is no classifier.
    """
    check_rows(rows, model)

    def run(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        found: np.ndarray = read_logits(model, model(**taken(model, batch))).float().cpu().numpy()
        return found

    with evaluating(model), torch.no_grad():
        return _in_order(run, rows, collator, batch_size, progress)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Leave out dropout until the context ends, which puts the mode of every module back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def predict_onnx(
    path: Path, rows: Rows, collator: Collator, *, batch_size: int = 64, progress: Tell | None = None
) -> np.ndarray:
    """Return the logits of an ONNX model: its output `logits`, or its first.

    Args:
        path: The file.
        rows: What to classify.
        collator: Makes a batch of some rows.
        batch_size: Rows at a time; those of similar length go together.
        progress: Told after each batch.

    Returns:
        float32 [rows, labels], in the order of the rows.

    Raises:
        InputError: If there are no rows, the file is no model that runs on them, or it takes an input that they lack.
    """
    opened = session(path)
    outputs = [output.name for output in opened.get_outputs()]
    wanted = "logits" if "logits" in outputs else outputs[0]

    def run(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        given = feeds(opened, batch)
        try:
            return np.asarray(opened.run([wanted], given)[0], dtype=np.float32)
        except Exception as error:  # onnxruntime's own classes share no other base
            sizes = "x".join(map(str, batch["input_ids"].shape))
            raise InputError(f"the model does not run on rows {sizes}: {one_line(str(error), 300)}") from error

    return _in_order(run, rows, collator, batch_size, progress)


def session(path: Path, *, threads: int = 0) -> ort.InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: The file.
        threads: Threads within an operator; 0 leaves it to onnxruntime.

    Raises:
        InputError: If the file is missing, or onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no other base
        raise InputError(f"onnxruntime cannot load {path}: {one_line(str(error), 300)}") from error


def batches(
    rows: Rows, collator: Collator, batch_size: int, progress: Tell | None = None
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield each batch with the numbers of its rows, longest rows first: what does not fit in memory fails at once.

    Once a batch is done with, `progress` is told how many rows are.
    """
    order: list[int] = np.argsort(-np.array(rows.lengths), kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield chosen, collator([rows[index] for index in chosen])
        if progress is not None:
            done = start + len(chosen)
            progress(f"{done} of {len(order)} rows", done, len(order))


def _in_order(
    run: Callable[[Mapping[str, torch.Tensor]], np.ndarray],
    rows: Rows,
    collator: Collator,
    batch_size: int,
    progress: Tell | None,
) -> np.ndarray:
    """Run over all rows in batches of similar length and return the results in the order of the rows."""
    if not len(rows):
        raise InputError("there are no rows to predict on; give at least one")
    found = [(chosen, run(batch)) for chosen, batch in batches(rows, collator, batch_size, progress)]
    result = np.empty((len(rows), *found[0][1].shape[1:]), np.float32)
    for chosen, logits in found:
        result[chosen] = logits
    return result


def feeds(opened: ort.InferenceSession, batch: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return just the inputs that a session has, in its types; rows without token types are of type 0 throughout.

    Raises:
        InputError: If the rows lack one.
    """
    found: dict[str, Any] = {}
    for wanted in opened.get_inputs():
        if wanted.name in batch:
            array = batch[wanted.name].numpy()
        elif wanted.name == "token_type_ids":
            array = np.zeros_like(batch["input_ids"].numpy())
        else:
            raise InputError(f"the model takes an input '{wanted.name}', the rows have {', '.join(sorted(batch))}")
        found[wanted.name] = array.astype(_TYPES.get(wanted.type, array.dtype), copy=False)
    return found


_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
}
