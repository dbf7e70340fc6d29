"""Hooks that catch what passes inside an encoder: hidden states, queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ffc.train.models.layers import TorchLayer

__all__ = ["Capture", "Caught"]

HIDDEN = "hidden"
"""What stands for the output of a layer beside the roles of its Linears."""


@dataclass(frozen=True, eq=False)
class Caught:
    """What one forward pass of a model left behind.

    Attributes:
        embeddings: What enters the first layer, [B, S, W]; None if not asked for.
        values: By layer and by ``hidden`` [B, S, W], ``q``, ``k`` or ``v`` [B, S, heads · size].
    """

    embeddings: Tensor | None
    values: dict[tuple[int, str], Tensor]


class Capture:
    """Catches values of the forward passes of a model until it is closed.

    Hooks rather than `output_hidden_states` and `output_attentions`: they work on any encoder and head, cost nothing
    for layers that are not wanted, and leave the model its fused attention kernel, which gives no maps.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[TorchLayer],
        *,
        embeddings: bool = False,
        hidden: Iterable[int] = (),
        projections: Iterable[tuple[int, str]] = (),
    ) -> None:
        """Put hooks on a model.

        Args:
            model: An encoder with or without a head.
            layers: Its layers, as `find_layers` finds them.
            embeddings: Whether to catch what enters the first layer.
            hidden: Layers of which to catch the output.
            projections: Layers and roles (``q``, ``k``, ``v``) of which to catch the output.
        """
        self._embeddings: Tensor | None = None
        self._values: dict[tuple[int, str], Tensor] = {}
        self._handles = []
        if embeddings:
            first = model.get_submodule(layers[0].name)
            self._handles.append(first.register_forward_pre_hook(self._catch_input, with_kwargs=True))
        for index in hidden:
            module = model.get_submodule(layers[index].name)
            self._handles.append(module.register_forward_hook(partial(self._catch, (index, HIDDEN))))
        for index, role in projections:
            linear = layers[index].linears[role]
            self._handles.append(linear.register_forward_hook(partial(self._catch, (index, role))))

    def take(self) -> Caught:
        """Return what the last forward pass left, and forget it."""
        caught = Caught(self._embeddings, self._values)
        self._embeddings, self._values = None, {}
        return caught

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _catch(self, key: tuple[int, str], module: nn.Module, inputs: Any, output: Any) -> None:
        self._values[key] = output if isinstance(output, Tensor) else output[0]

    def _catch_input(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._embeddings = inputs[0] if inputs else named["hidden_states"]
