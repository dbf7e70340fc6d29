"""First-order importance: how the loss changes with a mask on each head and feed-forward unit, by exact gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ffc.errors import CannotApplyError, InputError, UsageError, nearest
from ffc.progress import Tell
from ffc.pruning.importance import Importance, LayerImportance, weights_hash
from ffc.pruning.search import MaskGradients
from ffc.train.checks import check_precision, check_rows
from ffc.train.evaluate import batches, evaluating
from ffc.train.models.layers import ROLES, TorchLayer, find_layers
from ffc.train.models.pretrained import read_logits, taken
from ffc.train.pruning.masks import masked

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["METHODS", "TARGETS", "gradients", "layers_hash", "score"]

Target: TypeAlias = Literal["labels", "model"]
Method: TypeAlias = Literal["taylor", "fisher"]

TARGETS = ("labels", "model")
"""What the loss is taken on: the labels of the rows, or the label that the model itself finds most likely."""

_MEANS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"taylor": np.abs, "fisher": np.square}
METHODS = tuple(_MEANS)
"""What of a gradient is averaged over rows: its size, or its square."""


def gradients(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    *,
    on: Target = "labels",
    batch_size: int = 32,
    progress: Tell | None = None,
) -> MaskGradients:
    """Return the gradient of every row's loss at each head and feed-forward unit.

    A mask multiplies what a head, or a unit, hands to the Linear after it. At a mask of ones, where the model is as it
    is, d loss / d mask is ``sum(W * dW)`` over the columns of that Linear that read the head, or the unit.

    Args:
        model: A classifier, pruned or not, on any device; its mode and its parameters are put back as they were.
        rows: What to take the loss on; not the rows on which results are reported.
        collator: Makes a batch of some rows.
        on: ``labels`` takes the cross-entropy with the labels of the rows. ``model`` takes it with the label that the
            model itself finds most likely, which needs none. (With all of the model's own probabilities for a target,
            the loss would be at its minimum and every gradient zero.)
        batch_size: Rows at a time; the result does not depend on it.
        progress: Told after each batch.

    Returns:
        Gradients in the order of the rows.

    Raises:
        UsageError: If `on` is unknown, or a row is longer than the model takes.
        InputError: If there are no rows, one lacks a label or has one that the model does not know, or a gradient is
            not finite.
        CannotApplyError: If the encoder is not understood, it is no classifier, or its weights are in half precision.
    """
    layers = find_layers(model)
    heads = tuple(np.empty((len(rows), layer.heads), np.float32) for layer in layers)
    units = tuple(np.empty((len(rows), layer.units), np.float32) for layer in layers)
    for chosen, found in _sweep(model, layers, rows, collator, on, batch_size, progress):
        for array, gradient in zip((*heads, *units), found, strict=True):
            array[chosen] = gradient
    return MaskGradients(heads, units)


def score(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    *,
    method: Method = "taylor",
    on: Target = "labels",
    batch_size: int = 32,
    data: str = "",
    seed: int = 0,
    progress: Tell | None = None,
) -> Importance:
    """Score heads and feed-forward units by the gradients of their masks.

    ``taylor`` is the mean of ``|g|`` over rows, the first-order estimate of how far the loss of a row moves when the
    part goes (Michel et al., "Are Sixteen Heads Really Better than One?", arXiv 1905.10650). ``fisher`` is the mean of
    ``g**2``, the diagonal of the empirical Fisher information (Kwon et al., "A Fast Post-Training Pruning Framework for
    Transformers", arXiv 2204.09656). Scores of one kind of part compare between layers.

    Args:
        model: As for `gradients`.
        rows: As for `gradients`.
        collator: As for `gradients`.
        method: ``taylor`` or ``fisher``.
        on: As for `gradients`.
        batch_size: Rows at a time; the result does not depend on it.
        data: What the rows are called in the result.
        seed: The seed that chose the rows, for the result.
        progress: Told after each batch.

    Returns:
        The scores; only their sums are held while they are made.

    Raises:
        UsageError: If `method` is unknown, or as `gradients`.
        InputError: As `gradients`.
        CannotApplyError: As `gradients`.
    """
    if method not in _MEANS:
        raise UsageError(f"cannot score by '{method}'{nearest(method, METHODS)}")
    layers = find_layers(model)
    sums = [np.zeros(layer.heads) for layer in layers] + [np.zeros(layer.units) for layer in layers]
    for _, found in _sweep(model, layers, rows, collator, on, batch_size, progress):
        for total, gradient in zip(sums, found, strict=True):
            total += _MEANS[method](gradient.astype(np.float64)).sum(axis=0)
    means = [(total / len(rows)).astype(np.float32) for total in sums]
    return Importance(
        tuple(LayerImportance(*pair) for pair in zip(means[: len(layers)], means[len(layers) :], strict=True)),
        method=method if on == "labels" else f"{method} on {on}",
        data=data,
        samples=len(rows),
        seed=seed,
        model=layers_hash(layers),
    )


def layers_hash(layers: Sequence[TorchLayer]) -> str:
    """Return the `ffc.pruning.importance.weights_hash` of a model, from its layers."""
    return weights_hash(layer.matrix(role) for layer in layers for role in ROLES)


def _sweep(
    model: nn.Module,
    layers: Sequence[TorchLayer],
    rows: Rows,
    collator: Collator,
    on: Target,
    batch_size: int,
    progress: Tell | None,
) -> Iterator[tuple[Sequence[int], list[np.ndarray]]]:
    """Yield the numbers of the rows of each batch and their gradients: of the heads by layer, then of the units."""
    if on not in TARGETS:
        raise UsageError(f"cannot take the loss on '{on}'{nearest(on, TARGETS)}")
    if not len(rows):
        raise InputError("there are no rows to score on; give at least one")
    bare = [index for index, example in enumerate(rows.examples) if example.label is None]
    if on == "labels" and bare:
        raise InputError(f"row {bare[0]} has no label; score on labelled rows, or on the model's own labels")
    check_precision(model)
    check_rows(rows, model)
    with _frozen(model):
        for chosen, batch in batches(rows, collator, batch_size, progress):
            found = _batch(model, layers, batch, on)
            broken = np.flatnonzero(~np.concatenate([np.isfinite(gradient) for gradient in found], axis=1).all(axis=1))
            if len(broken):
                raise InputError(f"the loss of row {chosen[broken[0]]} has no finite gradient; check the weights")
            yield chosen, found


def _batch(model: nn.Module, layers: Sequence[TorchLayer], batch: dict[str, Tensor], on: Target) -> list[np.ndarray]:
    """Return the gradients of the rows of one batch.

    Each row has a mask of its own, so that the gradient of the sum of the losses is that of each row's own loss.
    """
    weight = layers[0].linears["attn_out"].weight
    size = len(batch["input_ids"])
    heads, units = (
        [torch.ones(size, count, dtype=weight.dtype, device=weight.device, requires_grad=True) for count in counts]
        for counts in ([layer.heads for layer in layers], [layer.units for layer in layers])
    )
    with masked(model, heads, units):
        logits = read_logits(model, model(**taken(model, batch)))
        if logits.shape[-1] < 2:
            raise CannotApplyError(
                f"scoring needs two labels or more, {type(model).__name__} gives {logits.shape[-1]}; train a classifier"
            )
        target = logits.detach().argmax(-1) if on == "model" else batch["labels"].to(weight.device)
        if not 0 <= int(target.min()) <= int(target.max()) < logits.shape[-1]:
            raise InputError(
                f"a row has label {int(target.max())} and the model knows {logits.shape[-1]}; give rows of its task"
            )
        loss = nn.functional.cross_entropy(logits, target, reduction="sum")
        found = torch.autograd.grad(loss, [*heads, *units])
    return [gradient.float().cpu().numpy() for gradient in found]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Leave out dropout and the gradients of parameters, which would double the work, until the context ends."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter, requires in wanted:
            parameter.requires_grad_(requires)
