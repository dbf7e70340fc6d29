"""Scales: the least squares of each layer in turn, on real tokens alone, never worse than none; the pass folds them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ffc.errors import CannotApplyError, InputError
from ffc.pruning import LayerPlan, Plan
from ffc.train.encoding import Collator, Rows
from ffc.train.models.layers import find_layers
from ffc.train.models.pretrained import takes
from ffc.train.models.slicing import apply
from ffc.train.pruning import scales
from ffc.train.pruning.masks import factors, masked
from ffc.train.pruning.scales import tune
from ffc.train.tasks.base import Example
from tests.encoders import FFN, HEADS, VOCABULARY, Kind, perturb, random_model

KINDS: tuple[Kind, ...] = get_args(Kind)
HALF = Plan(layers=(LayerPlan(heads=(0, 2), units=tuple(range(0, FFN, 2))), LayerPlan(units=tuple(range(0, FFN, 3)))))


def collator(length: int | None = None) -> Collator:
    tokenizer: Any = SimpleNamespace(pad_token_id=1, pad_token_type_id=0, padding_side="right")
    return Collator(tokenizer, length)


def encoded(count: int = 24, seed: int = 0) -> Rows:
    """Return rows of random ids and different lengths."""
    random = np.random.default_rng(seed)
    rows = []
    for index, length in enumerate(random.integers(4, 20, count)):
        ids = random.integers(5, VOCABULARY, length).tolist()
        types = random.integers(0, 2, length).tolist()
        rows.append({"input_ids": ids, "attention_mask": [1] * int(length), "token_type_ids": types, "index": index})
    return Rows(rows, [Example("text")] * count, 64)


def classifier(kind: Kind = "bert") -> nn.Module:
    model = random_model(kind, 2, 0, head=True, attention="eager" if kind == "mpnet" else "sdpa")
    perturb(model, 0, zero_biases=False)
    return model


def streams(model: nn.Module, rows: Rows, plan: Plan | None = None) -> list[np.ndarray]:
    """Return the residual stream behind attention and feed-forward network of every layer, at real tokens, float64."""
    found: list[Tensor] = []
    inputs: list[Tensor] = []

    def norm(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    batch = collator()([rows[index] for index in range(len(rows))])
    inside = {id(module): module for layer in find_layers(model) for module in model.get_submodule(layer.name).modules()}
    handles = [m.register_forward_pre_hook(norm) for m in inside.values() if isinstance(m, nn.LayerNorm)]
    nothing: list[Tensor | None] = [None] * 2
    with torch.no_grad(), masked(model, *(factors(model, plan) if plan else (nothing, nothing))):
        model(**{name: batch[name] for name in takes(model)})
    for handle in handles:
        handle.remove()
    found = [stream[batch["attention_mask"].bool()] for stream in inputs]
    return [stream.double().numpy() for stream in found]


def up_to(plan: Plan, stage: int) -> Plan:
    """Return the plan with the scales of the first stages only; heads and units of a layer are one stage each."""
    layers = []
    for index, layer in enumerate(plan.layers):
        heads = layer.head_scales if 2 * index < stage else None
        units = layer.unit_scales if 2 * index + 1 < stage else None
        layers.append(layer.model_copy(update={"head_scales": heads, "unit_scales": units}))
    return plan.model_copy(update={"layers": tuple(layers)})


def all_scales(plan: Plan) -> np.ndarray:
    assert all(layer.head_scales and layer.unit_scales for layer in plan.layers)
    return np.concatenate([[*(layer.head_scales or ()), *(layer.unit_scales or ())] for layer in plan.layers])


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    return classifier()


@pytest.fixture(scope="module")
def tuned(bert: nn.Module) -> Plan:
    return tune(bert, HALF, encoded(), collator(), batch_size=5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_stage_comes_closer_on_the_rows_it_was_fit_on(kind: Kind) -> None:
    model, rows = classifier(kind), encoded()
    plan = tune(model, HALF, rows, collator(), batch_size=5)
    whole = streams(model, rows)
    gains = []
    for stage in range(4):
        before = np.square(whole[stage] - streams(model, rows, up_to(plan, stage))[stage]).sum()
        after = np.square(whole[stage] - streams(model, rows, up_to(plan, stage + 1))[stage]).sum()
        assert after <= before * (1 + 1e-6), f"stage {stage}"
        gains.append(1 - after / before)
    assert gains[1] > 0.05, (
        "random heads have little in common, but units of the first layer can stand in for each other"
    )


def test_a_plan_that_keeps_everything_gets_scales_of_one(bert: nn.Module) -> None:
    plan = tune(bert, Plan(layers=(LayerPlan(), LayerPlan(heads=tuple(range(HEADS))))), encoded(), collator())
    assert [(len(layer.heads or ()), len(layer.units or ())) for layer in plan.layers] == [(HEADS, FFN)] * 2
    np.testing.assert_allclose(all_scales(plan), 1, atol=1e-5)


def test_the_scales_are_the_least_squares(bert: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "_RIDGES", (1e-9,))
    few = Plan(layers=(LayerPlan(heads=(1, 3), units=(3, 20, 50, 110)), LayerPlan(heads=(0, 1, 2))))
    rows = encoded()
    plan = tune(bert, few, rows, collator(), batch_size=7)
    whole = streams(bert, rows)
    layers = plan.layers
    for stage, (layer, part) in enumerate([(0, "heads"), (0, "units"), (1, "heads")]):
        kept = getattr(layers[layer], part)

        def with_scales(
            values: Sequence[float], stage: int = stage, layer: int = layer, part: str = part
        ) -> np.ndarray:
            so_far = up_to(plan, stage)
            changed = so_far.layers[layer].model_copy(update={f"{part[:-1]}_scales": tuple(map(float, values))})
            changed_layers = [changed if index == layer else old for index, old in enumerate(so_far.layers)]
            return streams(bert, rows, so_far.model_copy(update={"layers": tuple(changed_layers)}))[stage].ravel()

        base = with_scales(np.zeros(len(kept)))
        columns = np.stack([with_scales(row) - base for row in np.eye(len(kept))], axis=1)
        wanted = np.linalg.lstsq(columns, whole[stage].ravel() - base, rcond=None)[0]
        found = getattr(layers[layer], f"{part[:-1]}_scales")
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(("length", "batch_size"), [(40, 5), (None, 1), (None, 4), (None, 64)])
def test_padding_and_batches_do_not_matter(bert: nn.Module, tuned: Plan, length: int | None, batch_size: int) -> None:
    found = tune(bert, HALF, encoded(), collator(length), batch_size=batch_size)
    np.testing.assert_allclose(all_scales(found), all_scales(tuned), atol=2e-3)


def test_former_scales_are_not_used(bert: nn.Module, tuned: Plan) -> None:
    again = tune(bert, tuned, encoded(), collator(), batch_size=5)
    np.testing.assert_array_equal(all_scales(again), all_scales(tuned))


def test_fingerprints_and_macs_stay(bert: nn.Module, tuned: Plan) -> None:
    stamped = HALF.layers[0].model_copy(update={"fingerprints": {"q": "0" * 64}})
    plan = tune(bert, Plan(layers=(stamped, HALF.layers[1])), encoded(), collator(), batch_size=5)
    assert plan.layers[0].fingerprints == {"q": "0" * 64}
    assert plan.layers[0].head_scales == tuned.layers[0].head_scales


def test_the_model_is_left_as_it_was(bert: nn.Module) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in bert.modules())

    before, hung = {name: value.clone() for name, value in bert.state_dict().items()}, hooks()
    bert.train()
    try:
        tune(bert, HALF, encoded(6), collator())
        assert bert.training
    finally:
        bert.eval()
    assert all(torch.equal(value, before[name]) for name, value in bert.state_dict().items())
    assert hooks() == hung


def test_scales_stay_within_bounds_where_little_is_kept(bert: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Plan(layers=(LayerPlan(heads=(0,), units=(7,)),) * 2)
    monkeypatch.setattr(scales, "LARGEST", 1.2)
    assert np.abs(all_scales(tune(bert, one, encoded(), collator()))).max() <= 1.2


def test_a_unit_that_puts_out_nothing_keeps_its_scale() -> None:
    model = classifier()
    with torch.no_grad():
        find_layers(model)[0].linears["ffn_out"].weight[:, 4] = 0
    plan = tune(model, HALF, encoded(), collator())
    assert plan.layers[0].units and plan.layers[0].unit_scales
    assert plan.layers[0].unit_scales[plan.layers[0].units.index(4)] == 1


def test_the_first_token_alone_counts_in_the_last_layer_where_it_alone_is_read(bert: nn.Module, tuned: Plan) -> None:
    rows = encoded()
    plan = tune(bert, HALF, rows, collator(), batch_size=5, first_token=True)
    assert plan.layers[0] == tuned.layers[0]
    starts = np.cumsum([0, *(len(rows[index]["input_ids"]) for index in range(len(rows) - 1))])

    def missing(of: Plan) -> float:
        pairs = zip(streams(bert, rows), streams(bert, rows, of), strict=True)
        return float([np.square((a - b)[starts]).sum() for a, b in pairs][-1])

    assert missing(plan) < missing(tuned)


def test_one_row_is_too_few_to_choose_by_and_changes_nothing(bert: nn.Module) -> None:
    np.testing.assert_array_equal(all_scales(tune(bert, HALF, encoded(1), collator())), 1)


def test_sliced_and_masked_models_agree_with_scales(bert: nn.Module, tuned: Plan) -> None:
    smaller, batch = apply(bert, tuned), collator()([encoded()[index] for index in range(24)])
    given = {name: batch[name] for name in takes(bert)}
    with torch.no_grad(), masked(bert, *factors(bert, tuned)):
        wanted = bert(**given).logits
    with torch.no_grad():
        torch.testing.assert_close(smaller(**given).logits, wanted, atol=1e-5, rtol=1e-4)


def test_scales_survive_the_file(tmp_path: Path, tuned: Plan) -> None:
    tuned.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == tuned


def test_what_cannot_be_fit_is_refused(bert: nn.Module) -> None:
    with pytest.raises(InputError, match="there are no rows to fit scales on"):
        tune(bert, HALF, encoded(0), collator())
    with pytest.raises(CannotApplyError, match="the plan has 1 layers and the model has 2"):
        tune(bert, Plan(layers=(LayerPlan(),)), encoded(), collator())
    broken = classifier()
    with torch.no_grad():
        find_layers(broken)[0].linears["ffn_out"].bias[0] = torch.inf
    with pytest.raises(InputError, match="what goes into layer 1 is not finite"):
        tune(broken, HALF, encoded(), collator())
