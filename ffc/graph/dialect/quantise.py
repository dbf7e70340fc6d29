"""Weights as int8: one scale for each column of a product's weight, or for each row of a table."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["columns", "ends", "rows"]

_LARGEST = 127
"""The range is symmetric, so -128 is never used."""

# 255 · 128 fits into 16 bits, 255 · 129 does not. The hair less keeps two numbers that are both rounded up within 128.
_PAIR = 127.99


def columns(weight: np.ndarray, *, narrow: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Quantise the weight of a product symmetrically, each column to a scale of its own.

    Args:
        weight: float32 [I, O].
        narrow: Whether to make scales coarser by as much as it takes that no two neighbours in a column, times any two
            inputs of 0 to 255, add up to more than 16 bits hold. At worst half of the range is left, ±64.

    Returns:
        int8 [I, O] and float32 [O].
    """
    scale = np.abs(weight).max(axis=0, initial=0) / _LARGEST
    if narrow:
        scale = np.maximum(scale, _pairs(weight).max(axis=0, initial=0))
    scale = _usable(scale)
    return _rounded(weight, scale), scale


def rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a table, float32 [R, W], symmetrically, each row to a scale of its own: int8 [R, W], float32 [R, 1]."""
    scale = _usable(np.abs(table).max(axis=1, keepdims=True, initial=0) / _LARGEST)
    return _rounded(table, scale), scale


def ends(dtype: np.dtype) -> tuple[int, int] | None:
    """Return the least and the largest number of an integer type, those of 4 bits among them; None of any other."""
    known = ir.DataType.from_numpy(dtype)
    return (int(known.min), int(known.max)) if known.is_integer() else None


def _pairs(weight: np.ndarray) -> np.ndarray:
    """Return the least scale at which rows 2i and 2i + 1 cannot overflow together, [I // 2, O].

    Inputs are never negative, so that weights of one sign add up and those of two do not.
    """
    even, odd = weight[: len(weight) // 2 * 2 : 2] / _PAIR, weight[1::2] / _PAIR
    up = np.maximum(even, 0) + np.maximum(odd, 0)
    down = np.minimum(even, 0) + np.minimum(odd, 0)
    return np.asarray(np.maximum(up, -down))


def _usable(scale: np.ndarray) -> np.ndarray:
    """Return `scale` as float32, with 1 where nothing but zeros, or numbers next to it, is to be scaled."""
    return np.where(scale >= np.finfo(np.float32).tiny, scale, 1).astype(np.float32)


def _rounded(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.rint(array / scale), -_LARGEST, _LARGEST), np.int8)
