"""Weights as int8: one scale for each column of a product's weight, or for each row of a table."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["columns", "ends", "rows", "steps"]

_LARGEST = 127
"""The range is symmetric, so -128 is never used."""

# 255 · 128 fits into 16 bits, 255 · 129 does not. The hair less keeps two numbers that are both rounded up within 128.
_LARGEST_PAIR = 128
_PAIR = 127.99

_MOST_STEPS = 255
"""Steps between 0 and the largest number of a column that was rounded to 8 bits, wherever its zero point was."""

_MOST_SHARE = 8
"""How many steps two numbers of a sample may be apart that are nearest to each other."""

_FEW = 32
"""Rows that tell whether a column may lie on steps at all, before all of it is looked at."""

_OFF = 2e-4
"""How far a multiple of a step may lie off: numbers of 24 bits, up to 255 steps, and a product or two behind them."""


def columns(
    weight: np.ndarray, *, narrow: bool = False, step: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Quantise the weight of a product symmetrically, each column to a scale of its own.

    Args:
        weight: float32 [I, O].
        narrow: Whether to make scales coarser by as much as it takes that no two neighbours in a column, times any two
            inputs of 0 to 255, add up to more than 16 bits hold. At worst half of the range is left, ±64.
        step: What `steps` returns for it, if that is at hand.

    Returns:
        int8 [I, O] and float32 [O]. A column that lies on steps which fit keeps them, and loses nothing.
    """
    scale = np.abs(weight).max(axis=0, initial=0) / _LARGEST
    if narrow:
        scale = np.maximum(scale, _pairs(weight).max(axis=0, initial=0) / _PAIR)
    step = steps(weight) if step is None else step
    on_steps = np.flatnonzero(step)
    kept = on_steps[_fits(weight[:, on_steps], step[on_steps], narrow)]
    scale[kept] = step[kept]
    scale = _usable(scale)
    return _rounded(weight, scale), scale


def rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a table, float32 [R, W], symmetrically, each row to a scale of its own: int8 [R, W], float32 [R, 1]."""
    stored, scale = columns(table.T)
    return np.ascontiguousarray(stored.T), scale[:, None]


def steps(weight: np.ndarray) -> np.ndarray:
    """Return the largest step of which each column of a weight holds multiples only, [O], or 0 where there is none.

    A weight that was once rounded to 8 bits or fewer, and became floats again, lies on such steps. They are found from
    the numbers alone, since neither names nor notes survive all that may happen to a weight in between.

    Args:
        weight: float32 [I, O], O columns.
    """
    few = np.sort(np.abs(weight[:: max(1, len(weight) // _FEW)]), axis=0).astype(np.float64)
    largest = few.max(axis=0, initial=0)
    gaps = np.diff(few, axis=0, prepend=0)
    gap = np.where(gaps > largest / _MOST_STEPS / 2, gaps, np.inf).min(axis=0, initial=np.inf)
    step = np.zeros(weight.shape[1], np.float32)
    for share in range(_MOST_SHARE, 0, -1):  # the largest last
        found = _multiples(few, largest, gap / share)
        step = np.where(found > 0, found, step).astype(np.float32)
    chosen = np.flatnonzero(step)
    part = weight[:, chosen]
    step[chosen] = _multiples(part, np.abs(part).max(axis=0, initial=0), step[chosen])
    return step


def ends(dtype: np.dtype) -> tuple[int, int] | None:
    """Return the least and the largest number of an integer type, those of 4 bits among them; None of any other."""
    known = ir.DataType.from_numpy(dtype)
    return (int(known.min), int(known.max)) if known.is_integer() else None


def _multiples(numbers: np.ndarray, largest: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return `step` for each column, made exact by its largest number, or 0 where others are no multiples of it."""
    count = np.rint(largest / step)
    able = np.isfinite(step) & (count > 0) & (count <= _MOST_STEPS)
    exact = np.where(able, largest / np.where(able, count, 1), 1)
    parts = numbers / exact
    return np.where(able & (np.abs(parts - np.rint(parts)).max(axis=0, initial=0) < _OFF), exact, 0)


def _fits(weight: np.ndarray, step: np.ndarray, narrow: bool) -> np.ndarray:
    """Return for each column that lies on steps whether they can be its scale, bool [O]."""
    numbers = np.rint(weight / step)
    fits = np.abs(numbers).max(axis=0, initial=0) <= _LARGEST
    if narrow:
        fits &= _pairs(numbers).max(axis=0, initial=0) <= _LARGEST_PAIR
    return np.asarray(fits)


def _pairs(weight: np.ndarray) -> np.ndarray:
    """Return how large rows 2i and 2i + 1 are together, [I // 2, O].

    Inputs are never negative, so that weights of one sign add up and those of two do not.
    """
    even, odd = weight[: len(weight) // 2 * 2 : 2], weight[1::2]
    up = np.maximum(even, 0) + np.maximum(odd, 0)
    down = np.minimum(even, 0) + np.minimum(odd, 0)
    return np.asarray(np.maximum(up, -down))


def _usable(scale: np.ndarray) -> np.ndarray:
    """Return `scale` as float32, with 1 where nothing but zeros, or numbers next to it, is to be scaled."""
    return np.where(scale >= np.finfo(np.float32).tiny, scale, 1).astype(np.float32)


def _rounded(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(array / scale), -_LARGEST, _LARGEST), np.int8)
