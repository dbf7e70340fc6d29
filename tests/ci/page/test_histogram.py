"""How the elements of a weight are spread."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from ffc.ci.page.histogram import spread


def of(array: np.ndarray) -> Any:
    return spread(ir.tensor(array))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", ml_dtypes.bfloat16, ml_dtypes.int4])
def test_all_elements_of_a_small_weight_count(dtype: Any) -> None:
    array = np.arange(-4, 4).repeat(16).astype("uint8" if dtype == "uint8" else "int8").astype(dtype)
    found = of(array)
    values = array.astype(np.float64)
    assert (found["low"], found["high"]) == (values.min(), values.max())
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-4)
    assert found["zeros"] == pytest.approx(1 / 8)
    assert len(found["bins"]) == 32
    assert sum(found["bins"]) == found["of"] == 128


def test_few_elements_have_no_histogram_and_neither_have_truth_values() -> None:
    assert of(np.zeros(63, np.float32)) == {}
    assert of(np.zeros(64, np.bool_)) == {}


def test_a_sample_of_a_large_weight_meets_every_column() -> None:
    columns = np.tile(np.arange(768, dtype=np.float32), (3072, 1))
    found = of(columns)
    assert found["of"] <= 65_536
    assert (found["low"], found["high"]) == (0, 767)
    assert found["bins"] == pytest.approx([found["of"] / 32] * 32, rel=0.02)


def test_what_is_not_finite_is_told_apart() -> None:
    array = np.linspace(0, 1, 100, dtype=np.float32)
    array[:3] = np.nan, np.inf, -np.inf
    found = of(array)
    assert found["strange"] == 3
    assert sum(found["bins"]) == 97
    assert of(np.full(64, np.nan, np.float32)) == {"of": 64, "strange": 64}


def test_equal_elements_are_one_bin() -> None:
    found = of(np.full(64, 3.0, np.float32))
    assert (found["low"], found["high"], found["bins"]) == (3, 3, [64])
