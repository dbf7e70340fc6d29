"""Allocations keep what scores highest: of each layer, of all layers together, or under a MAC budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffc import cli
from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.graph.blocks.finder import find
from ffc.graph.cost import cost
from ffc.graph.files import load, save
from ffc.pruning import (
    Importance,
    LayerImportance,
    LayerPlan,
    LayerSizes,
    Macs,
    Plan,
    by_macs,
    count_macs,
    globally,
    make_plan,
    random_like,
    sizes,
    uniform,
)
from ffc.pruning import amount as amounts
from ffc.pruning.sizes import total_macs
from ffc.settings.amount import Amount
from tests.graphs import HEADS, UNITS, WIDTH, encoder


def importance(*layers: tuple[Sequence[float], Sequence[float]], method: str = "taylor") -> Importance:
    return Importance(
        tuple(LayerImportance(np.array(h, np.float32), np.array(f, np.float32)) for h, f in layers), method
    )


def drawn(seed: int, layers: int = 2, heads: int = 3, units: int = 6) -> Importance:
    random = np.random.default_rng(seed)
    return importance(*((random.random(heads) ** 2, random.random(units) ** 2) for _ in range(layers)))


def parts(plan: Plan) -> list[tuple[tuple[int, ...] | None, tuple[int, ...] | None]]:
    return [(layer.heads, layer.units) for layer in plan.layers]


TWO = importance(([3, 0, 4], [1, 1, 1, 1]), ([30, 40, 0], [0, 2, 0, 0]))
SMALL = [LayerSizes.of(3, 6, width=4, head_size=2)] * 2


def test_scores_are_ranked_over_all_layers_relative_to_the_norm_of_their_layer() -> None:
    # heads 0.6 0 0.8 | 0.6 0.8 0; units 0.5 0.5 0.5 0.5 | 0 1 0 0
    assert parts(globally(TWO, heads=3, ffn=4)) == [((0, 2), (0, 1, 2)), ((1,), (1,))]
    assert parts(globally(TWO, heads=4)) == [((0, 2), None), ((0, 1), None)]


def test_the_scale_of_a_layer_does_not_matter() -> None:
    first = drawn(0)
    second = importance(*((layer.heads * 1000, layer.ffn / 1000) for layer in first.layers[:1]),
                        *((layer.heads, layer.ffn) for layer in first.layers[1:]), method="norm")  # fmt: skip
    assert parts(globally(first, heads=0.5, ffn=0.5)) == parts(globally(second, heads=0.5, ffn=0.5))


@pytest.mark.parametrize(("floor", "kept"), [(None, [3, 1]), (1, [3, 1]), (2, [2, 2]), (0.75, [2, 2]), (0.25, [3, 1])])
def test_every_layer_keeps_its_floor(floor: float | None, kept: list[int]) -> None:
    skewed = importance(([5, 5, 5], [5, 5, 5]), ([9, 0, 0], [9, 0, 0]))
    plan = globally(skewed, heads=4, floor=floor)
    assert [len(layer.heads or ()) for layer in plan.layers] == kept


def test_a_layer_of_zeros_keeps_its_floor() -> None:
    assert parts(globally(importance(([0, 0], [1]), ([1, 1], [1])), heads=3)) == [((0,), None), ((0, 1), None)]


def test_shares_are_of_all_layers_together() -> None:
    plan = globally(drawn(1, layers=3), heads=0.5, ffn=0.5)
    assert sum(len(layer.heads or ()) for layer in plan.layers) == 5  # of 9
    assert sum(len(layer.units or ()) for layer in plan.layers) == 9  # of 18


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"heads": 7}, "heads=7 cannot be kept, all layers together have 6; give 1 to 6"),
        ({"heads": 0}, "heads=0 cannot be kept"),
        ({"ffn": 1.5}, "ffn=1.5 is not a share in (0, 1]"),
        ({"heads": 1}, "heads=1 keeps 1 of 6, and the floors of 2 layers need 2; keep more or lower the floor"),
        ({"heads": 4, "floor": 3}, "heads=4 keeps 4 of 6, and the floors of 2 layers need 6"),
        ({"heads": 4, "floor": 0}, "floor of heads=0 cannot be kept; give 1 or more"),
        ({"heads": 4, "floor": -0.5}, "floor of heads=-0.5 is not a share in (0, 1]"),
    ],
)
def test_amounts_that_all_layers_cannot_keep_are_refused(asked: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        globally(drawn(0), **asked)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_layers_without_a_part_leave_it_out() -> None:
    bare = importance(([1, 2], []), ([], [1, 2]))
    assert parts(globally(bare, heads=1, ffn=1)) == [((1,), None), (None, (1,))]
    layers = [LayerSizes(2, 0, 10, 0, 0), LayerSizes(0, 2, 0, 0, 10)]
    assert parts(by_macs(bare, layers, macs=0.5, length=1)) == [((1,), None), (None, (1,))]
    with pytest.raises(CannotApplyError, match="ffn=1 was asked for and no layer has any"):
        globally(importance(([1, 2], [])), ffn=1)


def test_a_head_and_a_unit_cost_what_their_products_cost() -> None:
    layer = LayerSizes.of(12, 1536, width=384, head_size=32)
    assert layer.head_macs(128) == 128 * (4 * 384 * 32 + 2 * 128 * 32)
    assert layer.unit_macs(128) == 128 * 2 * 384
    assert total_macs([layer] * 6, 128) == 6 * (12 * layer.head_macs(128) + 1536 * layer.unit_macs(128))


@pytest.mark.parametrize("length", [2, 8])
def test_the_count_is_that_of_the_products_of_the_model(bert: Path, length: int) -> None:
    model = load(bert)
    layers = sizes(find(model))
    assert layers == (LayerSizes.of(HEADS, UNITS, width=WIDTH, head_size=WIDTH // HEADS),) * 2
    assert total_macs(layers, length) == cost(model, 1, length).macs  # it has no other products


def best_by_trying(scores: Importance, layers: Sequence[LayerSizes], budget: int, floor: int) -> float:
    """Return the highest sum of scores of all choices that a budget pays for, tried one by one."""
    groups = []
    for layer, size in zip(scores.layers, layers, strict=True):
        for of, cost_each in ((layer.heads, size.head_macs(4)), (layer.ffn, size.unit_macs(4))):
            ranked = sorted(map(float, of), reverse=True)
            groups.append([(n * cost_each, sum(ranked[:n])) for n in range(floor, len(of) + 1)])
    choices = itertools.product(*groups)
    return max(sum(g for _, g in choice) for choice in choices if sum(c for c, _ in choice) <= budget)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), macs=st.floats(0.4, 1.0), floor=st.integers(1, 2))
def test_no_choice_within_the_budget_has_a_higher_sum(seed: int, macs: float, floor: int) -> None:
    scores = drawn(seed)
    try:
        plan = by_macs(scores, SMALL, macs=macs, length=4, floor=floor)
    except UsageError:
        assert macs * total_macs(SMALL, 4) < floor * 2 * (SMALL[0].head_macs(4) + SMALL[0].unit_macs(4))
        return
    assert plan.macs is not None and plan.macs == count_macs(plan, SMALL, 4)
    budget = macs * plan.macs.of
    assert plan.macs.kept <= budget + 1e-6
    kept = sum(
        layer.heads[list(kept.heads or ())].sum(dtype=float) + layer.ffn[list(kept.units or ())].sum(dtype=float)
        for layer, kept in zip(scores.layers, plan.layers, strict=True)
    )
    assert kept == pytest.approx(best_by_trying(scores, SMALL, int(budget + 1e-6), floor), rel=1e-9)
    assert all(len(layer.heads or ()) >= floor and len(layer.units or ()) >= floor for layer in plan.layers)


@pytest.mark.parametrize("macs", [0.2, 0.5, 0.7, 0.9, 0.999])
def test_the_budget_is_used_up_to_one_unit(macs: float) -> None:
    layers = [LayerSizes.of(12, 1536, width=384, head_size=32)] * 6
    plan = by_macs(drawn(3, 6, 12, 1536), layers, macs=macs)
    assert plan.macs is not None and plan.macs.length == 128
    left = macs * plan.macs.of - plan.macs.kept
    assert 0 <= left < layers[0].unit_macs(128)
    assert len({len(layer.units or ()) for layer in plan.layers}) > 1, "no layer differs from another"


def test_the_whole_budget_keeps_everything() -> None:
    plan = by_macs(drawn(0), SMALL, macs=1.0)
    assert plan.macs is not None and plan.macs.kept == plan.macs.of
    assert parts(plan) == [((0, 1, 2), (0, 1, 2, 3, 4, 5))] * 2


def test_longer_rows_make_heads_dearer() -> None:
    scores = importance(([1.0] * 3, [0.25] * 6), ([1.0] * 3, [0.25] * 6))
    counts = [
        sum(len(layer.heads or ()) for layer in by_macs(scores, SMALL, macs=0.6, length=n).layers) for n in (1, 64)
    ]
    assert counts[0] > counts[1]


def test_layers_of_other_sizes_are_weighed_by_what_they_cost() -> None:
    scores = importance(([1], [4, 4, 4]), ([1], [3, 3, 3]))
    layers = [LayerSizes(1, 3, 1, 0, 10), LayerSizes(1, 3, 1, 0, 2)]
    assert parts(by_macs(scores, layers, macs=24 / 38, length=1)) == [((0,), (0,)), ((0,), (0, 1, 2))]


@pytest.mark.parametrize("macs", [0.0, -0.1, 1.1, float("nan")])
def test_a_budget_that_is_no_share_is_refused(macs: float) -> None:
    with pytest.raises(UsageError, match=r"is not a share in \(0, 1\]"):
        by_macs(drawn(0), SMALL, macs=macs)


def test_a_budget_that_does_not_pay_for_the_floors_is_refused() -> None:
    with pytest.raises(UsageError, match=r"macs=0\.1 does not pay for what every layer keeps at least, a share of 0\."):
        by_macs(drawn(0), SMALL, macs=0.1)
    with pytest.raises(UsageError, match="length=0 is no number of tokens"):
        by_macs(drawn(0), SMALL, macs=0.5, length=0)


@pytest.mark.parametrize("method", ["norm", "forward", "random"])
def test_scores_that_do_not_add_up_are_refused(method: str) -> None:
    scores = importance(([1, 2, 3], [1] * 6), ([1, 2, 3], [1] * 6), method=method)
    with pytest.raises(UsageError, match=f"scores by {method} compare within a layer only"):
        by_macs(scores, SMALL, macs=0.5)


def test_importance_of_another_shape_is_refused() -> None:
    with pytest.raises(CannotApplyError, match="the importance has 3 layers and the model has 2"):
        by_macs(drawn(0, layers=3), SMALL, macs=0.5)
    with pytest.raises(CannotApplyError, match="layer 0: the importance has 4 heads and the model has 3"):
        by_macs(drawn(0, heads=4), SMALL, macs=0.5)


def test_random_scores_have_the_shape_and_follow_the_seed() -> None:
    like = drawn(0)
    one, same, other = random_like(like, 1), random_like(like, 1), random_like(like, 2)
    assert (one.method, one.seed) == ("random", 1)
    assert parts(uniform(one, 2, 3)) == parts(uniform(same, 2, 3)) != parts(uniform(other, 2, 3))
    assert [len(layer.ffn) for layer in one.layers] == [6, 6]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "this would keep everything; say how much to keep by heads, ffn or macs"),
        ({"macs": 0.7, "ffn": 0.5}, "macs says how much to keep of all together"),
        ({"macs": 0.7, "across": True}, "macs chooses among all layers already"),
        ({"heads": 2, "floor": 1}, "floor is for across and macs"),
    ],
)
def test_an_amount_says_one_thing(asked: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Amount(**asked)  # type: ignore[arg-type]


def test_an_amount_plans_as_it_says_and_states_the_macs() -> None:
    scores = drawn(2)
    uniformly = amounts.plan(Amount(heads=2, ffn=0.5), scores, SMALL)
    assert parts(uniformly) == parts(uniform(scores, 2, 0.5))
    assert uniformly.macs == count_macs(uniformly, SMALL, 128)
    assert parts(amounts.plan(Amount(heads=4, across=True, floor=2), scores, SMALL)) == parts(globally(scores, heads=4, floor=2))
    assert amounts.plan(Amount(macs=0.6, length=4), scores, SMALL) == by_macs(scores, SMALL, macs=0.6, length=4)


def test_an_amount_is_reached_in_equal_steps() -> None:
    whole = Amount(heads=1, ffn=0.5)
    assert [amounts.after(whole, way, SMALL).heads for way in (0, 0.5, 1.0)] == [3, 2, 1]
    assert [amounts.after(whole, way, SMALL).ffn for way in (0.0, 0.5, 1.0)] == [1.0, 0.75, 0.5]
    assert amounts.after(Amount(heads=2, across=True), 0.5, SMALL).heads == 4
    assert amounts.after(Amount(macs=0.6), 0.25, SMALL).macs == pytest.approx(0.9)
    assert amounts.after(whole, 1.0, SMALL) == whole
    for share in (0.1, 0.3, 0.7):  # 1 - (1 - 0.1) is less, and keeps one head of 15 in place of two
        assert amounts.after(Amount(heads=share, ffn=share), 1.0, SMALL) == Amount(heads=share, ffn=share)
        assert amounts.after(Amount(macs=share), 1.0, SMALL) == Amount(macs=share)


def test_the_summary_states_the_macs() -> None:
    plan = by_macs(drawn(0), SMALL, macs=0.7, length=4)
    assert plan.macs is not None
    line = plan.summary().splitlines()[-1]
    share = 100 * plan.macs.kept / plan.macs.of
    assert line == (
        f"all layers: {share:.2f} % of the multiply-accumulates at 4 tokens ({plan.macs.kept:,} of {plan.macs.of:,})"
    )


@pytest.mark.parametrize(
    ("macs", "message"),
    [
        ('{"kept": 2, "of": 1, "length": 1}', "macs: keeps 2 of 1, which is more than there are"),
        ('{"kept": -1, "of": 1, "length": 1}', "macs.kept: "),
        ('{"kept": 1, "of": 1, "length": 0}', "macs.length: "),
        ('{"kept": 1.0, "of": 1, "length": 1}', "macs.kept: "),
        ('{"kept": 1, "of": 1}', "macs.length: "),
    ],
)
def test_a_plan_that_states_impossible_macs_is_refused(tmp_path: Path, macs: str, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(f'{{"format": "ffc.plan/1", "layers": [{{}}], "macs": {macs}}}')
    with pytest.raises(InputError) as caught:
        Plan.load(path)
    assert message in str(caught.value)


def test_stated_macs_survive_the_file(tmp_path: Path) -> None:
    plan = Plan(layers=(LayerPlan(heads=(0,)),), macs=Macs(kept=1, of=2, length=3))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    save(encoder(layers=2, pooler=False), tmp_path / "bert.onnx")
    return tmp_path / "bert.onnx"


def test_a_model_is_planned_and_pruned_by_macs(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(5, 2, HEADS, UNITS).save(tmp_path / "i.safetensors")
    words = ["plan", str(bert), "--importance", str(tmp_path / "i.safetensors"), "-o", str(tmp_path / "p.json")]
    assert cli.main([*words, "--macs", "0.6", "--length", "8", "--floor", "2"]) == 0
    assert "% of the multiply-accumulates at 8 tokens" in capsys.readouterr().out
    plan = Plan.load(tmp_path / "p.json")
    assert plan == make_plan(bert, Amount(macs=0.6, length=8, floor=2), importance=tmp_path / "i.safetensors")
    out = tmp_path / "o.onnx"
    passes = f"fuse,prune{{plan={tmp_path / 'p.json'}}}"
    assert cli.main(["compile", str(bert), "--passes", passes, "--target", "portable", "-o", str(out)]) == 0
    assert plan.macs is not None
    assert cost(load(out), 1, 8).macs == plan.macs.kept <= 0.6 * plan.macs.of


def test_a_model_is_planned_globally(bert: Path, tmp_path: Path) -> None:
    words = ["plan", str(bert), "--by", "norm", "--global", "--ffn", "0.5", "--floor", "3", "-o", str(tmp_path / "p")]
    assert cli.main(words) == 0
    kept = [len(layer.units or ()) for layer in Plan.load(tmp_path / "p").layers]
    assert sum(kept) == UNITS and min(kept) >= 3
