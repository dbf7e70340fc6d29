"""What is said of this processor is what its int8 products do, in every size, and narrowed weights are exact on all."""

from __future__ import annotations

import numpy as np
import pytest

from ffc.compiler.targets import processor
from ffc.graph.dialect import quantise
from tests.graphs import Stock, of_program

SHAPES = [(1, 2, 1), (1, 64, 33), (3, 5, 4), (7, 24, 16), (16, 300, 40), (1, 1537, 17), (9, 1025, 17)]
"""Rows, inner and outer width."""


def products(x: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    """Return ``x @ weight`` by onnxruntime as a user has it: as the operator of the body and as the kernel of the lowering."""
    scale = np.ones(weight.shape[1], np.float32)
    plain = of_program(lambda op, x, w: op.Cast(op.MatMulInteger(x, w), to=1), {"x": x}, {"w": weight}, {})
    kernel = of_program(
        lambda op, x, w, s: op.ms.MatMulIntegerToFloat(x, w, np.float32(1), s, np.uint8(0)), {"x": x}, {"w": weight, "s": scale}, {}
    )
    return [Stock(model)({"x": x})["y"] for model in (plain, kernel)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_overflows_where_it_is_said_to_and_nowhere_else(shape: tuple[int, int, int]) -> None:
    rows, inner, outer = shape
    for x, weight in ((255, 127), (255, -127)):
        given = np.full((rows, inner), x, np.uint8), np.full((inner, outer), weight, np.int8)
        for found in products(*given):
            assert (found != np.float32(x * weight * inner)).any() == processor.overflows()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_narrowed_weights_are_exact_for_the_worst_of_inputs(shape: tuple[int, int, int]) -> None:
    rows, inner, outer = shape
    random = np.random.default_rng(0)
    for weight in (random.uniform(-1, 1, (inner, outer)), np.ones((inner, outer)), random.standard_normal((inner, outer))):
        stored, _ = quantise.columns(weight.astype(np.float32), narrow=True)
        worst = np.where(stored[:, np.arange(rows) % outer].T > 0, 255, 0).astype(np.uint8)  # one column's largest sum a row
        for x in (worst, (255 - worst).astype(np.uint8), random.integers(0, 256, worst.shape).astype(np.uint8)):
            exact = x.astype(np.int64) @ stored.astype(np.int64)
            for found in products(x, stored):
                assert np.array_equal(found, exact.astype(np.float32))


def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    processor.overflows()
    monkeypatch.setattr(processor, "Runner", None)
    assert processor.overflows() in (True, False)
