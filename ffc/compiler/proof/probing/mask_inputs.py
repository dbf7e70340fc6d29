"""The ways in which an input can say which tokens are real: as a mask of either kind, or as where they begin or end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

__all__ = ["FLOAT_FORMS", "INTERVALS", "LEFT_HIDDEN", "MASKED", "MASKS", "Form", "MaskInput"]

MASKED = -10_000.0
"""What an additive mask holds at padding: far below any score, and finite in half precision."""

_LEAST_REAL = -1000.0
"""An additive mask of a user's own holds less than this at padding; position biases hold more."""


class Form(Enum):
    """How numbers say which tokens are real."""

    KEPT = "1 is real"
    HIDDEN = "1 is padding"
    ADDED = "0 is real, padding is far below"
    START = "the first"
    TAIL = "how many come last"
    LENGTH = "how many come first"
    LAST = "the last"
    PADDING = "how many come last and are padding"


MASKS = (Form.KEPT, Form.HIDDEN)
FLOAT_FORMS = (*MASKS, Form.ADDED)
LEFT_HIDDEN = (Form.START, Form.TAIL)
"""These hide what comes first."""
INTERVALS = (*LEFT_HIDDEN, Form.LENGTH, Form.LAST, Form.PADDING)
"""In the order in which they are tried: what hides on the right can be taken for another in a causal model."""


@dataclass(frozen=True)
class MaskInput:
    """An input that says which tokens are real.

    A mask is [B, S] or one per query, [B, S, S], [B, 1, S, S] or [B, 1, 1, S], also with heads; or the same for all
    rows, [S, S], [1, S] or [S]. Where tokens begin or end is [B] or [B, 1].

    Attributes:
        name: The input.
        form: How it says it.
        by_row: Whether its first axis counts rows.
    """

    name: str
    form: Form
    by_row: bool = True

    def write(
        self,
        mask: np.ndarray,
        shape: tuple[int, ...],
        dtype: np.dtype,
        random: np.random.Generator | None = None,
        *,
        blind: bool = False,
        low: float = MASKED,
    ) -> np.ndarray:
        """Return what says `mask`, bool [B, S], as nearly as the form can: without holes, or the same for all rows.

        Args:
            mask: Which tokens are real.
            shape: The shape of the input.
            dtype: Its type.
            random: Lets queries see parts of the real tokens, the first always, where each has a mask of its own.
            blind: Whether one query of each row sees nothing, where each has a mask of its own.
            low: What is added at padding; what is of another type than float32 holds `MASKED`.
        """
        if not self.by_row:
            mask = np.asarray(mask.all(axis=0, keepdims=True))
            mask = mask if mask.any() else ~mask
        if self.form in INTERVALS:
            first, last = mask.argmax(axis=1), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
            length = np.where(mask.any(axis=1), last + 1, 1)
            places = {
                Form.START: first, Form.TAIL: mask.shape[1] - first,
                Form.LENGTH: length, Form.LAST: last, Form.PADDING: mask.shape[1] - length,
            }  # fmt: skip
            return np.broadcast_to(places[self.form].reshape(-1, *[1] * (len(shape) - 1)), shape).astype(dtype)
        shown = np.array(_spread(mask, self._whole(shape), random).reshape(shape))
        if blind and self.by_query(shape):
            shown[..., shape[-2] // 2, :] = False
        if self.form is Form.ADDED:
            return np.where(shown, 0.0, low if dtype == np.float32 else MASKED).astype(dtype)
        return (shown if self.form is Form.KEPT else ~shown).astype(dtype)

    def read(self, array: np.ndarray, batch: int, length: int) -> np.ndarray:
        """Return which tokens are real, bool [batch, length]: of a mask per query those that any query sees."""
        if self.form in INTERVALS:
            places, told = np.arange(length), array.reshape(-1, 1)
            real = {
                Form.START: places >= told, Form.TAIL: places >= length - told,
                Form.LENGTH: places < told, Form.LAST: places <= told, Form.PADDING: places < length - told,
            }[self.form]  # fmt: skip
        else:
            real = _seen(_kept(array.reshape(self._whole(array.shape)), self.form))
        if len(real) not in (1, batch) and real.size and len(real) % batch == 0:  # a mask for each head
            real = np.asarray(real.reshape(batch, len(real) // batch, real.shape[-1]).any(axis=1))
        real = real[:, -length:]
        if len(real) not in (1, batch) or real.shape[1] != length:  # which the model will refuse
            return np.ones((batch, length), np.bool_)
        return np.array(np.broadcast_to(real, (batch, length)))

    def by_query(self, shape: tuple[int, ...]) -> bool:
        """Whether an input of `shape` says for each query what it sees."""
        return self.form not in INTERVALS and len(self._whole(shape)) > 2 and shape[-2] > 1

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape whose first axis counts rows, or masks of heads."""
        return shape if self.by_row or (len(shape) > 1 and shape[0] == 1) else (1, *shape)


def _spread(mask: np.ndarray, shape: tuple[int, ...], random: np.random.Generator | None) -> np.ndarray:
    """Spread a mask [B, S] over `shape`, [B, ..., S] or [B · heads, ..., S]."""
    mask = np.repeat(mask, max(1, shape[0] // max(1, len(mask))), axis=0)
    keys = mask.reshape(len(mask), *[1] * (len(shape) - 2), mask.shape[1])
    shown = np.broadcast_to(keys, shape)
    if random is None or len(shape) == 2 or shape[-2] == 1:
        return np.asarray(shown)
    first = np.arange(mask.shape[1]) == mask.argmax(axis=1)[:, None]
    return np.asarray(shown & (first.reshape(keys.shape) | (random.random(shape) < 0.7)))


def _kept(array: np.ndarray, form: Form) -> np.ndarray:
    if form is Form.HIDDEN:
        return np.asarray(array == 0)
    if form is Form.ADDED or (array.dtype.kind == "f" and array.size and not array.max() > 0):
        return np.asarray(array > _LEAST_REAL)  # nothing is above zero: it is added to the scores
    return np.asarray(array > 0)


def _seen(kept: np.ndarray) -> np.ndarray:
    """Return the tokens that any query of a row sees, [B, S]; what a query sees itself does not matter."""
    return np.asarray(kept.any(axis=tuple(range(1, kept.ndim - 1))))
