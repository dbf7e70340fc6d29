"""Scores that need no data: what the weights alone say about heads and units."""

from __future__ import annotations

import numpy as np

from ffc.errors import CannotApplyError
from ffc.graph.blocks.structure import Attention, Blocks, FeedForward
from ffc.pruning.importance import Importance, LayerImportance

__all__ = ["METHODS", "by_norm", "head_norms", "unit_norms"]

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

    Returns:
        Scores with method ``norm``.

    Raises:
        CannotApplyError: If the model has no layers.
    """
    if not blocks.layers:
        raise CannotApplyError("no attention or feed-forward block was found in the model, nothing to score")
    layers = tuple(LayerImportance(_heads(layer.cuttable), _units(layer.ffn)) for layer in blocks.layers)
    return Importance(layers, method="norm")


def head_norms(into: np.ndarray, out: np.ndarray, heads: int) -> np.ndarray:
    """Return the scores of the heads of one layer.

    Args:
        into: The value weight [W, heads * size].
        out: The weight of the output projection [heads * size, W].
        heads: Number of heads.

    Returns:
        float32 [heads].
    """
    into, out = into.astype(np.float32), out.astype(np.float32)
    columns = np.linalg.norm(into.reshape(into.shape[0], heads, -1), axis=(0, 2))
    rows = np.linalg.norm(out.reshape(heads, -1, out.shape[1]), axis=(1, 2))
    return np.asarray(columns * rows, np.float32)


def unit_norms(into: np.ndarray, out: np.ndarray, gate: np.ndarray | None = None) -> np.ndarray:
    """Return the scores of the feed-forward units of one layer.

    Args:
        into: The first weight [W, units].
        out: The second weight [units, W].
        gate: The weight of the gate [W, units], or None.

    Returns:
        float32 [units].
    """
    columns = np.linalg.norm(into.astype(np.float32), axis=0)
    if gate is not None:
        columns = columns * np.linalg.norm(gate.astype(np.float32), axis=0)
    return np.asarray(columns * np.linalg.norm(out.astype(np.float32), axis=1), np.float32)


def _heads(attention: Attention | None) -> np.ndarray:
    if attention is None:
        return np.zeros(0, np.float32)
    return head_norms(attention.roles["v"].matrix(), attention.roles["attn_out"].matrix(), attention.heads)


def _units(ffn: FeedForward | None) -> np.ndarray:
    if ffn is None:
        return np.zeros(0, np.float32)
    gate = None if ffn.gate is None else ffn.gate.matrix()
    return unit_norms(ffn.ffn_in.matrix(), ffn.ffn_out.matrix(), gate)
