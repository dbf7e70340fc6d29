"""Weights of a few bits, packed into bytes, with a scale for each block of a row."""

from __future__ import annotations

import numpy as np

__all__ = ["blocks", "of_table", "unpacked"]

_FP4 = (0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
_NF4 = (
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
)  # fmt: skip
_TABLES = (np.array([*_FP4, *(-number for number in _FP4)], np.float32), np.array(_NF4, np.float32))
"""What bitsandbytes' four bits stand for (its functions.py): FP4 and NF4."""


def unpacked(array: np.ndarray, bits: int) -> np.ndarray:
    """Return the numbers in the bytes of `array`, uint8 [..., B], low bits first, as uint8 [..., B * 8 / bits]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (array[..., None] >> shifts & np.uint8(2**bits - 1)).reshape(*array.shape[:-1], -1)


def blocks(
    stored: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, sizes: tuple[int, int], bits: int, block_size: int
) -> np.ndarray:
    """Return a weight [R, W] that is stored row by row, each row in blocks with a scale of its own.

    Args:
        stored: uint8 that hold several numbers each, [R, ...], or a type of so many bits [R, W].
        scales: A float for each block, [R, blocks] or flat.
        zeros: What stands for zero in each block: packed as `stored` is, or numbers that are not; None for the middle
            of the range, or 0 where the type of `stored` has a sign.
        sizes: R and W.
        bits: Of a number, 2, 4 or 8.
        block_size: Numbers of a block; the last of a row may have fewer.
    """
    rows, width = sizes
    count = -(-width // block_size)
    packed = stored.dtype == np.uint8
    numbers = (unpacked(stored.reshape(rows, -1), bits) if packed else stored)[:, :width].astype(scales.dtype)
    middle = np.array(2 ** (bits - 1) if packed else 0, scales.dtype)
    if zeros is not None:
        whole = unpacked(zeros.reshape(rows, -1), bits) if zeros.dtype == np.uint8 else zeros.reshape(rows, -1)
        middle = _spread(whole[:, :count].astype(scales.dtype), block_size, width)
    return np.asarray((numbers - middle) * _spread(scales.reshape(rows, count), block_size, width))


def _spread(of_blocks: np.ndarray, block_size: int, width: int) -> np.ndarray:
    return np.repeat(of_blocks, block_size, axis=1)[:, :width]


def of_table(stored: np.ndarray, largest: np.ndarray, sizes: tuple[int, int], kind: int, block_size: int) -> np.ndarray:
    """Return a weight [R, W] of four bits a number, which look it up, in blocks with a largest magnitude each.

    Args:
        stored: uint8 that hold two numbers each, high bits first; rows follow one another without a gap.
        largest: A float for each block; blocks go on over the ends of rows.
        sizes: R and W.
        kind: 0 for FP4, 1 for NF4.
        block_size: Numbers of a block.
    """
    count = sizes[0] * sizes[1]
    places = np.stack([stored.reshape(-1) >> 4, stored.reshape(-1) & 15], axis=1).reshape(-1)[:count]
    numbers = _TABLES[kind].astype(largest.dtype)[places] * np.repeat(largest.reshape(-1), block_size)[:count]
    return np.asarray(numbers.reshape(sizes))
