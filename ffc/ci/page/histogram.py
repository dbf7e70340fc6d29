"""How the elements of a weight are spread, from a sample of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["spread"]

_FEWEST = 64
_BINS = 32
_SAMPLE = 65_536


def spread(tensor: ir.TensorProtocol) -> Mapping[str, object]:
    """Return how the elements of a tensor are spread, nothing where there are few or they are no numbers.

    Returns:
        ``bins``, the number of elements in each of 32 equal intervals from ``low`` to ``high``; ``mean``; ``zeros``, a
        share; ``strange``, the number of elements that are not finite; and ``of``, the number of elements looked at:
        all of a small tensor, up to 65,536 at equal distances of a larger one. The other values are of those alone.
    """
    if tensor.size < _FEWEST:
        return {}
    elements = _sample(tensor.numpy())
    if elements.dtype.kind in "bcOSU":
        return {}
    elements = elements.astype(np.float64)
    finite = elements[np.isfinite(elements)]
    strange = {"strange": int(elements.size - finite.size)} if elements.size > finite.size else {}
    if not finite.size:
        return {"of": int(elements.size), **strange}
    low, high = float(finite.min()), float(finite.max())
    return {
        "of": int(elements.size),
        "low": _short(low),
        "high": _short(high),
        "mean": _short(float(finite.mean())),
        "zeros": _short(float(np.mean(elements == 0))),
        "bins": _counts(finite, low, high),
        **strange,
    }


def _sample(array: np.ndarray) -> np.ndarray:
    """Take elements at equal distances, a distance that meets all columns where there are several."""
    flat = array.reshape(-1)
    step = -(-flat.size // _SAMPLE)
    while step > 1 and math.gcd(step, array.shape[-1]) > 1:
        step += 1
    return flat[::step]


def _counts(finite: np.ndarray, low: float, high: float) -> list[int]:
    if low == high or not math.isfinite(high - low):
        return [int(finite.size)] if low == high else []
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, high))
    return [int(count) for count in counts]


def _short(number: float) -> float:
    """Keep what a person reads, to keep the page small."""
    return float(f"{number:.5g}")
