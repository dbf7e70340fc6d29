"""First-order importance: mask gradients are exact, belong to their rows, and depend on nothing but them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.pruning import Importance, LayerPlan, Plan
from ffc.pruning.search import MaskGradients
from ffc.train.encoding import Collator, Rows
from ffc.train.evaluate import predict
from ffc.train.models.layers import find_layers
from ffc.train.models.pretrained import taken
from ffc.train.models.slicing import apply
from ffc.train.models.span_classifier import SpanClassifier
from ffc.train.pruning import importance
from ffc.train.pruning.masks import masked
from ffc.train.tasks.base import Example
from tests.encoders import FFN, HEADS, LABELS, VOCABULARY, Kind, perturb, random_model

LAYERS = 2
LENGTHS = (9, 4, 12, 7, 5)
KINDS: tuple[Kind, ...] = get_args(Kind)


def collator(length: int | None = None) -> Collator:
    """Return what pads to `length`, or to the longest row."""
    tokenizer: Any = SimpleNamespace(pad_token_id=1, pad_token_type_id=0, padding_side="right")
    return Collator(tokenizer, length)


def encoded(lengths: Sequence[int] = LENGTHS, *, seed: int = 0, labels: bool = True, spans: int = 0) -> Rows:
    """Return rows of random ids."""
    random = np.random.default_rng(seed)
    rows, examples = [], []
    for index, length in enumerate(lengths):
        row: dict[str, Any] = {"input_ids": random.integers(5, VOCABULARY, length).tolist(), "index": index}
        row |= {"attention_mask": [1] * length, "token_type_ids": random.integers(0, 2, length).tolist()}
        if spans:
            row["spans"] = [[1 + span, 3 + span] for span in range(spans)]
        if labels:
            row["labels"] = index % LABELS
        rows.append(row)
        examples.append(Example("text", label=index % LABELS if labels else None))
    return Rows(rows, examples, 64)


def chosen(rows: Rows, order: Sequence[int]) -> Rows:
    """Return some of the rows, in this order."""
    return Rows([rows[index] for index in order], [rows.examples[index] for index in order], rows.max_length)


def classifier(kind: Kind = "bert", *, seed: int = 0, exact: bool = True) -> nn.Module:
    """Return a small random classifier, in float64 unless told otherwise."""
    model = random_model(kind, LAYERS, seed, head=True, attention="eager" if kind == "mpnet" else "sdpa")
    perturb(model, seed, zero_biases=False)
    return model.double() if exact else model


def losses(model: nn.Module, rows: Rows) -> torch.Tensor:
    """Return the loss of each row, all padded to one length."""
    batch = collator()(list(rows))
    logits = model(**taken(model, batch)).logits
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


def all_parts(found: MaskGradients | Importance) -> np.ndarray:
    """Return everything that was found, the last axis by part."""
    if isinstance(found, Importance):
        return np.concatenate([part for layer in found.layers for part in (layer.heads, layer.ffn)])
    return np.concatenate([*found.heads, *found.units], axis=1)


def assert_close(found: np.ndarray, wanted: np.ndarray, relative: float) -> None:
    """Compare with a tolerance relative to the largest entry."""
    np.testing.assert_allclose(found, wanted, rtol=relative, atol=relative * float(np.abs(wanted).max()))


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    return classifier()


@pytest.fixture(scope="module")
def found(bert: nn.Module) -> MaskGradients:
    return importance.gradients(bert, encoded(), collator())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_weights_times_the_weights(kind: Kind) -> None:
    model, rows = classifier(kind), encoded()
    found = importance.gradients(model, rows, collator(), batch_size=2)
    losses(model, rows).sum().backward()
    for layer, heads, units in zip(find_layers(model), found.heads, found.units, strict=True):
        by_column = {
            role: (weight * weight.grad).sum(dim=0).detach().numpy()
            for role in ("attn_out", "ffn_out")
            if (weight := layer.linears[role].weight) is not None and weight.grad is not None
        }
        assert heads.shape == (len(rows), HEADS) and units.shape == (len(rows), FFN)
        assert_close(heads.sum(axis=0), by_column["attn_out"].reshape(HEADS, -1).sum(axis=1), 1e-5)
        assert_close(units.sum(axis=0), by_column["ffn_out"], 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_a_finite_difference_of_each_rows_loss(kind: Kind) -> None:
    model, rows, step = classifier(kind), encoded(), 1e-4
    found = importance.gradients(model, rows, collator())
    for layer in range(LAYERS):
        for part, gradients, size in (("heads", found.heads[layer], HEADS), ("units", found.units[layer], FFN)):
            for index in range(0, size, max(1, size // 4)):
                sides = []
                for move in (step, -step):
                    mask = torch.ones(size, dtype=torch.float64)
                    mask[index] += move
                    given = [mask if other == layer else None for other in range(LAYERS)]
                    none = [None] * LAYERS
                    with torch.no_grad(), masked(model, *((given, none) if part == "heads" else (none, given))):
                        sides.append(losses(model, rows))
                wanted = ((sides[0] - sides[1]) / (2 * step)).numpy()
                np.testing.assert_allclose(gradients[:, index], wanted, rtol=1e-5, atol=1e-7)


def test_each_row_has_its_own_gradient(bert: nn.Module, found: MaskGradients) -> None:
    for index in range(len(LENGTHS)):
        alone = importance.gradients(bert, chosen(encoded(), [index]), collator())
        assert_close(all_parts(alone)[0], all_parts(found)[index], 1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_gradients_do_not_depend_on_batch_size(bert: nn.Module, found: MaskGradients, batch_size: int) -> None:
    again = importance.gradients(bert, encoded(), collator(), batch_size=batch_size)
    assert_close(all_parts(again), all_parts(found), 1e-6)


def test_gradients_follow_the_order_of_the_rows(bert: nn.Module, found: MaskGradients) -> None:
    order = [3, 0, 4, 2, 1]
    again = importance.gradients(bert, chosen(encoded(), order), collator())
    assert_close(all_parts(again), all_parts(found)[order], 1e-6)


def test_gradients_do_not_depend_on_padding(bert: nn.Module, found: MaskGradients) -> None:
    again = importance.gradients(bert, encoded(), collator(40))
    assert_close(all_parts(again), all_parts(found), 1e-6)


@pytest.mark.parametrize("method", importance.METHODS)
def test_scores_depend_neither_on_batch_size_nor_on_order(bert: nn.Module, method: importance.Method) -> None:
    rows = encoded()
    whole = importance.score(bert, rows, collator(), method=method)
    for batch_size, order in ((1, [0, 1, 2, 3, 4]), (2, [4, 2, 0, 3, 1]), (5, [1, 0, 3, 2, 4])):
        again = importance.score(bert, chosen(rows, order), collator(), method=method, batch_size=batch_size)
        np.testing.assert_allclose(all_parts(again), all_parts(whole), rtol=1e-6)


def test_scores_in_float32_depend_on_batch_size_by_rounding_alone() -> None:
    model, rows = classifier(exact=False), encoded()
    whole = importance.score(model, rows, collator())
    again = importance.score(model, chosen(rows, [4, 2, 0, 3, 1]), collator(40), batch_size=2)
    assert_close(all_parts(again), all_parts(whole), 1e-5)


def test_taylor_is_the_mean_size_and_fisher_the_mean_square(bert: nn.Module, found: MaskGradients) -> None:
    taylor = importance.score(bert, encoded(), collator(), method="taylor")
    fisher = importance.score(bert, encoded(), collator(), method="fisher", data="mine", seed=3)
    for layer in range(LAYERS):
        for gradient, part in ((found.heads[layer], "heads"), (found.units[layer], "ffn")):
            exact = gradient.astype(np.float64)
            np.testing.assert_allclose(getattr(taylor.layers[layer], part), np.abs(exact).mean(axis=0), rtol=1e-5)
            np.testing.assert_allclose(getattr(fisher.layers[layer], part), np.square(exact).mean(axis=0), rtol=1e-5)
    assert (taylor.method, taylor.data, taylor.samples, taylor.seed) == ("taylor", "", 5, 0)
    assert (fisher.method, fisher.data, fisher.samples, fisher.seed) == ("fisher", "mine", 5, 3)


def test_the_models_own_labels_are_those_it_finds_most_likely(bert: nn.Module) -> None:
    rows = encoded(labels=False)
    likely = predict(bert, rows, collator()).argmax(axis=1)
    labelled = Rows([{**rows[i], "labels": int(likely[i])} for i in range(len(rows))], encoded().examples, 64)
    own = importance.gradients(bert, rows, collator(), on="model")
    assert_close(all_parts(own), all_parts(importance.gradients(bert, labelled, collator())), 1e-6)
    assert np.abs(all_parts(own)).max() > 0
    assert importance.score(bert, rows, collator(), on="model").method == "taylor on model"


def test_the_models_own_probabilities_would_give_no_gradient(bert: nn.Module) -> None:
    batch = collator()([encoded()[0]])
    masks = [torch.ones(HEADS, dtype=torch.float64, requires_grad=True) for _ in range(LAYERS)]
    with masked(bert, masks, [None] * LAYERS):
        logits = bert(**taken(bert, batch)).logits
    loss = nn.functional.cross_entropy(logits, logits.detach().softmax(dim=-1))
    assert max(float(g.abs().max()) for g in torch.autograd.grad(loss, masks)) < 1e-12


def test_an_unevenly_pruned_model_is_scored(bert: nn.Module) -> None:
    layers = (LayerPlan(heads=(0, 2, 3), units=tuple(range(0, FFN, 2))), LayerPlan(heads=(1,), units=(3, 5, 150)))
    pruned, rows = apply(bert, Plan(layers=layers)), encoded()
    found = importance.gradients(pruned, rows, collator())
    assert [array.shape[1] for array in (*found.heads, *found.units)] == [3, 1, 100, 3]
    losses(pruned, rows).sum().backward()
    for layer, units in zip(find_layers(pruned), found.units, strict=True):
        weight = layer.linears["ffn_out"].weight
        assert weight.grad is not None
        assert_close(units.sum(axis=0), (weight * weight.grad).sum(dim=0).detach().numpy(), 1e-5)


def test_a_model_with_a_head_for_spans_is_scored() -> None:
    torch.manual_seed(0)
    config: Any = random_model("bert", LAYERS, 0, head=True).config
    config.ffc_spans = 2
    model = SpanClassifier.from_config(config).double().eval()
    rows = encoded(spans=2)
    found = importance.gradients(model, rows, collator(), batch_size=2)
    losses(model, rows).sum().backward()
    for layer, units in zip(find_layers(model), found.units, strict=True):
        weight = layer.linears["ffn_out"].weight
        assert weight.grad is not None
        assert_close(units.sum(axis=0), (weight * weight.grad).sum(dim=0).detach().numpy(), 1e-5)


def test_the_model_is_left_as_it_was(found: MaskGradients) -> None:
    model = classifier().train()
    frozen = next(model.parameters()).requires_grad_(False)
    inner = model.get_submodule("classifier").eval()
    again = importance.gradients(model, encoded(), collator())
    assert_close(all_parts(again), all_parts(found), 1e-6)  # without dropout, that is
    assert model.training and not inner.training
    assert not frozen.requires_grad and sum(not p.requires_grad for p in model.parameters()) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_gradients_are_taken_where_the_caller_takes_none(bert: nn.Module, found: MaskGradients) -> None:
    with torch.no_grad():
        again = importance.gradients(bert, encoded(), collator())
    assert_close(all_parts(again), all_parts(found), 1e-6)


def test_the_hash_tells_models_apart(bert: nn.Module) -> None:
    hashes = [importance.score(model, encoded((4, 5)), collator()).model for model in (bert, bert, classifier(seed=1))]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64


def test_progress_is_told(bert: nn.Module) -> None:
    told: list[tuple[int, int]] = []
    importance.gradients(bert, encoded(), collator(), batch_size=2, progress=lambda line, *count: told.append(count))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_row_without_a_label_is_refused(bert: nn.Module) -> None:
    rows = encoded()
    examples = [Example("text", label=None if index == 3 else 0) for index in range(len(rows))]
    with pytest.raises(InputError, match="row 3 has no label; score on labelled rows, or on the model's own labels"):
        importance.score(bert, Rows([rows[i] for i in range(5)], examples, 64), collator())


def test_a_label_that_the_model_does_not_know_is_refused(bert: nn.Module) -> None:
    rows = Rows([{**encoded()[0], "labels": 3}], [Example("text", label=3)], 64)
    with pytest.raises(InputError, match="a row has label 3 and the model knows 3; give rows of its task"):
        importance.gradients(bert, rows, collator())


def test_no_rows_are_refused(bert: nn.Module) -> None:
    with pytest.raises(InputError, match="there are no rows to score on"):
        importance.gradients(bert, Rows([], [], 64), collator())


def test_a_model_without_a_classifier_is_refused() -> None:
    with pytest.raises(CannotApplyError, match=r"BertModel gives no logits, and logits \[batch, labels\] are needed"):
        importance.gradients(random_model("bert", LAYERS, 0, head=False), encoded(), collator())


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    model = classifier()
    with torch.no_grad():
        find_layers(model)[0].linears["ffn_out"].weight[0, 0] = torch.inf
    with pytest.raises(InputError, match="the loss of row 2 has no finite gradient; check the weights"):
        importance.score(model, encoded(), collator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tailor"}, "cannot score by 'tailor'; did you mean 'taylor'?"),
        ({"on": "lables"}, "cannot take the loss on 'lables'; did you mean 'labels'?"),
    ],
)
def test_unknown_ways_offer_the_nearest(bert: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        importance.score(bert, encoded(), collator(), **options)
    assert str(error.value) == message
