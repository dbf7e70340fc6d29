"""The order of rows: those of similar length together, batches at random."""

from __future__ import annotations

import numpy as np

from ffc.train.learning.sampling import LengthSampler


def test_rows_of_similar_length_go_together_in_an_order_of_the_seed() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1003).tolist()
    sampler = LengthSampler(lengths, 8, seed=0)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(1003)) and first != second
    assert list(LengthSampler(lengths, 8, seed=0)) == first != list(LengthSampler(lengths, 8, seed=1))
    batches = [[lengths[row] for row in first[start : start + 8]] for start in range(0, 1003, 8)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert sum(lengths) <= padded < 1.15 * sum(lengths)
    longest = [max(batch) for batch in batches]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.3, "batches come in random order"
