"""Weights as int8: rounding stays within half a step, and narrowed weights cannot overflow 16 bits in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ffc.graph.dialect import quantise

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
WEIGHTS = arrays.arrays(np.float32, st.tuples(st.integers(0, 9), st.integers(0, 5)), elements=FINITE)


def pairs(weight: np.ndarray) -> np.ndarray:
    """Return the largest and the least sum that inputs of 0 or 1 can give for rows 2i and 2i + 1."""
    even, odd = weight[: len(weight) // 2 * 2 : 2].astype(int), weight[1::2].astype(int)
    return np.stack([np.maximum(even, 0) + np.maximum(odd, 0), np.minimum(even, 0) + np.minimum(odd, 0)])


@settings(max_examples=200, deadline=None)
@given(weight=WEIGHTS, narrow=st.booleans())
def test_columns_are_within_half_a_step(weight: np.ndarray, narrow: bool) -> None:
    stored, scale = quantise.columns(weight, narrow=narrow)
    assert (stored.dtype, stored.shape) == (np.dtype(np.int8), weight.shape)
    assert (scale.dtype, scale.shape) == (np.dtype(np.float32), weight.shape[1:])
    assert (scale > 0).all()
    assert (np.abs(weight - stored * scale.astype(np.float64)) <= 0.501 * scale).all()
    assert not stored.size or np.abs(stored.astype(int)).max() <= 127


@settings(max_examples=200, deadline=None)
@given(weight=WEIGHTS)
def test_narrow_columns_cannot_overflow_in_pairs_and_lose_no_more_than_half_of_the_range(weight: np.ndarray) -> None:
    stored, scale = quantise.columns(weight, narrow=True)
    full, full_scale = quantise.columns(weight)
    sums = pairs(stored)
    assert not sums.size or 255 * sums.max() < 2**15
    assert not sums.size or 255 * sums.min() >= -(2**15)
    assert (scale >= full_scale).all()
    assert (scale <= 1.99 * full_scale).all()
    untouched = (255 * np.abs(pairs(full)) < 2**15 - 255).all(axis=(0, 1))
    assert np.allclose(scale[untouched], full_scale[untouched], rtol=1e-6)


def test_narrow_leaves_as_much_of_the_range_as_neighbours_allow() -> None:
    alike, opposite, lonely = [1.0, 1.0, 0.5, 0.2], [1.0, -1.0, 0.5, -0.2], [1.0, 0.0, 0.0, -1.0]
    stored, _ = quantise.columns(np.array([alike, opposite, lonely], np.float32).T, narrow=True)
    assert np.abs(stored).max(axis=0).tolist() == [64, 127, 127]


@pytest.mark.parametrize("narrow", [False, True])
def test_columns_of_nothing_but_zeros_get_a_scale(narrow: bool) -> None:
    weight = np.zeros((4, 2), np.float32)
    weight[:, 1] = 1e-40
    stored, scale = quantise.columns(weight, narrow=narrow)
    assert (stored.any(), scale.tolist()) == (False, [1.0, 1.0])


def test_rows_of_a_table_have_a_scale_each() -> None:
    table = np.array([[1.0, -0.5], [0.0, 0.0], [-100.0, 50.0]], np.float32)
    stored, scale = quantise.rows(table)
    assert (stored.dtype, scale.dtype, scale.shape) == (np.dtype(np.int8), np.dtype(np.float32), (3, 1))
    assert stored.tolist() == [[127, -64], [0, 0], [-127, 64]]
    assert np.allclose(stored * scale, table, atol=0.5)
