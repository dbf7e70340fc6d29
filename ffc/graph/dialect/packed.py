"""Weights of a few bits, packed into bytes, with a scale for each block of a row."""

from __future__ import annotations

import numpy as np

__all__ = ["blocks", "unpacked"]


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
