"""Masks of heads and feed-forward units: factors on what they put out, by hooks, on any encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ffc.errors import CannotApplyError
from ffc.pruning.plan import Plan, check_sizes
from ffc.train.models.layers import TorchLayer, find_layers

__all__ = ["factors", "masked"]


@contextmanager
def masked(model: nn.Module, heads: Sequence[Tensor | None], units: Sequence[Tensor | None]) -> Iterator[None]:
    """Multiply what heads and units put out, for as long as the context lasts.

    Gradients flow into the masks. A mask with a row for each example gives each its own gradient once the loss is
    summed over the examples.

    Args:
        model: An encoder; it is not changed beyond hooks, which go when the context ends.
        heads: By layer, factors [heads] or [batch, heads]; None for no mask.
        units: By layer, factors [units] or [batch, units]; None for no mask.

    Raises:
        CannotApplyError: If the encoder is not understood, or masks have other sizes than its layers.
    """
    layers = find_layers(model)
    with ExitStack() as hooks:
        for part, masks in (("heads", heads), ("units", units)):
            if len(masks) != len(layers):
                raise CannotApplyError(f"{len(masks)} masks of {part} were given for {len(layers)} layers")
        for layer, of_heads, of_units in zip(layers, heads, units, strict=True):
            if of_heads is not None:
                _hang(hooks, layer, "attn_out", of_heads, layer.head_size)
            if of_units is not None:
                _hang(hooks, layer, "ffn_out", of_units, 1)
        yield


def factors(model: nn.Module, plan: Plan) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return the masks under which an encoder computes what it computes once pruned.

    Returns:
        By layer, float32 factors [heads] and [units]: 0 where the plan drops, its scale or 1 where it keeps; None where
        it leaves the part whole.

    Raises:
        CannotApplyError: If the encoder is not understood or the plan is for other layers or widths.
    """
    layers = find_layers(model)
    check_sizes(plan, [(layer.heads, layer.units) for layer in layers])
    pairs = list(zip(layers, plan.layers, strict=True))
    heads = [_factors(layer.heads, kept.heads, kept.head_scales) for layer, kept in pairs]
    units = [_factors(layer.units, kept.units, kept.unit_scales) for layer, kept in pairs]
    return heads, units


def _factors(count: int, kept: Sequence[int] | None, scales: Sequence[float] | None) -> Tensor | None:
    if kept is None:
        return None
    mask = torch.zeros(count)
    mask[list(kept)] = torch.ones(len(kept)) if scales is None else torch.tensor(scales)
    return mask


def _hang(hooks: ExitStack, layer: TorchLayer, role: str, mask: Tensor, size: int) -> None:
    """Hook a mask, each of whose factors covers `size` neighbours, before the Linear that plays a role."""
    linear = layer.linears[role]
    if mask.shape[-1] * size != linear.in_features:
        raise CannotApplyError(
            f"layer {layer.index}, {role}: a mask {list(mask.shape)} was given for {linear.in_features // size} parts"
        )
    spread = mask.repeat_interleave(size, dim=-1)

    def multiply(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]  # [batch, tokens, parts * size]
        rows = spread if spread.ndim == 1 else spread[:, None]
        return (x * rows.to(x), *inputs[1:])

    hooks.enter_context(linear.register_forward_pre_hook(multiply))
