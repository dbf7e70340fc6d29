"""Pruning in steps scores what is left again; and plans of a checkpoint are those of its ONNX export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ffc import cli
from ffc.errors import CannotApplyError, UsageError
from ffc.graph.blocks.finder import find
from ffc.graph.files import load
from ffc.pruning import Importance, Plan, by_norm, globally, sizes, uniform
from ffc.pruning import amount as amounts
from ffc.settings.amount import Amount
from ffc.train.encoding import Collator, Rows
from ffc.train.models.checkpoint import save_pruned
from ffc.train.models.layers import find_layers
from ffc.train.models.slicing import apply
from ffc.train.pruning import iterative, plans
from ffc.train.pruning.importance import score
from ffc.train.pruning.iterative import prune_in_steps
from ffc.train.pruning.plans import layer_sizes
from ffc.train.tasks.base import Example
from tests.encoders import LABELS, VOCABULARY, perturb, random_model

LAYERS = 2


def collator() -> Collator:
    tokenizer: Any = SimpleNamespace(pad_token_id=1, pad_token_type_id=0, padding_side="right")
    return Collator(tokenizer)


def encoded(count: int = 12) -> Rows:
    random = np.random.default_rng(0)
    rows = []
    for index in range(count):
        length = int(random.integers(4, 12))
        ids, mask = random.integers(5, VOCABULARY, length).tolist(), [1] * length
        rows.append({"input_ids": ids, "attention_mask": mask, "labels": index % LABELS, "index": index})
    return Rows(rows, [Example("text", label=index % LABELS) for index in range(count)], 64)


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    model = random_model("bert", LAYERS, 0, head=True)
    perturb(model, 0, zero_biases=False)
    return model


def halves(scores: Importance, way: float) -> Plan:
    return uniform(scores, 1 - way / 2, 1 - way / 2)


def counts(plan: Plan) -> list[tuple[int, int]]:
    return [(len(layer.heads or ()), len(layer.units or ())) for layer in plan.layers]


def test_one_step_is_one_scoring(bert: nn.Module) -> None:
    once = halves(score(bert, encoded(), collator()), 1.0)
    assert prune_in_steps(bert, encoded(), collator(), steps=1, allocate=halves) == once


def test_each_step_scores_what_the_last_one_left(bert: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[Importance] = []

    def noted(model: nn.Module, *rest: Any, **options: Any) -> Importance:
        scored.append(score(model, *rest, **options))
        return scored[-1]

    monkeypatch.setattr(iterative, "score", noted)
    made: list[Plan] = []

    def allocate(scores: Importance, way: float) -> Plan:
        made.append(halves(scores, way))
        return made[-1]

    plan = prune_in_steps(bert, encoded(), collator(), steps=2, allocate=allocate)
    assert [counts(each)[0] for each in made] == [(3, 150), (2, 100)]
    # The second scores are those of the model sliced by the first plan, in the places of the first model.
    again = score(apply(bert, made[0]), encoded(), collator())
    for whole, sliced, kept in zip(scored[1].layers, again.layers, made[0].layers, strict=True):
        assert kept.heads and kept.units
        np.testing.assert_allclose(whole.heads[list(kept.heads)], sliced.heads, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(whole.ffn[list(kept.units)], sliced.ffn, rtol=1e-3, atol=1e-5)
    assert plan == made[1]


def test_steps_are_not_one_step(bert: nn.Module) -> None:
    one, four = (prune_in_steps(bert, encoded(), collator(), steps=steps, allocate=halves) for steps in (1, 4))
    assert counts(one) == counts(four) == [(2, 100)] * LAYERS
    assert one != four


@pytest.mark.parametrize("amount", [Amount(macs=0.5, length=16, floor=2), Amount(heads=0.5, ffn=0.4, across=True)])
def test_what_one_step_drops_no_later_one_keeps(bert: nn.Module, amount: Amount) -> None:
    layers = layer_sizes(bert)
    made: list[Plan] = []

    def allocate(scores: Importance, way: float) -> Plan:
        made.append(amounts.plan(amounts.after(amount, way, layers), scores, layers))
        return made[-1]

    plan = prune_in_steps(bert, encoded(), collator(), steps=4, allocate=allocate)
    for before in made:
        for one, other in zip(before.layers, plan.layers, strict=True):
            assert set(other.heads or ()) <= set(one.heads or ())
            assert set(other.units or ()) <= set(one.units or ())
    assert plan.macs is not None
    assert amount.macs is None or plan.macs.kept <= amount.macs * plan.macs.of


def test_dropped_parts_stay_dropped_where_others_score_nothing(
    bert: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Plan] = []

    def zeros(*_: Any, **__: Any) -> Importance:
        whole = score(bert, encoded(3), collator())
        layers = tuple(type(layer)(layer.heads * 0, layer.ffn * 0) for layer in whole.layers)
        if not made:  # the first scores drop the first half, which the order of equal scores would keep
            layers = tuple(
                type(layer)(np.sort(a.heads), np.sort(a.ffn)) for layer, a in zip(layers, whole.layers, strict=True)
            )
        return Importance(layers, "taylor")

    def allocate(scores: Importance, way: float) -> Plan:
        made.append(halves(scores, way))
        return made[-1]

    monkeypatch.setattr(iterative, "score", zeros)
    plan = prune_in_steps(bert, encoded(3), collator(), steps=2, allocate=allocate)
    assert plan.layers[0].heads == (1, 2)


def test_no_steps_are_refused(bert: nn.Module) -> None:
    with pytest.raises(UsageError, match="steps=0 makes no plan; give 1 or more"):
        prune_in_steps(bert, encoded(), collator(), steps=0, allocate=halves)


def test_progress_is_told(bert: nn.Module) -> None:
    told: list[tuple[int, int]] = []
    prune_in_steps(
        bert, encoded(3), collator(), steps=2, allocate=halves, progress=lambda line, *step: told.append(step)
    )  # fmt: skip
    assert told == [(1, 2), (2, 2)]


def test_sizes_and_norms_of_a_model_are_those_of_its_export(exported: Callable[..., Path]) -> None:
    model = random_model("bert", 2, 0, head=False)
    perturb(model, 0, zero_biases=False)
    blocks = find(load(exported("bert")))
    assert layer_sizes(model) == sizes(blocks)
    for one, other in zip(plans.by_norm(model).layers, by_norm(blocks).layers, strict=True):
        np.testing.assert_allclose(one.heads, other.heads, rtol=1e-5)
        np.testing.assert_allclose(one.ffn, other.ffn, rtol=1e-5)


def test_a_checkpoint_is_planned_as_its_export(exported: Callable[..., Path], tmp_path: Path) -> None:
    model = random_model("bert", 2, 0, head=False)
    perturb(model, 0, zero_biases=False)
    save_pruned(model, tmp_path / "model")
    words = ["--by", "norm", "--global", "--heads", "0.5", "--ffn", "0.3", "-o"]
    assert cli.main(["plan", str(tmp_path / "model"), *words, str(tmp_path / "one.json")]) == 0
    assert cli.main(["plan", str(exported("bert")), *words, str(tmp_path / "other.json")]) == 0
    assert (tmp_path / "one.json").read_text() == (tmp_path / "other.json").read_text()


def test_a_pruned_checkpoint_is_planned_again(bert: nn.Module, tmp_path: Path) -> None:
    first = globally(plans.by_norm(bert), heads=0.75, ffn=0.5)
    save_pruned(apply(bert, first), tmp_path / "model")
    amount = Amount(heads=1, ffn=5)
    plan = plans.make_plan(tmp_path / "model", amount, by="norm")
    assert [(layer.of_heads, layer.of_units) for layer in plan.layers] == counts(first)
    assert counts(plan) == [(1, 5)] * LAYERS


def test_a_plan_goes_over_a_plan_beside_a_checkpoint_and_over_nothing_else(
    bert: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pruned(bert, tmp_path)
    words = ["plan", str(tmp_path), "--by", "norm", "--heads", "2", "-o"]
    assert cli.main([*words, str(tmp_path / "plan.json")]) == 0
    assert cli.main([*words, str(tmp_path / "plan.json")]) == 0
    capsys.readouterr()
    for part in ("config.json", "model.safetensors"):
        before = (tmp_path / part).read_bytes()
        assert cli.main([*words, str(tmp_path / part)]) == 2
        assert f"the output '{tmp_path / part}' is an input" in capsys.readouterr().err
        assert (tmp_path / part).read_bytes() == before


def test_importance_of_another_model_is_refused(
    bert: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pruned(bert, tmp_path / "model")
    other = random_model("bert", 3, 0, head=True)
    plans.by_norm(other).save(tmp_path / "i.safetensors")
    words = ["plan", str(tmp_path / "model"), "--importance", str(tmp_path / "i.safetensors"), "--heads", "2"]
    assert cli.main([*words, "-o", str(tmp_path / "p.json")]) == 4
    assert "made for another model: the importance has 3 layers and the model has 2" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


def test_importance_of_other_weights_of_the_same_shape_is_refused(bert: nn.Module, tmp_path: Path) -> None:
    found = score(bert, encoded(), collator())
    found.save(tmp_path / "i.safetensors")
    save_pruned(bert, tmp_path / "scored")
    other = random_model("bert", LAYERS, 1, head=True)
    save_pruned(other, tmp_path / "other")
    halved = Amount(heads=2)
    plan = plans.make_plan(tmp_path / "scored", halved, importance=tmp_path / "i.safetensors")
    assert counts(plan) == [(2, 0)] * LAYERS
    with pytest.raises(CannotApplyError, match=r"made for another model: weights of sha256 .* score this one"):
        plans.make_plan(tmp_path / "other", halved, importance=tmp_path / "i.safetensors")


def test_a_folder_without_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(tmp_path), "--by", "norm", "--heads", "2", "-o", str(tmp_path / "p.json")]) == 3
    assert "holds no model: it has no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    assert cli.main(["plan", str(tmp_path), "--by", "norm", "--heads", "2", "-o", str(tmp_path / "p.json")]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_model_is_left_as_it_was(bert: nn.Module) -> None:
    before = [layer.linears["ffn_out"].weight.clone() for layer in find_layers(bert)]
    prune_in_steps(bert, encoded(3), collator(), steps=2, allocate=halves)
    for weight, layer in zip(before, find_layers(bert), strict=True):
        assert torch.equal(weight, layer.linears["ffn_out"].weight)
