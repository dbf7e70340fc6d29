"""Students made from their teacher: some of its layers, everything else as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from ffc.errors import UsageError
from ffc.train.distillation.layer_map import spread
from ffc.train.models.layers import find_layers

__all__ = ["keep_layers"]


def keep_layers(teacher: nn.Module, layers: int | Sequence[int]) -> nn.Module:
    """Return a student that starts as some layers of a teacher, with its embeddings, pooler and head.

    Args:
        teacher: An encoder with or without a head, pruned or not; it stays as it is.
        layers: How many layers to keep, spread evenly as `ffc.train.distillation.layer_map.spread` says; or which,
            ascending.

    Returns:
        A new model, whose config states its number of layers.

    Raises:
        UsageError: If the teacher has no such layers.
        CannotApplyError: If the teacher's layers are not understood.
    """
    found = find_layers(teacher)
    kept = spread(layers, len(found)) if isinstance(layers, int) else tuple(layers)
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < len(found):
        raise UsageError(f"cannot keep the layers {list(kept)}; give some of 0 to {len(found) - 1}, ascending")
    student = copy.deepcopy(teacher)
    path = found[0].name.rpartition(".")[0]
    every: Any = student.get_submodule(path)
    student.set_submodule(path, nn.ModuleList(every[index] for index in kept))
    _renumber(student, path, len(kept))
    return student


def _renumber(student: nn.Module, path: str, count: int) -> None:
    """State the number of layers in the configs, and in each layer its own number where it knows it."""
    for module in student.modules():
        config: Any = getattr(module, "config", None)
        if config is not None and hasattr(config, "num_hidden_layers"):
            config.num_hidden_layers = count
    every: Any = student.get_submodule(path)
    for index, layer in enumerate(every):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = index
