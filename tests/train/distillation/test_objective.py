"""What losses see: the tokens that count, and the inside of students and teachers of any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ffc.errors import CannotApplyError
from ffc.settings.losses import Losses
from ffc.train.distillation.capture import Capture
from ffc.train.distillation.losses import relation_log_probabilities
from ffc.train.distillation.objective import LiveTeacher, Objective, Pairing
from ffc.train.models.layers import find_layers
from ffc.train.models.pretrained import takes
from tests.encoders import VOCABULARY, Kind
from tests.train.lessons import (
    EVERYTHING,
    LENGTHS,
    classifier,
    collator,
    encoded,
    narrow,
    pruned,
)


def objective(student: nn.Module, teacher: nn.Module, losses: Losses) -> tuple[Objective, LiveTeacher]:
    pairing = Pairing.of(student, teacher, losses) if losses.inside else None
    return Objective(student, losses, pairing), LiveTeacher(teacher, losses, pairing)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_the_loss_of_a_row_depends_on_neither_padding_nor_its_neighbours(kind: Kind) -> None:
    student, teacher = classifier(kind, 2, seed=1), classifier(kind, 4)
    both = objective(student, teacher, EVERYTHING)
    rows = [encoded()[index] for index in range(len(LENGTHS))]

    def loss(chosen: list[dict[str, Any]], length: int | None) -> Tensor:
        batch = collator(length)(chosen)
        found: Tensor = both[0](batch, both[1](batch))
        return found

    together = loss(rows, None)
    torch.testing.assert_close(loss(rows, 40), together, rtol=1e-9, atol=0)
    torch.testing.assert_close(sum(loss([row], None) for row in rows), together, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_attention_maps_are_those_that_eager_attention_returns(kind: Kind) -> None:
    model = classifier(kind)
    layers = find_layers(model)
    capture = Capture(model, layers, embeddings=True, hidden=(0, 1), projections=[(1, "q"), (1, "k")])
    batch = collator()([encoded()[index] for index in range(4)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        inputs = {name: batch[name] for name in takes(model)}
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
    caught, mask = capture.take(), batch["attention_mask"] != 0
    found = relation_log_probabilities(caught.values[1, "q"], caught.values[1, "k"], layers[1].heads, mask)
    torch.testing.assert_close(found.exp(), output.attentions[1], rtol=1e-9, atol=1e-12)
    states = [caught.embeddings, caught.values[0, "hidden"], caught.values[1, "hidden"]]
    for state, expected in zip(states, output.hidden_states, strict=True):
        torch.testing.assert_close(state, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["RoFormer", "Esm"])
def test_attention_with_positions_of_its_own_is_refused(kind: str) -> None:
    """Both turn queries and keys by their place, after the Linears that are looked at."""
    model = rotary(kind)
    with pytest.raises(CannotApplyError, match=r"is not softmax\(q·k\) alone"):
        Pairing.of(model, model, Losses(attention=1.0))
    assert not any(module._forward_hooks for module in model.modules())


def rotary(kind: str) -> Any:
    """Return a small random classifier with rotary positions."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    sizes |= {"vocab_size": VOCABULARY, "max_position_embeddings": 66, "pad_token_id": 1}
    turned = {"position_embedding_type": "rotary", "mask_token_id": 4} if kind == "Esm" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, **turned)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_inside() -> None:
    student, teacher = classifier(), classifier()
    both = objective(student, teacher, Losses(hidden=1.0, attention=1.0, relations=1.0, relation_heads=7))
    batch = collator()([encoded()[0], encoded()[1]])
    assert abs(float(both[0](batch, both[1](batch)).detach())) < 1e-12


def test_projections_are_learned_only_where_widths_differ() -> None:
    teacher = classifier(layers=4)
    wide, same = (
        objective(narrow(), teacher, Losses(hidden=1.0))[0],
        objective(pruned(), teacher, Losses(hidden=1.0))[0],
    )
    assert [tuple(part.weight.shape) for part in wide.projections] == [(96, 42)] * 3
    assert not same.projections


def test_each_model_gets_the_columns_that_it_takes() -> None:
    """DistilBERT knows no token types, which its teacher uses all the same."""
    teacher = classifier("bert")
    both = objective(classifier("distilbert", seed=3), teacher, Losses(logits=1.0))
    batch = collator()([encoded()[0], encoded()[1]])
    lesson = both[1](batch)
    typed = teacher(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(lesson.logits, typed.detach())
    assert not torch.allclose(
        typed, teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    )
    assert both[0](batch, lesson).isfinite()
