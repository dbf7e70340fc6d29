"""How far apart two weights are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ffc.ci.matching.snapshot import Weight

__all__ = ["described", "distance"]

_SHOWN = 40


def described(weight: Weight) -> str:
    """Return a weight as text: type and elements of a small one, type and the start of the hash of a large one."""
    if weight.content and not weight.is_large:
        return f"{weight.type}{{{weight.content[:_SHOWN]}}}"
    return f"{weight.type}#{weight.content[:8]}" if weight.content else weight.type


def distance(was: Weight, now: Weight) -> Mapping[str, float]:
    """Return how far two tensors of one shape are apart; nothing where they are not numbers or not at hand.

    Returns:
        ``largest``, the largest difference of an element, and ``relative``, the norm of the difference over that of
        the former.
    """
    if was.tensor is None or now.tensor is None:
        return {}
    first, second = was.tensor.numpy(), now.tensor.numpy()
    if first.shape != second.shape or first.dtype.kind not in "fiub" or second.dtype.kind not in "fiub":
        return {}
    first, second = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    difference = second - first
    with np.errstate(all="ignore"):
        largest = float(np.abs(difference).max(initial=0.0))
        norm = float(np.linalg.norm(first))
        relative = float(np.linalg.norm(difference)) / norm if norm else float(largest > 0)
    return {"largest": largest, "relative": relative}
