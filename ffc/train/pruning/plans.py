"""Plans of a torch checkpoint: from scores or norms, as those of an ONNX file are, or from a search on rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ffc.errors import CannotApplyError
from ffc.progress import Tell
from ffc.pruning import amount as amounts
from ffc.pruning import search as fisher_search
from ffc.pruning.allocate import Floor
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import Plan
from ffc.pruning.planning import given_scores
from ffc.pruning.score import head_norms, unit_norms
from ffc.pruning.sizes import LayerSizes
from ffc.settings.amount import LENGTH, Amount
from ffc.train.models.layers import TorchLayer, find_layers
from ffc.train.models.loading import load
from ffc.train.models.slicing import stamp
from ffc.train.pruning import scales
from ffc.train.pruning.importance import Target, gradients, layers_hash

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows

__all__ = ["by_norm", "layer_sizes", "make_plan", "search"]


def make_plan(folder: Path, amount: Amount, *, importance: Path | None = None, by: str | None = None) -> Plan:
    """Make a plan for a checkpoint, with the fingerprints that its ONNX export has too.

    Args:
        folder: The checkpoint, pruned before or not.
        amount: How much to keep.
        importance: An importance file.
        by: A way to score the model without data instead: ``norm``.

    Raises:
        UsageError: If there is not exactly one source of scores, or the amount cannot be kept.
        InputError: If a file is broken.
        CannotApplyError: If the encoder is not understood, or the importance is of another shape or other weights.
    """
    scores = given_scores(importance, by)
    model = load(folder)
    layers = layer_sizes(model)
    scores = scores or by_norm(model)
    reason = scores.misfit([(layer.heads, layer.units) for layer in layers])
    if reason := reason or scores.estranged(layers_hash(find_layers(model))):
        raise CannotApplyError(f"{importance} was made for another model: {reason}")
    return stamp(amounts.plan(amount, scores, layers), model)


def search(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    *,
    macs: float,
    length: int = LENGTH,
    floor: Floor = None,
    on: Target = "labels",
    first_token: bool = False,
    progress: Tell | None = None,
) -> Plan:
    """Choose what to keep of a model that is not trained again: the Fisher search, with scales for what it keeps.

    Args:
        model: A classifier, on any device; it is not changed.
        rows: Some hundred to two thousand; not those on which results are reported.
        collator: Makes a batch of some rows.
        macs: The share in (0, 1] of the multiply-accumulates of all layers that the result may cost.
        length: Length of the row to count for, in tokens.
        floor: What every layer keeps at least, of heads and of units.
        on: Whose labels gradients are taken on, as `ffc.train.pruning.importance.gradients` has it.
        first_token: Whether the head of the model reads the first token of the last layer alone.
        progress: Told after each batch of rows, and after each layer that got its scales.

    Returns:
        A plan with scales and without fingerprints; `ffc.train.models.slicing.stamp` adds them.

    Raises:
        UsageError: If the share cannot be kept, or a row is longer than the model takes.
        InputError: If there are no rows, one lacks its label, or something is not finite.
        CannotApplyError: If the encoder is not understood, it is no classifier, or its weights are in half precision.
    """
    found = gradients(model, rows, collator, on=on, progress=progress)
    plan = fisher_search(found, layer_sizes(model), macs=macs, length=length, floor=floor)
    return scales.tune(model, plan, rows, collator, first_token=first_token, progress=progress)


def layer_sizes(model: nn.Module) -> tuple[LayerSizes, ...]:
    """Return the sizes of every encoder layer of a model.

    Raises:
        CannotApplyError: If the encoder is not understood.
    """
    return tuple(
        LayerSizes.of(layer.heads, layer.units, width=layer.linears["q"].in_features, head_size=layer.head_size)
        for layer in find_layers(model)
    )


def by_norm(model: nn.Module) -> Importance:
    """Score heads and units by the size of the weights on their way in and out, as `ffc.pruning.by_norm` does.

    Raises:
        CannotApplyError: If the encoder is not understood.
    """
    return Importance(tuple(_norms(layer) for layer in find_layers(model)), method="norm")


def _norms(layer: TorchLayer) -> LayerImportance:
    v, attn_out, ffn_in, ffn_out = map(layer.matrix, ("v", "attn_out", "ffn_in", "ffn_out"))
    return LayerImportance(head_norms(v, attn_out, layer.heads), unit_norms(ffn_in, ffn_out))
