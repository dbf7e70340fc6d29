"""The head on spans gives what a loop over rows and spans gives, on every kind of encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ffc.errors import InputError
from ffc.train.models.span_classifier import SpanClassifier, bare_encoder, features, pool
from tests.encoders import Kind, perturb, random_model

KINDS: tuple[Kind, ...] = ("bert", "roberta", "distilbert", "electra", "mpnet")
SPANS = torch.tensor([[[1, 3], [4, 5]], [[0, 9], [8, 9]], [[2, 2], [0, 0]], [[5, 3], [7, 12]]])
"""One token, several, all, none in two ways, reversed, and one that runs past the end."""


def head(kind: Kind, seed: int = 0) -> SpanClassifier:
    encoder = random_model(kind, 2, seed, False, "eager" if kind == "mpnet" else "sdpa")
    perturb(encoder, seed, False)
    config: Any = encoder.config
    config.ffc_spans, config.id2label = 2, {0: "other", 1: "same"}
    torch.manual_seed(seed)
    return SpanClassifier(config, encoder).eval()


def rows(batch: int = 4, length: int = 9) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 100, (batch, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1:, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask, "spans": SPANS[:batch]}


def by_loop(hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    means = torch.zeros(len(spans), spans.shape[1], hidden.shape[-1])
    for row in range(len(spans)):
        for span, (start, end) in enumerate(spans[row].tolist()):
            tokens = hidden[row, start:end]
            if len(tokens):
                means[row, span] = sum(tokens) / len(tokens)
    return means


def test_pooling_is_the_mean_of_each_span_and_zeros_for_none() -> None:
    hidden = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(1))
    found = pool(hidden, SPANS)
    assert (found - by_loop(hidden, SPANS)).abs().max() < 1e-6
    assert found[2].abs().max() == 0 and found[3, 0].abs().max() == 0


def test_an_empty_span_has_no_gradient_and_no_nan() -> None:
    hidden = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    pool(hidden, SPANS).square().sum().backward()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all() and hidden.grad[2].abs().max() == 0 and hidden.grad[0, 1].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_a_loop_over_rows_and_spans(kind: Kind) -> None:
    model, batch = head(kind), rows()
    with torch.no_grad():
        found = model(**batch).logits
        for row in range(4):
            one = {name: values[row : row + 1] for name, values in batch.items() if name != "spans"}
            hidden = model.encoder(**one).last_hidden_state
            means = by_loop(hidden, batch["spans"][row : row + 1])
            wanted = torch.cat([hidden[0, 0], *means[0]]) @ model.classifier.weight.T + model.classifier.bias
            assert (found[row] - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)


def test_token_types_reach_the_encoders_that_know_them_and_no_others() -> None:
    types = torch.ones(4, 9, dtype=torch.int64)
    with torch.no_grad():
        plain, typed = head("bert")(**rows()).logits, head("bert")(**rows(), token_type_ids=types).logits
        same, ignored = head("distilbert")(**rows()).logits, head("distilbert")(**rows(), token_type_ids=types).logits
    assert (plain - typed).abs().max() > 1e-3
    assert torch.equal(same, ignored)


def test_labels_give_the_cross_entropy() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    output = head("bert")(**rows(), labels=labels)
    assert torch.equal(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))


@pytest.mark.parametrize("spans", [None, SPANS[:, :1], SPANS[..., :1]])
def test_rows_of_another_task_are_refused(spans: torch.Tensor | None) -> None:
    with pytest.raises(InputError, match=r"takes spans \[rows, 2, 2\], the rows have"):
        head("bert")(**rows() | {"spans": spans})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_has_no_pooler_and_is_the_same_for_the_same_seed(kind: Kind) -> None:
    config = head(kind).config
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(SpanClassifier.from_config(config).state_dict())
    assert not any("pooler" in name for name in made[0])
    assert {"classifier.weight", "classifier.bias"} < made[0].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert type(bare_encoder(config)) is type(head(kind).encoder)


def test_features_put_the_first_token_before_the_spans() -> None:
    assert features(torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]])).tolist() == [
        [1, 2, 3, 4, 5, 6]
    ]
