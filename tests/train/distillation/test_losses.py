"""Losses: each against a plain loop over rows and tokens, blind to padding, for any widths and numbers of heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ffc.errors import UsageError
from ffc.settings.losses import Losses
from ffc.train.distillation.layer_map import layer_map, spread
from ffc.train.distillation.losses import (
    IGNORED,
    divergence,
    hidden_loss,
    label_loss,
    logit_loss,
    relation_log_probabilities,
    row_means,
)

LENGTHS = (7, 3, 5)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(length: int = max(LENGTHS)) -> Tensor:
    return torch.arange(length) < torch.tensor(LENGTHS)[:, None]


def relation_by_loop(values: Tensor, widths: list[int]) -> Tensor:
    """Return softmax(a aᵀ / √d) [heads, S, S] of the columns of one row, cut into parts of these widths."""
    parts = values.split(widths, dim=-1)
    return torch.stack([torch.softmax(part @ part.T / math.sqrt(part.shape[-1]), dim=-1) for part in parts])


def test_a_row_mean_counts_what_it_should_and_is_zero_of_nothing() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0], [5.0, 5.0, 5.0]])
    counted = torch.tensor([[True, True, False], [False, False, False]])
    assert row_means(values, counted).tolist() == [2.0, 0.0]


def test_label_loss_of_rows_and_of_tokens() -> None:
    logits, labels = drawn(3, 4), torch.tensor([2, IGNORED, 0])
    expected = -torch.log_softmax(logits, dim=-1)
    torch.testing.assert_close(
        label_loss(logits, labels), torch.stack([expected[0, 2], 0 * expected[0, 0], expected[2, 0]])
    )
    tokens, marks = drawn(2, 3, 4), torch.tensor([[1, IGNORED, 3], [IGNORED, IGNORED, IGNORED]])
    logs = -torch.log_softmax(tokens, dim=-1)
    torch.testing.assert_close(
        label_loss(tokens, marks), torch.stack([(logs[0, 0, 1] + logs[0, 2, 3]) / 2, 0 * logs[0, 0, 0]])
    )


def test_logit_loss_is_the_cross_entropy_with_the_teacher() -> None:
    student, teacher = drawn(3, 4), drawn(3, 4, seed=1)
    expected = [
        -sum(torch.softmax(t, 0)[c] * torch.log_softmax(s, 0)[c] for c in range(4))
        for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(
        logit_loss(student, teacher, 1.0), torch.stack([torch.as_tensor(value) for value in expected])
    )


def test_temperature_keeps_the_size_of_gradients() -> None:
    """As T grows, T² times the gradient tends to (s − t) / C of centred logits: it does not vanish."""
    teacher = drawn(1, 4, seed=1)
    gradients = []
    for temperature in (1e3, 2e3):
        student = drawn(1, 4).requires_grad_()
        logit_loss(student, teacher, temperature).sum().backward()
        assert student.grad is not None
        gradients.append(student.grad)
    centred = [values - values.mean() for values in (drawn(1, 4), teacher)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.01, atol=1e-4)
    torch.testing.assert_close(gradients[1], (centred[0] - centred[1]) / 4, rtol=0.01, atol=1e-3)


def test_logit_loss_of_tokens_is_the_mean_over_the_counted() -> None:
    student, teacher = drawn(3, 7, 4), drawn(3, 7, 4, seed=1)
    each = logit_loss(student.flatten(0, 1), teacher.flatten(0, 1), 2.0).view(3, 7)
    expected = torch.stack([each[row, :length].mean() for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(logit_loss(student, teacher, 2.0, mask_of()), expected)


def test_hidden_loss_is_the_squared_error_at_real_tokens() -> None:
    student, teacher = drawn(3, 7, 6), drawn(3, 7, 6, seed=1)
    expected = [((student[row, :length] - teacher[row, :length]) ** 2).mean() for row, length in enumerate(LENGTHS)]
    torch.testing.assert_close(hidden_loss(student, teacher, mask_of()), torch.stack(expected))


@pytest.mark.parametrize(("width", "heads", "widths"), [(12, 3, [4, 4, 4]), (11, 3, [4, 4, 3]), (10, 4, [3, 3, 2, 2]), (3, 3, [1, 1, 1])])  # fmt: skip
def test_relations_equal_a_loop_over_rows_and_heads(width: int, heads: int, widths: list[int]) -> None:
    values = drawn(3, 7, width)
    found = relation_log_probabilities(values, values, heads, mask_of()).exp()
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[row, :, :length, :length], relation_by_loop(values[row, :length], widths))
        assert not found[row, :, :, length:].any()


def test_divergence_is_zero_from_itself_and_equals_a_loop_otherwise() -> None:
    one, other = drawn(3, 7, 12), drawn(3, 7, 8, seed=1)
    student, teacher = (relation_log_probabilities(values, values, 4, mask_of()) for values in (one, other))
    assert divergence(student, student, mask_of()).abs().max() < 1e-12
    expected = []
    for row, length in enumerate(LENGTHS):
        p, q = (relation_by_loop(values[row, :length], [width] * 4) for values, width in ((other, 2), (one, 3)))
        expected.append((p * (p.log() - q.log())).sum(-1).mean())
    torch.testing.assert_close(divergence(student, teacher, mask_of()), torch.stack(expected))


def test_maps_of_different_numbers_of_heads_are_compared_by_their_means() -> None:
    one, other = drawn(3, 7, 12), drawn(3, 7, 12, seed=1)
    mask = mask_of()
    student, teacher = relation_log_probabilities(one, one, 2, mask), relation_log_probabilities(other, other, 6, mask)
    expected = []
    for row, length in enumerate(LENGTHS):
        p, q = (
            relation_by_loop(other[row, :length], [2] * 6).mean(0),
            relation_by_loop(one[row, :length], [6] * 2).mean(0),
        )
        expected.append((p * (p.log() - q.log())).sum(-1).mean())
    torch.testing.assert_close(divergence(student, teacher, mask), torch.stack(expected))


def test_gradients_stay_finite_beside_padding() -> None:
    values = drawn(3, 7, 12).requires_grad_()
    other = drawn(3, 7, 12, seed=1)
    maps = [relation_log_probabilities(part, part, 3, mask_of()) for part in (values, other)]
    few = relation_log_probabilities(other, other, 2, mask_of())
    (divergence(maps[0], maps[1], mask_of()) + divergence(maps[0], few, mask_of())).sum().backward()
    assert values.grad is not None and values.grad.isfinite().all() and values.grad[0].any()
    assert not values.grad[1, LENGTHS[1] :].any(), "padding has no part in the loss"


@pytest.mark.parametrize(
    ("kept", "layers", "expected"),
    [
        (3, 6, (1, 3, 5)),
        (4, 12, (2, 5, 8, 11)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (1, 6, (5,)),
        (4, 6, (0, 2, 3, 5)),
        (5, 12, (1, 3, 6, 8, 11)),
    ],
)
def test_layers_are_spread_as_in_the_paper(kept: int, layers: int, expected: tuple[int, ...]) -> None:
    assert spread(kept, layers) == expected


def test_pairs_of_layers_are_taken_as_given() -> None:
    assert layer_map(2, 6) == ((0, 2), (1, 5))
    assert layer_map(2, 6, [(1, 3), (0, 0)]) == ((0, 0), (1, 3))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 6)], r"layers \(0, 6\) name the teacher's layer 6, which has layers 0 to 5"),
        ([(2, 1)], r"layers \(2, 1\) name the student's layer 2, which has layers 0 to 1"),
        ([(-1, 1)], r"layers \(-1, 1\) name the student's layer -1"),
        ([(0, 1), (0, 2)], "at most once"),
        ([], "at least one"),
    ],
)
def test_pairs_that_are_not_there_are_refused(pairs: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layer_map(2, 6, pairs)


def test_a_student_with_more_layers_than_its_teacher_is_refused() -> None:
    with pytest.raises(UsageError, match="7 layers cannot be spread over a teacher's 6; give 1 to 6"):
        layer_map(7, 6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "all losses have the weight 0"),
        ({"logits": -1.0}, "logits is -1.0, wanted a number from 0"),
        ({"hidden": math.nan}, "hidden is nan, wanted a number from 0"),
        ({"logits": 1.0, "temperature": 0.0}, "temperature is 0.0, wanted a number above 0"),
        ({"relations": 1.0, "relation_heads": 0}, "relation_heads is 0, wanted a whole number from 1"),
    ],
)
def test_senseless_losses_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Losses(**given)
