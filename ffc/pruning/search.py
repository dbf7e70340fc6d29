"""The Fisher search: what to keep under a MAC budget, from mask gradients, when the model is not trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffc.errors import InputError
from ffc.pruning.allocate import Floor, by_macs
from ffc.pruning.importance import Importance, LayerImportance
from ffc.pruning.plan import LayerPlan, Plan
from ffc.pruning.sizes import LayerSizes
from ffc.settings.amount import LENGTH

__all__ = ["MaskGradients", "fisher", "rearrange", "search"]

_GAIN = 1e-9
"""What a swap must gain, as a share of the whole trace: less is rounding, and could go in circles."""


@dataclass(frozen=True, eq=False)
class MaskGradients:
    """The gradient of the loss of each row with respect to masks of ones.

    Attributes:
        heads: By layer, float32 [rows, heads].
        units: By layer, float32 [rows, units].
    """

    heads: tuple[np.ndarray, ...]
    units: tuple[np.ndarray, ...]


def search(
    gradients: MaskGradients,
    layers: Sequence[LayerSizes],
    *,
    macs: float,
    length: int = LENGTH,
    floor: Floor = None,
) -> Plan:
    """Find what to keep under a MAC budget without training again.

    Two stages of Kwon et al. ("A Fast Post-Training Pruning Framework for Transformers", arXiv 2204.09656). Around a
    trained model the loss rises by about ``1/2 (1 - m)ᵀ F (1 - m)`` when its masks become m, with the empirical Fisher
    information F of the masks. The first stage takes F as diagonal and finds the best choice for all layers, see
    `by_macs`; the second takes its blocks, one for the heads and one for the units of each layer, and exchanges what is
    kept for what is not, as many as before. The third stage, scales, needs the model: `ffc.train.pruning.scales`.

    Args:
        gradients: Those of single examples.
        layers: The sizes of the layers.
        macs: The share in (0, 1] of the multiply-accumulates of all layers that the result may cost.
        length: Length of the row to count for, in tokens.
        floor: What every layer keeps at least, of heads and of units.

    Returns:
        A plan without fingerprints, its MACs stated.

    Raises:
        InputError: If there are no gradients, or one is not a finite number.
        UsageError: If the budget is no share or does not pay for the floors.
        CannotApplyError: If the gradients are not those of these layers.
    """
    plan = by_macs(fisher(gradients), layers, macs=macs, length=length, floor=floor)
    rows = zip(plan.layers, gradients.heads, gradients.units, strict=True)
    return plan.model_copy(update={"layers": tuple(_rearranged(layer, heads, units) for layer, heads, units in rows)})


def fisher(gradients: MaskGradients) -> Importance:
    """Return the diagonal of the empirical Fisher information of the masks: the mean of the squares.

    Raises:
        InputError: If there are no gradients, or one is not a finite number.
    """
    layers = tuple(
        LayerImportance(_mean_square(heads, f"layer {index}: heads"), _mean_square(units, f"layer {index}: units"))
        for index, (heads, units) in enumerate(zip(gradients.heads, gradients.units, strict=True))
    )
    return Importance(layers, "fisher", samples=len(gradients.heads[0]))


def rearrange(kept: Sequence[int], gradients: np.ndarray) -> tuple[int, ...]:
    """Exchange kept for dropped parts of a layer, one for one, as long as the block of the Fisher matrix gains by it.

    Each kept part in turn, the least important first, is dropped, and of all that are then dropped the one whose
    return gains most comes back, until a round changes nothing. So no single exchange would improve the result.

    Args:
        kept: The heads or units that are kept.
        gradients: Their gradients, and of those that are not, [n, parts].

    Returns:
        As many, ascending; the loss that is expected, ``(1 - m)ᵀ F (1 - m) / 2``, is never more than before.
    """
    g = np.asarray(gradients, np.float64)
    block = g.T @ g / len(g)
    importance = np.diagonal(block)
    dropped = np.ones(len(block), bool)
    dropped[list(kept)] = False
    if not dropped.any() or dropped.all():
        return tuple(sorted(kept))
    pull = block @ dropped  # what dropping one more adds to the loss, less its own importance, halved
    least, changed = _GAIN * importance.sum(), True
    while changed:
        changed = False
        for part in sorted(np.flatnonzero(~dropped), key=lambda index: importance[index]):
            dropped[part] = True
            pull += block[part]
            relief = np.where(dropped, 2 * pull - importance, -np.inf)  # what is gained if it comes back
            back = int(np.argmax(relief))
            if relief[back] <= relief[part] + least:
                back = int(part)
            dropped[back] = False
            pull -= block[back]
            changed |= back != part
    return tuple(int(index) for index in np.flatnonzero(~dropped))


def _rearranged(layer: LayerPlan, heads: np.ndarray, units: np.ndarray) -> LayerPlan:
    """Return a layer's plan with heads and units exchanged."""
    changes = {
        part: rearrange(kept, gradients)
        for part, kept, gradients in (("heads", layer.heads, heads), ("units", layer.units, units))
        if kept is not None
    }
    return layer.model_copy(update=changes)


def _mean_square(gradients: np.ndarray, where: str) -> np.ndarray:
    if gradients.ndim != 2 or not len(gradients):
        raise InputError(f"{where}: gradients have shape {list(gradients.shape)}, expected [examples, parts]")
    if not np.isfinite(gradients).all():
        raise InputError(f"{where}: a gradient is not a finite number; look for rows on which the loss overflows")
    return np.asarray(np.mean(np.square(gradients, dtype=np.float64), axis=0), np.float32)
