"""Surgery: cut heads and feed-forward units out of a torch encoder as a plan says."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ffc.pruning.plan import Plan, check_sizes, check_weight, fingerprint
from ffc.train.models.layers import HEAD_COUNTS, TorchLayer, find_layers

__all__ = ["HeadPlanes", "apply", "cut_heads", "cut_units", "keep_planes", "planes", "stamp"]

_BIAS = "position_bias"


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a smaller model that computes what the given one does with the plan's `masks.factors`.

    The scales of the plan are folded into the weights. Layers may keep different numbers. The config is left as it is:
    `checkpoint` saves and loads what comes out.

    Args:
        model: An encoder, which stays as it is.
        plan: What to keep; where it has fingerprints they must be those of the model's weights.

    Returns:
        A new model with weights of its own, without gradients, in the mode of the given one; it can be trained on.

    Raises:
        CannotApplyError: If the encoder is not understood, or the plan is for other layers, widths or weights.
    """
    layers = find_layers(model)
    check_sizes(plan, [(layer.heads, layer.units) for layer in layers])
    for layer, kept in zip(layers, plan.layers, strict=True):
        for role in layer.linears:
            check_weight(kept, layer.index, role, layer.matrix(role), needed=False)
    smaller = copy.deepcopy(model)
    smaller.zero_grad(set_to_none=True)
    for layer, kept in zip(find_layers(smaller), plan.layers, strict=True):
        if kept.heads is not None:
            cut_heads(layer, kept.heads, kept.head_scales)
        if kept.units is not None:
            cut_units(layer, kept.units, kept.unit_scales)
    return smaller


def stamp(plan: Plan, model: nn.Module) -> Plan:
    """Return `plan` with the fingerprints of a model's weights, those that its ONNX export has too.

    Raises:
        CannotApplyError: If the encoder is not understood, or the plan is for other layers or widths.
    """
    layers = find_layers(model)
    check_sizes(plan, [(layer.heads, layer.units) for layer in layers])
    stamped = [
        kept.model_copy(update={"fingerprints": {role: fingerprint(layer.matrix(role)) for role in layer.linears}})
        for kept, layer in zip(plan.layers, layers, strict=True)
    ]
    return plan.model_copy(update={"layers": tuple(stamped)})


def cut_heads(layer: TorchLayer, kept: Sequence[int], scales: Sequence[float] | None = None) -> None:
    """Keep heads of a layer, in place.

    Args:
        layer: The layer; what it says of itself is that of before.
        kept: The heads to keep, ascending.
        scales: A factor for each, folded into its columns of the output projection.
    """
    device = layer.linears["q"].weight.device
    width = torch.arange(layer.heads * layer.head_size, device=device).reshape(layer.heads, layer.head_size)
    places = width[list(kept)].flatten()
    for linear in (*(layer.linears[role] for role in ("q", "k", "v")), *layer.positions.values()):
        _keep_rows(linear, places)
    spread = None if scales is None else torch.tensor(scales, dtype=torch.float64).repeat_interleave(layer.head_size)
    _keep_columns(layer.linears["attn_out"], places, spread)
    numbers = {name: len(kept) for name in HEAD_COUNTS} | {"all_head_size": len(places)}
    for name in numbers.keys() & vars(layer.attention).keys():
        setattr(layer.attention, name, numbers[name])
    if len(kept) < layer.heads and _BIAS in inspect.signature(layer.attention.forward).parameters:
        before = planes(layer.attention) or tuple(range(layer.heads))
        keep_planes(layer.attention, [before[head] for head in kept])


def cut_units(layer: TorchLayer, kept: Sequence[int], scales: Sequence[float] | None = None) -> None:
    """Keep feed-forward units of a layer, in place.

    Args:
        layer: The layer; what it says of itself is that of before.
        kept: The units to keep, ascending.
        scales: A factor for each, folded into its column of the second Linear.
    """
    places = torch.tensor(kept, device=layer.linears["ffn_in"].weight.device)
    _keep_rows(layer.linears["ffn_in"], places)
    factors = None if scales is None else torch.tensor(scales, dtype=torch.float64)
    _keep_columns(layer.linears["ffn_out"], places, factors)


@dataclass(frozen=True)
class HeadPlanes:
    """A hook before attention that takes the kept heads of a bias [batch, heads, tokens, tokens].

    MPNet computes one such bias from relative positions for all its layers, with a plane for each head of the uncut
    model.

    Attributes:
        kept: The planes to take, ascending.
        place: Where the bias stands among the arguments of the attention.
    """

    kept: tuple[int, ...]
    place: int

    def __call__(
        self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with the planes of the kept heads alone."""
        if isinstance(bias := named.get(_BIAS), Tensor):
            return inputs, {**named, _BIAS: bias[:, list(self.kept)]}
        if len(inputs) > self.place and isinstance(bias := inputs[self.place], Tensor):
            return (*inputs[: self.place], bias[:, list(self.kept)], *inputs[self.place + 1 :]), named
        return inputs, named


def planes(attention: nn.Module) -> tuple[int, ...] | None:
    """Return the planes of the bias that an attention takes, or None where it takes all."""
    hooks = (hook for hook in attention._forward_pre_hooks.values() if isinstance(hook, HeadPlanes))
    return next((hook.kept for hook in hooks), None)


def keep_planes(attention: nn.Module, kept: Sequence[int]) -> None:
    """Make an attention take planes of its bias, in place of those that it took before."""
    for key, hook in list(attention._forward_pre_hooks.items()):
        if isinstance(hook, HeadPlanes):
            del attention._forward_pre_hooks[key]
            attention._forward_pre_hooks_with_kwargs.pop(key, None)
    place = list(inspect.signature(attention.forward).parameters).index(_BIAS)
    attention.register_forward_pre_hook(HeadPlanes(tuple(kept), place), with_kwargs=True)


def _keep_rows(linear: nn.Linear, places: Tensor) -> None:
    """Keep outputs of a Linear."""
    linear.weight = _parameter(linear.weight, linear.weight.detach()[places])
    if linear.bias is not None:
        linear.bias = _parameter(linear.bias, linear.bias.detach()[places])
    linear.out_features = len(places)


def _keep_columns(linear: nn.Linear, places: Tensor, scales: Tensor | None) -> None:
    """Keep inputs of a Linear, each times its scale."""
    weight = linear.weight.detach()[:, places]
    if scales is not None:
        weight = weight * scales.to(weight)
    linear.weight = _parameter(linear.weight, weight)
    linear.in_features = len(places)


def _parameter(former: Tensor, value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.contiguous(), requires_grad=former.requires_grad)
