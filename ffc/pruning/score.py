"""Scores that need no data: what the weights alone say about heads and units."""

from __future__ import annotations

import numpy as np

from ffc.errors import CannotApplyError
from ffc.graph.blocks import Attention, Blocks, FeedForward
from ffc.pruning.importance import Importance, LayerImportance

__all__ = ["METHODS", "by_norm"]

METHODS = ("norm",)
"""Ways to score a model without data."""


def by_norm(blocks: Blocks) -> Importance:
    """Score heads and units by the size of the weights on their way in and out.

    A head h adds ``softmax(...) @ x @ V_h @ O_h`` to the residual stream, with V_h its columns of the value weight and
    O_h its rows of the output projection. The rows of the softmax sum to one, so up to a factor that all heads of a
    layer share, ``|V_h|_F * |O_h|_F`` (Frobenius norms) bounds what it adds; that product is its score. Likewise a unit
    j adds ``act(x @ I_j + b_j) * O_j`` with column I_j and row O_j, and an activation such as GELU or ReLU grows no
    faster than its argument: its score is ``|I_j| * |O_j|``, times ``|G_j|`` where a column G_j gates it. Biases are
    left out. Scores compare within a layer, not between layers, since the scale of x differs.

    Args:
        blocks: The blocks of a model.

    Returns:
        Scores with method ``norm``.

    Raises:
        CannotApplyError: If the model has no layers.
    """
    if not blocks.layers:
        raise CannotApplyError("no attention or feed-forward block was found in the model, nothing to score")
    layers = tuple(LayerImportance(_heads(layer.attention), _units(layer.ffn)) for layer in blocks.layers)
    return Importance(layers, method="norm")


def _heads(attention: Attention | None) -> np.ndarray:
    if attention is None:
        return np.zeros(0, np.float32)
    into = attention.v.matrix().astype(np.float32)  # [W, heads * E]
    out = attention.attn_out.matrix().astype(np.float32)  # [heads * E, W]
    columns = np.linalg.norm(into.reshape(into.shape[0], attention.heads, -1), axis=(0, 2))
    rows = np.linalg.norm(out.reshape(attention.heads, -1, out.shape[1]), axis=(1, 2))
    return np.asarray(columns * rows, np.float32)


def _units(ffn: FeedForward | None) -> np.ndarray:
    if ffn is None:
        return np.zeros(0, np.float32)
    columns = np.linalg.norm(ffn.ffn_in.matrix().astype(np.float32), axis=0)
    if ffn.gate is not None:
        columns = columns * np.linalg.norm(ffn.gate.matrix().astype(np.float32), axis=0)
    rows = np.linalg.norm(ffn.ffn_out.matrix().astype(np.float32), axis=1)
    return np.asarray(columns * rows, np.float32)
