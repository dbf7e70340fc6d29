"""The plan of a model file: from its scores, or from the norms of its weights."""

from __future__ import annotations

import os

import onnx_ir as ir

from ffc.errors import CannotApplyError, UsageError, nearest
from ffc.graph.blocks.finder import find
from ffc.graph.files import load
from ffc.pruning import amount as amounts
from ffc.pruning.importance import Importance
from ffc.pruning.plan import Plan, stamp
from ffc.pruning.score import METHODS, by_norm
from ffc.pruning.sizes import sizes
from ffc.settings.amount import Amount

__all__ = ["given_scores", "make_plan"]


def given_scores(importance: str | os.PathLike[str] | None, by: str | None) -> Importance | None:
    """Return the scores of a file, or None where the model is scored without data, `by` ``norm``.

    Raises:
        UsageError: If there is no source of scores or two, or the way is not known.
        InputError: If the file is broken.
    """
    if importance is None and by is None:
        raise UsageError(
            "a plan needs scores: `ffc plan MODEL --by norm` takes them from the weights, and --importance from a file "
            "that `ffc score` makes"
        )
    if importance is not None and by is not None:
        raise UsageError(f"two sources of scores, --importance {importance} and --by {by}; give one")
    if by is not None and by not in METHODS:
        raise UsageError(f"cannot score by '{by}'{nearest(by, METHODS)}")
    return None if importance is None else Importance.load(importance)


def make_plan(
    model: str | os.PathLike[str] | ir.Model,
    amount: Amount,
    *,
    importance: str | os.PathLike[str] | None = None,
    by: str | None = None,
) -> Plan:
    """Make a plan for an ONNX model, with fingerprints.

    Args:
        model: The model or its file, as exported or later. Blocks that `clean` and `fuse` bring to light, as of old
            opsets, are found after these alone.
        amount: How much to keep.
        importance: An importance file.
        by: A way to score the model without data instead: ``norm``.

    Raises:
        UsageError: If there is not exactly one source of scores, or an amount cannot be kept.
        InputError: If a file is broken.
        CannotApplyError: If no layers are found in the model, or the importance is of another shape or other weights.
    """
    scores = given_scores(importance, by)
    blocks = find(model if isinstance(model, ir.Model) else load(model))
    scores = scores or by_norm(blocks)
    if reason := scores.mismatch(blocks):
        raise CannotApplyError(f"{importance} was made for another model: {reason}")
    return stamp(amounts.plan(amount, scores, sizes(blocks), blocks), blocks)
