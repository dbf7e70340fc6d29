"""What a student learns from: losses against labels and against a teacher, one value a row.

Every loss is a mean over the real tokens of its row alone, so that neither padding nor the other rows of a batch have a
say in it; whoever adds rows up divides by their number once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "IGNORED",
    "divergence",
    "hidden_loss",
    "label_loss",
    "logit_loss",
    "relation_log_probabilities",
    "row_means",
]

IGNORED = -100
"""The label of a token or row that is not to be learned, as torch has it."""

_MASKED = -1e9
"""Score of a padding key: its probability is exactly 0, and unlike −inf it leaves differences of logarithms finite."""


def row_means(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of each row's counted values; 0 for a row that has none.

    Args:
        values: [B, S].
        counted: bool [B, S].

    Returns:
        [B].
    """
    weights = counted.to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each row with its label, or the mean over its labelled tokens.

    Args:
        logits: [B, C], or [B, S, C] where tokens are labelled.
        labels: int64 [B] or [B, S]; `IGNORED` counts for nothing.

    Returns:
        [B].
    """
    losses = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses if labels.dim() == 1 else row_means(losses.view_as(labels), labels != IGNORED)


def logit_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of each row with the teacher's probabilities, −T² Σ softmax(t/T) · log softmax(s/T).

    The factor T² keeps the size of the gradients, which shrink with 1/T² as the temperature T grows (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", arXiv 1503.02531), so that weights need no change with it.

    Args:
        student: Logits [B, C], or [B, S, C].
        teacher: Logits of the same shape.
        temperature: T.
        counted: bool [B, S]: which tokens to take the mean over; for logits [B, S, C].

    Returns:
        [B].
    """
    wanted = functional.softmax(teacher / temperature, dim=-1)
    losses = -(temperature**2) * (wanted * functional.log_softmax(student / temperature, dim=-1)).sum(dim=-1)
    return losses if counted is None else row_means(losses, counted)


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of each row, the mean over its real tokens and over the width.

    Args:
        student: [B, S, W], projected to the teacher's width.
        teacher: [B, S, W].
        mask: bool [B, S], true at real tokens.

    Returns:
        [B].
    """
    return row_means((student - teacher).square().mean(dim=-1), mask)


def relation_log_probabilities(one: Tensor, other: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Return the logarithms of scaled dot-product relations among tokens, log softmax(a bᵀ / √d), by head.

    Vectors of all heads, concatenated, are cut anew into `heads` parts (MiniLM-v2, Wang et al., arXiv 2012.15828). That
    makes models of different widths and numbers of heads comparable. Where the width is no multiple of `heads`, as in a
    pruned model, the first parts are one wider than the others; each is scaled by its own width. Of queries and keys,
    cut into the model's own heads, these are its attention maps, without dropout.

    Args:
        one: [B, S, W].
        other: [B, S, W].
        heads: How many parts, at most W.
        mask: bool [B, S], true at real tokens.

    Returns:
        [B, heads, S, S]; the probability of a padding key is 0.
    """
    left = _cut(one, heads)
    right = left if other is one else _cut(other, heads)
    scores = left @ right.transpose(-1, -2)
    return functional.log_softmax(scores.masked_fill(~mask[:, None, None, :], _MASKED), dim=-1)


def divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of each row from the teacher's, the mean over heads and real tokens.

    Args:
        student: Logarithms of probabilities [B, heads, S, S]; the last axis adds up to 1.
        teacher: The same of the teacher; where its number of heads differs, both are averaged over heads first.
        mask: bool [B, S], true at real tokens.

    Returns:
        [B].
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = _mean_of_heads(student), _mean_of_heads(teacher)
    terms = functional.kl_div(student, teacher, reduction="none", log_target=True)
    return row_means(terms.sum(dim=-1).mean(dim=1), mask)


def _cut(values: Tensor, heads: int) -> Tensor:
    """Cut [B, S, W] into [B, heads, S, widest], padded with zeros, each part over the fourth root of its width."""
    batch, length, total = values.shape
    width, wider = divmod(total, heads)
    if not wider:
        return values.reshape(batch, length, heads, width).transpose(1, 2) / math.pow(width, 0.25)
    end = wider * (width + 1)
    first = values[..., :end].reshape(batch, length, wider, width + 1) / math.pow(width + 1, 0.25)
    rest = values[..., end:].reshape(batch, length, heads - wider, width) / math.pow(width, 0.25)
    return torch.cat([first, functional.pad(rest, (0, 1))], dim=-2).transpose(1, 2)


def _mean_of_heads(logarithms: Tensor) -> Tensor:
    """Return the logarithm of the mean over heads of what `logarithms` [B, heads, S, S] are the logarithms of."""
    return logarithms.logsumexp(dim=1, keepdim=True) - math.log(logarithms.shape[1])
