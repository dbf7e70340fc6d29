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
    alike, opposite, lonely = [1.0, 1.0, 0.4931, 0.2013], [1.0, -1.0, 0.4931, -0.2013], [1.0, 0.0, 0.00317, -1.0]
    stored, _ = quantise.columns(np.array([alike, opposite, lonely], np.float32).T, narrow=True)
    assert np.abs(stored).max(axis=0).tolist() == [64, 127, 127]


@pytest.mark.parametrize("narrow", [False, True])
def test_columns_of_nothing_but_zeros_get_a_scale(narrow: bool) -> None:
    weight = np.zeros((4, 2), np.float32)
    weight[:, 1] = 1e-40
    stored, scale = quantise.columns(weight, narrow=narrow)
    assert (stored.any(), scale.tolist()) == (False, [1.0, 1.0])


def test_rows_of_a_table_have_a_scale_each() -> None:
    table = np.array([[1.0, -0.50317], [0.0, 0.0], [-100.0, 50.317]], np.float32)
    stored, scale = quantise.rows(table)
    assert (stored.dtype, scale.dtype, scale.shape) == (np.dtype(np.int8), np.dtype(np.float32), (3, 1))
    assert stored.tolist() == [[127, -64], [0, 0], [-127, 64]]
    assert np.allclose(stored * scale, table, atol=0.5)


# Columns that lie on steps


def on_steps(numbers: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a weight of such numbers of steps, and the step of each column; float32, as a file that was quantised gives it."""
    step = np.random.default_rng(seed).uniform(0.001, 0.1, numbers.shape[1]).astype(np.float32)
    return numbers.astype(np.float32) * step, step


@pytest.mark.parametrize("most", [1, 7, 60, 127])
@pytest.mark.parametrize("rows", [8, 100, 1500])
def test_a_column_on_steps_keeps_them(rows: int, most: int) -> None:
    numbers = np.random.default_rng(rows).integers(-most, most + 1, (rows, 5))
    numbers[:2] = [[most], [1]]
    weight, step = on_steps(numbers)
    stored, scale = quantise.columns(weight)
    assert np.array_equal(stored, numbers)
    assert np.allclose(scale, step, rtol=1e-6)
    assert np.allclose(quantise.steps(weight), step, rtol=1e-6)


@pytest.mark.parametrize("zero", [100, 128, 140, 0])
def test_steps_with_a_zero_point_are_found_and_kept_where_they_fit(zero: int) -> None:
    numbers = np.random.default_rng(zero).integers(0, 256, (300, 4)) - zero
    numbers[:, 0] = np.clip(numbers[:, 0], -127, 127)
    weight, step = on_steps(numbers)
    assert np.allclose(quantise.steps(weight), step, rtol=1e-6)
    stored, scale = quantise.columns(weight)
    assert np.array_equal(stored[:, 0], numbers[:, 0])
    assert np.abs(stored * scale - weight).max() <= 0.51 * scale.max()


def test_steps_are_given_up_where_narrow_numbers_could_overflow() -> None:
    numbers = np.array([[100, 100], [28, 29], [1, 1], [3, 3]])
    weight, step = on_steps(numbers)
    stored, scale = quantise.columns(weight, narrow=True)
    assert np.array_equal(stored[:, 0], numbers[:, 0])
    assert scale[1] > step[1]
    assert (255 * np.abs(pairs(stored)) < 2**15).all()


def test_random_weights_lie_on_no_steps() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 500)).astype(np.float32)
    assert not quantise.steps(weight).any()
    assert not quantise.steps(np.zeros((40, 2), np.float32)).any()


def test_rows_of_a_table_on_steps_keep_them() -> None:
    numbers = np.random.default_rng(0).integers(-90, 91, (6, 64))
    weight, step = on_steps(numbers.T)
    stored, scale = quantise.rows(weight.T)
    assert np.array_equal(stored, numbers)
    assert np.allclose(scale[:, 0], step, rtol=1e-6)
