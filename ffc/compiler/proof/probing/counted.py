"""What counts of an output: its real tokens, its rows, or all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Counted"]


@dataclass(frozen=True, eq=False)
class Counted:
    """What counts of one output on one probe.

    Attributes:
        mask: Which tokens are real, bool [B, S], None where all of the output counts.
        axis: Where the tokens lie, as `token_axes` tells; -1 where that goes by sizes.
    """

    mask: np.ndarray | None
    axis: int = -1

    def token_axis(self, shape: tuple[int, ...]) -> int | None:
        """Return the axis of the tokens of an output of `shape`, 0 if it counts by row, None if all of it counts."""
        if self.mask is None or not shape or shape[0] != self.mask.shape[0]:
            return None
        if self.axis < 0:
            return 1 if len(shape) > 2 and shape[1] == self.mask.shape[1] else 0
        return self.axis if self.axis < len(shape) and shape[self.axis] == self.mask.shape[1] else 0

    def pick(self, array: np.ndarray) -> np.ndarray:
        """Return real tokens of [B, S, ...], rows with any of [B, ...], else everything."""
        axis = self.token_axis(array.shape)
        if self.mask is None or axis is None:
            return array
        if axis:
            return np.asarray(np.moveaxis(array, axis, 1)[self.mask])
        return np.asarray(array[self.mask.any(axis=1)])

    def scores(self, array: np.ndarray, padding: float) -> np.ndarray:
        """Return what counts as rows of numbers; scores of tokens, [B, S], keep their rows, `padding` where padded."""
        if array.ndim == 2 and self.mask is not None and self.token_axis(array.shape) == 1:
            return np.asarray(np.where(self.mask, array, padding)[self.mask.any(axis=1)])
        real = self.pick(array)  # its last axis is another than that of `array` where tokens lie last
        return real.reshape(-1, real.shape[-1] if real.ndim else 1)
