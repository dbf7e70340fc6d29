"""A sliced encoder computes what the masked one does, trains on, and is the one that the pass `prune` makes in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import Tensor, nn

import ffc
from ffc.errors import CannotApplyError
from ffc.graph.blocks.finder import find
from ffc.pruning import LayerPlan, Plan
from ffc.pruning import stamp as stamp_onnx
from ffc.train.models.layers import ROLES, find_layers
from ffc.train.models.slicing import apply, stamp
from ffc.train.pruning.masks import factors, masked
from tests import encoders
from tests.encoders import FFN, HEADS, HIDDEN, INPUTS, VOCABULARY, Kind, random_model
from tests.train.models.test_layers import DEBERTA, SMALL

KINDS: tuple[Kind, ...] = ("bert", "roberta", "distilbert", "electra", "mpnet")
UNEVEN = Plan(
    layers=(
        LayerPlan(heads=(0, 2, 3), units=tuple(range(0, FFN, 3)), of_heads=HEADS, of_units=FFN),
        LayerPlan(heads=(1,), of_heads=HEADS),
        LayerPlan(units=(5, 70, FFN - 1)),
    )
)
SCALED = Plan(
    layers=(
        LayerPlan(
            heads=(1, 3), head_scales=(1.5, -0.5), units=tuple(range(50)), unit_scales=(2.0,) * 25 + (0.25,) * 25
        ),
        LayerPlan(heads=tuple(range(HEADS)), head_scales=(0.5, 1.0, 1.25, 2.0)),
        LayerPlan(units=(0, 7), unit_scales=(3.0, 0.0)),
    )
)
PLANS = {"uneven": UNEVEN, "scaled": SCALED}
MASKS = {
    "full": [[1] * 9] * 3,
    "right-padded": [[1] * 9, [1] * 5 + [0] * 4, [1] + [0] * 8],
    "holed": [[1, 0, 1, 1, 0, 1, 1, 1, 0], [1] * 9, [0, 1, 1, 0, 1, 1, 1, 1, 1]],
}


def encoder(kind: Kind, layers: int = 3, head: bool = True) -> nn.Module:
    model = random_model(kind, layers, 0, head, "eager" if kind == "mpnet" else "sdpa")
    encoders.perturb(model, 0, zero_biases=False)
    return model


def rows(mask: str) -> dict[str, Tensor]:
    ids = torch.randint(5, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.tensor(MASKS[mask])}


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(**batch)[0]
    return result


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Take one step of training; return the parameters by name."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = model(**rows("right-padded"), labels=torch.tensor([0, 1, 2])).loss
    loss.backward()
    assert all(torch.isfinite(it.grad).all() for it in model.parameters() if it.grad is not None)
    assert all(linear.weight.grad is not None for layer in find_layers(model) for linear in layer.linears.values())
    optimizer.step()
    return dict(model.named_parameters())


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", KINDS)
def test_sliced_equals_masked(kind: Kind, plan: str) -> None:
    model = encoder(kind)
    smaller = apply(model, PLANS[plan])
    for mask in MASKS:
        batch = rows(mask)
        with masked(model, *factors(model, PLANS[plan])):
            expected = outputs(model, batch)
        torch.testing.assert_close(outputs(smaller, batch), expected, atol=1e-5, rtol=0)
        assert (outputs(model, batch) - expected).abs().max() > 1e-2  # the plan does change the model


@pytest.mark.parametrize("share", [True, False], ids=["shared projections", "own projections"])
def test_sliced_equals_masked_where_positions_have_projections(share: bool) -> None:
    config = transformers.DebertaV2Config(**{**SMALL, "num_hidden_layers": 1}, **DEBERTA, share_att_key=share)
    torch.manual_seed(0)
    model = transformers.DebertaV2Model(config).eval()
    encoders.perturb(model, 0, zero_biases=False)
    plan = Plan(layers=(LayerPlan(heads=(0, 3), units=(1, 2, 30)),))
    batch = {name: tensor % SMALL["vocab_size"] for name, tensor in rows("full").items()}
    with masked(model, *factors(model, plan)):
        expected = outputs(model, batch)
    torch.testing.assert_close(outputs(apply(model, plan), batch), expected, atol=1e-5, rtol=0)


def test_a_smaller_model_is_a_new_one() -> None:
    model = encoder("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = apply(model, UNEVEN)
    assert [(layer.heads, layer.units) for layer in find_layers(smaller)] == [(3, 67), (1, FFN), (HEADS, 3)]
    assert [(layer.heads, layer.units) for layer in find_layers(model)] == [(HEADS, FFN)] * 3
    trained(smaller)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on(kind: Kind) -> None:
    smaller = apply(encoder(kind), UNEVEN)
    before = {name: tensor.detach().clone() for name, tensor in smaller.named_parameters()}
    after = trained(smaller)
    for layer in find_layers(smaller):
        assert all(not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"]) for name in layer.names.values())


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_what_was_cut_can_be_cut_again(kind: Kind) -> None:
    model = encoder(kind)
    once = apply(model, UNEVEN)
    twice = apply(once, Plan(layers=(LayerPlan(heads=(0, 2), units=(1, 2)), LayerPlan(), LayerPlan(heads=(3,)))))
    at_once = apply(
        model,
        Plan(
            layers=(
                LayerPlan(heads=(0, 3), units=(3, 6)),
                LayerPlan(heads=(1,)),
                LayerPlan(heads=(3,), units=(5, 70, FFN - 1)),
            )
        ),
    )
    assert torch.equal(outputs(twice, rows("holed")), outputs(at_once, rows("holed")))


def test_the_mode_and_what_is_frozen_are_kept() -> None:
    model = encoder("bert").train()
    frozen = find_layers(model)[0].linears["q"].weight.requires_grad_(False)
    smaller = apply(model, UNEVEN)
    assert smaller.training and not frozen.requires_grad
    weights = [layer.linears["q"].weight for layer in find_layers(smaller)]
    assert [weight.requires_grad for weight in weights] == [False, True, True]


def test_a_mask_has_a_row_for_each_example() -> None:
    model = encoder("bert")
    heads, units = factors(model, SCALED)
    batch = rows("right-padded")
    with masked(model, heads, units):
        together = outputs(model, batch)
    by_row = [
        [None if mask is None else torch.stack([torch.ones_like(mask), mask, mask]) for mask in part]
        for part in (heads, units)
    ]
    with masked(model, *by_row):
        mixed = outputs(model, batch)
    torch.testing.assert_close(mixed[1:], together[1:])
    torch.testing.assert_close(mixed[:1], outputs(model, batch)[:1])


def test_a_mask_gets_its_gradient_from_the_weight_behind_it() -> None:
    """At a mask of ones the gradient of a factor is Σ W ⊙ ∂W over the columns that it scales."""
    model = encoder("bert")
    heads = [torch.ones(HEADS, requires_grad=True) for _ in range(3)]
    units = [torch.ones(FFN, requires_grad=True) for _ in range(3)]
    with masked(model, heads, units):
        model(**rows("holed"), labels=torch.tensor([0, 1, 2])).loss.backward()
    for layer, of_heads, of_units in zip(find_layers(model), heads, units, strict=True):
        for role, mask, size in (("attn_out", of_heads, HIDDEN // HEADS), ("ffn_out", of_units, 1)):
            weight = layer.linears[role].weight
            assert weight.grad is not None and mask.grad is not None
            expected = (weight * weight.grad).sum(0).reshape(-1, size).sum(1)
            torch.testing.assert_close(mask.grad, expected, atol=1e-5, rtol=1e-4)


def test_masks_go_when_their_context_ends() -> None:
    model = encoder("bert")
    before = outputs(model, rows("full"))
    with pytest.raises(ZeroDivisionError), masked(model, *factors(model, UNEVEN)):
        raise ZeroDivisionError
    assert torch.equal(outputs(model, rows("full")), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_masks_of_other_sizes_are_refused() -> None:
    model = encoder("bert", layers=1)
    with (
        pytest.raises(CannotApplyError, match="2 masks of heads were given for 1 layers"),
        masked(model, [None] * 2, [None]),
    ):
        pass
    with (
        pytest.raises(CannotApplyError, match=r"layer 0, ffn_out: a mask \[3\] was given for 200 parts"),
        masked(model, [None], [torch.ones(3)]),
    ):
        pass


MISFITS: dict[str, tuple[tuple[LayerPlan, ...], str]] = {
    "another number of layers": ((LayerPlan(),), "the plan has 1 layers and the model has 2"),
    "a head that is not there": (
        (LayerPlan(), LayerPlan(heads=(HEADS,))),
        "layer 1, q/k/v/attn_out: the plan keeps head 4 and the model has 4",
    ),
    "made for fewer units": (
        (LayerPlan(units=(0,), of_units=FFN - 1), LayerPlan()),
        "layer 0, ffn_in/ffn_out: the plan is for 199 units and the model has 200",
    ),
    "made for other weights": (
        (LayerPlan(heads=(0,), fingerprints={"k": "0" * 64}), LayerPlan()),
        "layer 0, k: the weight is not the one the plan was made for",
    ),
    "made for other weights in all roles": (  # of which the first is named, whatever the order of hashes
        (LayerPlan(fingerprints=dict.fromkeys(reversed(ROLES), "0" * 64)), LayerPlan()),
        "layer 0, q: the weight is not the one the plan was made for",
    ),
}


@pytest.mark.parametrize(("layers", "why"), MISFITS.values(), ids=MISFITS)
def test_a_plan_for_another_model_is_refused(layers: tuple[LayerPlan, ...], why: str) -> None:
    with pytest.raises(CannotApplyError, match=why):
        apply(encoder("bert", layers=2), Plan(layers=layers))


def test_a_stamped_plan_meets_only_its_weights() -> None:
    plan = stamp(UNEVEN, encoder("bert"))
    assert apply(encoder("bert"), plan)
    for role in ("q", "k", "v", "attn_out", "ffn_in", "ffn_out"):
        other = encoder("bert")
        with torch.no_grad():
            find_layers(other)[1].linears[role].weight[0, 0] += 1e-3
        with pytest.raises(CannotApplyError, match=f"layer 1, {role}: the weight is not the one the plan was made for"):
            apply(other, plan)


def test_slicing_in_torch_equals_slicing_in_onnx(exported: Callable[..., Path], tmp_path: Path) -> None:
    slice_both_ways("bert", exported("bert", head=True), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "mpnet"])
def test_slicing_in_torch_equals_slicing_in_onnx_for_every_kind(
    kind: Kind, exported: Callable[..., Path], tmp_path: Path
) -> None:
    slice_both_ways(kind, exported(kind, head=True), tmp_path)


def slice_both_ways(kind: Kind, path: Path, folder: Path) -> None:
    """Stamp a plan with the weights of torch, slice in torch and export, slice the export, and compare the two files."""
    model = encoder(kind, layers=2)
    plan = stamp(Plan(layers=SCALED.layers[:1] + UNEVEN.layers[1:2]), model)
    assert plan == stamp_onnx(plan, find(ffc.load(path)))
    plan.save(folder / "plan.json")
    ffc.compile(path, f"prune{{plan={folder / 'plan.json'}}}", target="portable", out=folder / "onnx.onnx")
    with encoders.minilm_example().quiet():
        encoders.to_onnx(apply(model, plan), INPUTS[kind], folder / "torch.onnx", "logits")
    for mask in MASKS:
        batch = {name: tensor.numpy() for name, tensor in rows(mask).items()}
        batch |= {name: np.zeros_like(batch["input_ids"]) for name in INPUTS[kind] if name not in batch}
        ours, theirs = (run(folder / f"{name}.onnx", batch) for name in ("torch", "onnx"))
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def run(path: Path, batch: dict[str, Any]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, batch)[0]
    return logits
