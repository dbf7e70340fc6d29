"""The order in which training visits its rows: shuffled, with rows of similar length in the same batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

__all__ = ["LengthSampler"]

_BATCHES = 50
"""Batches among which rows are sorted by length: enough to leave little padding, few enough to mix well."""


class LengthSampler(Sampler[int]):
    """Yields all rows once an epoch, those of similar length side by side, the batches in random order.

    Transformers' own sampler leaves the batches of each group from longest to shortest; here they are shuffled. The
    generator is its own, so that all processes agree on the order whatever else they draw, and two students trained
    with one seed see the same rows in the same order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Remember how many tokens each row has, and how many rows one step sees, in all processes and parts."""
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rows = torch.randperm(len(self), generator=self._generator)
        # At least four groups, however few rows, lest every epoch have the same batches.
        batches = max(1, min(_BATCHES, len(self) // (4 * self._batch_size)))
        groups = torch.split(rows, batches * self._batch_size)
        order = torch.cat([group[self._lengths[group].argsort(stable=True)] for group in groups])
        whole = len(self) // self._batch_size * self._batch_size
        parts = order[:whole].view(-1, self._batch_size)
        shuffled = parts[torch.randperm(len(parts), generator=self._generator)]
        yield from torch.cat([shuffled.flatten(), order[whole:]]).tolist()
