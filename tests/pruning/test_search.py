"""The Fisher search finds the best masks of its model of the loss, and exchanges by the whole blocks of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import pytest

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.pruning import LayerSizes, by_macs, search
from ffc.pruning.search import MaskGradients, fisher, rearrange


def gradients(seed: int = 0, layers: int = 2, rows: int = 40, heads: int = 4, units: int = 12) -> MaskGradients:
    """Return gradients that are correlated, as those of parts that do the same work are."""
    random = np.random.default_rng(seed)

    def draw(parts: int) -> np.ndarray:
        mixing = random.normal(size=(parts, parts)) * random.random(parts)
        return (random.normal(size=(rows, parts)) @ mixing).astype(np.float32)

    return MaskGradients(tuple(draw(heads) for _ in range(layers)), tuple(draw(units) for _ in range(layers)))


def damage(kept: Sequence[int], gradients: np.ndarray) -> float:
    """Return twice the loss that a block of the Fisher matrix expects from keeping these only."""
    g = np.asarray(gradients, np.float64)
    dropped = np.ones(g.shape[1], bool)
    dropped[list(kept)] = False
    return float(np.mean(g[:, dropped].sum(axis=1) ** 2))


SIZES = [LayerSizes.of(4, 12, width=8, head_size=2)] * 2


def test_fisher_is_the_mean_of_the_squares() -> None:
    made = gradients()
    scores = fisher(made)
    np.testing.assert_allclose(scores.layers[1].ffn, (made.units[1].astype(float) ** 2).mean(axis=0), rtol=1e-6)
    assert (scores.method, scores.samples) == ("fisher", 40)


def test_damage_is_the_quadratic_form_of_the_block() -> None:
    g = gradients().units[0].astype(float)
    block = g.T @ g / len(g)
    dropped = np.ones(12)
    dropped[[1, 5, 6]] = 0
    assert damage([1, 5, 6], g) == pytest.approx(dropped @ block @ dropped)
    assert damage(range(12), g) == 0


@pytest.mark.parametrize("seed", range(8))
def test_no_single_exchange_improves_on_the_result(seed: int) -> None:
    g = gradients(seed).units[0]
    start = tuple(int(i) for i in np.sort(np.argsort(-(g.astype(float) ** 2).mean(axis=0))[:6]))
    found = rearrange(start, g)
    assert len(set(found)) == 6 and list(found) == sorted(found)
    least = damage(found, g)
    assert least <= damage(start, g)
    others = [set(range(12)) - set(found)]
    for out, back in itertools.product(found, *others):
        assert damage(sorted(set(found) - {out} | {back}), g) >= least * (1 - 1e-6)


def test_exchanging_is_better_than_the_diagonal_alone() -> None:
    pairs = [(damage(kept, g), damage(rearrange(kept, g), g)) for kept, g in
             ((range(6), gradients(seed).units[0]) for seed in range(8))]  # fmt: skip
    assert np.mean([after / before for before, after in pairs]) < 0.5


def test_parts_that_cancel_go_together() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(50, 2)).astype(np.float32)
    # 0 and 1 matter most, each alone; but dropped together they cancel.
    g = np.stack([5 * noise[:, 0], -5 * noise[:, 0], 3 * noise[:, 1]], axis=1)
    assert rearrange((0,), g) == (2,)


@pytest.mark.parametrize("kept", [(), (0, 1, 2, 3)])
def test_with_nothing_to_exchange_all_stays(kept: tuple[int, ...]) -> None:
    assert rearrange(kept, gradients().heads[0]) == kept


def test_gradients_of_zero_exchange_nothing() -> None:
    assert rearrange((1, 3), np.zeros((5, 4), np.float32)) == (1, 3)


def test_the_first_stage_is_the_budget_by_fisher_and_the_second_keeps_its_numbers() -> None:
    made = gradients(1)
    first = by_macs(fisher(made), SIZES, macs=0.5, length=4)
    second = search(made, SIZES, macs=0.5, length=4)
    assert second.macs == first.macs
    assert second != first
    for before, after, heads, units in zip(first.layers, second.layers, made.heads, made.units, strict=True):
        assert before.heads and after.heads and before.units and after.units
        assert (len(after.heads), len(after.units)) == (len(before.heads), len(before.units))
        assert damage(after.heads, heads) <= damage(before.heads, heads)
        assert damage(after.units, units) <= damage(before.units, units)


def test_every_layer_keeps_its_floor() -> None:
    made = gradients(4)
    quiet = MaskGradients((made.heads[0], made.heads[1] * 1e-6), (made.units[0], made.units[1] * 1e-6))
    plan = search(quiet, SIZES, macs=0.6, length=4, floor=2)
    assert [(len(layer.heads or ()), len(layer.units or ())) for layer in plan.layers][1] == (2, 2)


def test_gradients_that_are_no_numbers_are_refused() -> None:
    made = gradients()
    made.units[1][3, 4] = np.inf
    with pytest.raises(InputError, match="layer 1: units: a gradient is not a finite number"):
        search(made, SIZES, macs=0.6)
    with pytest.raises(InputError, match=r"layer 0: heads: gradients have shape \[0, 4\]"):
        search(gradients(rows=0), SIZES, macs=0.6)


def test_gradients_of_other_layers_and_budgets_out_of_range_are_refused() -> None:
    with pytest.raises(CannotApplyError, match="the importance has 3 layers and the model has 2"):
        search(gradients(layers=3), SIZES, macs=0.6)
    with pytest.raises(UsageError, match="does not pay for what every layer keeps at least"):
        search(gradients(), SIZES, macs=0.01)


def test_a_layer_of_the_size_of_minilm_takes_seconds() -> None:
    made = gradients(rows=500, layers=1, heads=12, units=1536)
    started = time.process_time()
    search(made, [LayerSizes.of(12, 1536, width=384, head_size=32)], macs=0.5)
    assert time.process_time() - started < 10
