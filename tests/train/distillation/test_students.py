"""Students: layers kept from a teacher, and ReLU in place of GELU, at once or gradually."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from ffc.errors import CannotApplyError, UsageError
from ffc.pruning import LayerPlan, Plan
from ffc.train.distillation.students import keep_layers
from ffc.train.learning.activation import Annealing, relu_for_gelu
from ffc.train.models.checkpoint import save_pruned
from ffc.train.models.layers import find_layers
from ffc.train.models.loading import load
from ffc.train.models.slicing import apply
from tests.encoders import FFN, HEADS, Kind, perturb, random_model

KINDS: tuple[Kind, ...] = get_args(Kind)
IDS = torch.tensor([[5, 9, 33, 71, 8], [7, 41, 6, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def teacher(kind: Kind = "bert", layers: int = 4) -> nn.Module:
    model = random_model(kind, layers, 0, True, "eager" if kind == "mpnet" else "sdpa")
    perturb(model, 0, zero_biases=False)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=MASK).logits
    return found


def gelus(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "gelu" in type(module).__name__.lower()]


class Skip(nn.Module):
    """In place of a layer: what goes in comes out."""

    def forward(self, values: torch.Tensor, *others: Any, **named: Any) -> Any:
        return values


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_its_teacher_without_the_other_layers(kind: Kind) -> None:
    model = teacher(kind)
    student = keep_layers(model, 2)
    skipped = teacher(kind)
    for layer in find_layers(skipped):
        if layer.index not in (1, 3):
            module: nn.Module = Skip()
            if kind == "mpnet":  # whose layers return tuples
                module.register_forward_hook(lambda module, inputs, output: (output,))
            skipped.set_submodule(layer.name, module)
    assert len(find_layers(student)) == 2
    torch.testing.assert_close(logits(student), logits(skipped), rtol=0, atol=0)
    assert not torch.equal(logits(student), logits(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_saved_and_loaded_as_it_is(kind: Kind, tmp_path: Path) -> None:
    student = keep_layers(teacher(kind), [0, 3])
    save_pruned(student, tmp_path / "student")
    torch.testing.assert_close(logits(load(tmp_path / "student")), logits(student), rtol=0, atol=0)


def test_the_teacher_stays_as_it_is_when_its_student_changes() -> None:
    model = teacher()
    before, weights = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    student = keep_layers(model, [1, 2])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert len(find_layers(model)) == model.config.num_hidden_layers == 4
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model), before)


def test_layers_of_uneven_sizes_are_kept() -> None:
    plan = Plan(
        layers=tuple(
            LayerPlan(heads=tuple(range(1 + i % HEADS)), units=tuple(range(10 + i)), of_heads=HEADS, of_units=FFN)
            for i in range(4)
        )
    )
    student = keep_layers(apply(teacher(), plan), [1, 3])
    assert [(layer.heads, layer.units) for layer in find_layers(student)] == [(2, 11), (4, 13)]
    assert logits(student).isfinite().all()


@pytest.mark.parametrize("layers", [[], [4], [-1], [2, 1], [1, 1]])
def test_layers_that_are_not_there_are_refused(layers: list[int]) -> None:
    with pytest.raises(UsageError, match=r"cannot keep the layers .*; give some of 0 to 3, ascending"):
        keep_layers(teacher(), layers)


@pytest.mark.parametrize("kind", KINDS)
def test_relu_takes_the_place_of_every_gelu_in_the_layers_and_nowhere_else(kind: Kind, tmp_path: Path) -> None:
    model = teacher(kind, 2)
    assert relu_for_gelu(model) == 2
    assert all(name.split(".")[0] == "classifier" for name in gelus(model)), "ELECTRA's head keeps its own"
    assert len(gelus(model)) == (1 if kind == "electra" else 0)
    save_pruned(model, tmp_path / "relu")
    loaded = load(tmp_path / "relu")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    assert not torch.equal(logits(model), logits(teacher(kind, 2)))
    assert relu_for_gelu(model) == 0


def test_a_masked_language_model_agrees_with_its_config(tmp_path: Path) -> None:
    """Its head reads the same field, so that it goes along; otherwise it would be another one when loaded."""
    torch.manual_seed(0)
    config: Any = BertConfig(
        vocab_size=80, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    model = BertForMaskedLM(config).eval()
    assert relu_for_gelu(model) == 3
    model.save_pretrained(tmp_path / "mlm")
    loaded = BertForMaskedLM.from_pretrained(tmp_path / "mlm").eval()
    assert torch.equal(logits(loaded), logits(model))


def test_another_activation_is_left_alone() -> None:
    model = random_model("bert", 1, seed=0, head=True)
    config: Any = model.config
    config.hidden_act = "silu"
    with pytest.raises(CannotApplyError, match="activation of BertForSequenceClassification is silu, which is no GELU"):
        relu_for_gelu(model)


def test_annealing_goes_from_gelu_to_relu_linearly_and_ends_in_a_plain_relu() -> None:
    model, pure, cut = (teacher("distilbert", 1) for _ in range(3))
    annealing = Annealing(model, 0.5)
    relu_for_gelu(cut)
    blend: Any = model.get_submodule("distilbert.transformer.layer.0.ffn.activation")
    values = torch.linspace(-3, 3, 13)
    gelu, relu = nn.functional.gelu(values), nn.functional.relu(values)
    for step, part in ((0, 0.0), (1, 0.25), (2, 0.5), (4, 1.0), (8, 1.0)):
        annealing.on_step_end(None, SimpleNamespace(global_step=step, max_steps=8), None)
        torch.testing.assert_close(blend(values), (1 - part) * gelu + part * relu)
        assert annealing.done == (part == 1.0)
        if step == 0:
            assert torch.equal(logits(model), logits(pure))
    annealing.on_train_end(None, None, None)
    assert type(model.get_submodule("distilbert.transformer.layer.0.ffn.activation")) is nn.ReLU
    assert model.config.activation == "relu" and torch.equal(logits(model), logits(cut))


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_senseless_share_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"anneal is .*, wanted a number above 0 and up to 1"):
        Annealing(teacher("distilbert", 1), share)
