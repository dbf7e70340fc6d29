"""Plans of a torch checkpoint, made from its sizes and the norms of its weights as those of an ONNX file are."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ffc.errors import CannotApplyError
from ffc.pruning.amount import Amount, check_source
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import Plan
from ffc.pruning.score import head_norms, unit_norms
from ffc.pruning.sizes import LayerSizes
from ffc.train.anatomy import TorchLayer, anatomy
from ffc.train.checkpoint import load_pruned
from ffc.train.importance import layers_hash
from ffc.train.surgery import stamp

__all__ = ["by_norm", "layer_sizes", "make_plan"]


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
    check_source(importance, by)
    scores = None if importance is None else Importance.load(importance)
    model = load_pruned(folder)
    layers = layer_sizes(model)
    if scores is None:
        scores = by_norm(model)
    reason = scores.misfit([(layer.heads, layer.units) for layer in layers])
    if reason := reason or scores.estranged(layers_hash(anatomy(model))):
        raise CannotApplyError(f"{importance} was made for another model: {reason}")
    return stamp(amount.plan(scores, layers), model)


def layer_sizes(model: nn.Module) -> tuple[LayerSizes, ...]:
    """Return the sizes of every encoder layer of a model.

    Raises:
        CannotApplyError: If the encoder is not understood.
    """
    return tuple(
        LayerSizes.of(layer.heads, layer.units, width=layer.linears["q"].in_features, head_size=layer.head_size)
        for layer in anatomy(model)
    )


def by_norm(model: nn.Module) -> Importance:
    """Score heads and units by the size of the weights on their way in and out, as `ffc.pruning.by_norm` does.

    Raises:
        CannotApplyError: If the encoder is not understood.
    """
    return Importance(tuple(_norms(layer) for layer in anatomy(model)), method="norm")


def _norms(layer: TorchLayer) -> LayerImportance:
    v, attn_out, ffn_in, ffn_out = map(layer.matrix, ("v", "attn_out", "ffn_in", "ffn_out"))
    return LayerImportance(head_norms(v, attn_out, layer.heads), unit_norms(ffn_in, ffn_out))
