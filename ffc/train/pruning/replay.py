"""Replay: the layers of an encoder run one at a time, whole and pruned side by side, as the model itself calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ffc.errors import InputError
from ffc.train.models.layers import TorchLayer
from ffc.train.models.pretrained import taken

__all__ = ["Seen", "State", "start"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer computed.

    Attributes:
        inputs: What went into the Linears ``q``, ``attn_out``, ``ffn_in`` and ``ffn_out``, [B, S, parts * size].
        streams: The residual stream [B, S, W] once ``attn_out`` or ``ffn_out`` was added to it.
        output: What the layer puts out, [B, S, W].
    """

    inputs: Mapping[str, Tensor]
    streams: Mapping[str, Tensor]
    output: Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """How a model calls one of its layers, but for the hidden states.

    Attributes:
        args: The arguments by place after the hidden states.
        kwargs: Those by name.
        name: The name under which the hidden states are given; None where they come first, by place.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str | None

    def run(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Call the layer with these hidden states [B, S, W] and return those that it puts out."""
        if self.name is None:
            output = module(hidden, *self.args, **self.kwargs)
        else:
            output = module(*self.args, **self.kwargs, **{self.name: hidden})
        found: Tensor = output if isinstance(output, Tensor) else output[0]
        return found


@dataclass(eq=False)
class State:
    """A batch on its way through the layers of a model, and of the same model pruned.

    Attributes:
        calls: How each layer is called.
        real: Which tokens are real, bool [B, S].
        whole: What goes into the next layer of the whole model, [B, S, W].
        pruned: The same, of the pruned model.
        targets: By role, the streams of the whole model in the layer at hand.
    """

    calls: Sequence[Call]
    real: Tensor
    whole: Tensor
    pruned: Tensor
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    def run_whole(self, model: nn.Module, layer: TorchLayer) -> None:
        """Note what a layer of the whole model does, and go on to the next; no masks may hang on it."""
        seen = _observe(model, layer, self.calls[layer.index], self.whole)
        self.targets, self.whole = seen.streams, seen.output

    def run_pruned(self, model: nn.Module, layer: TorchLayer) -> Seen:
        """Return what a layer of the pruned model does, whose masks hang on it."""
        return _observe(model, layer, self.calls[layer.index], self.pruned)

    def advance(self, model: nn.Module, layer: TorchLayer) -> None:
        """Go on to the next layer of the pruned model, whose masks hang on it."""
        self.pruned = self.calls[layer.index].run(model.get_submodule(layer.name), self.pruned)


def start(model: nn.Module, layers: Sequence[TorchLayer], batch: Mapping[str, Tensor]) -> State:
    """Run a whole encoder, in evaluation, on a batch with an `attention_mask`, to note how it calls its layers.

    Raises:
        InputError: If its hidden states are not finite.
    """
    calls: list[Call] = []
    entries: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = None if args else next(key for key in kwargs if key.startswith("hidden"))
        hidden = args[0] if name is None else kwargs[name]
        if not bool(hidden.isfinite().all()):
            raise InputError(f"what goes into layer {len(calls)} is not finite; check the weights of the model")
        if not entries:
            entries.append(hidden)
        calls.append(Call(args[1:], {key: value for key, value in kwargs.items() if key != name}, name))

    with ExitStack() as hooks:
        for layer in layers:
            module = model.get_submodule(layer.name)
            hooks.enter_context(module.register_forward_pre_hook(note, with_kwargs=True))
        model(**taken(model, batch))
    return State(calls, batch["attention_mask"].to(entries[0].device).bool(), entries[0], entries[0])


def _observe(model: nn.Module, layer: TorchLayer, call: Call, hidden: Tensor) -> Seen:
    """Run a layer on hidden states [B, S, W]."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(role: str, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs[role], outputs[role] = args[0], output

    with ExitStack() as hooks:
        for role in ("q", "attn_out", "ffn_in", "ffn_out"):
            hooks.enter_context(layer.linears[role].register_forward_hook(partial(keep, role)))
        output = call.run(model.get_submodule(layer.name), hidden)
    attended = hidden + outputs["attn_out"]
    # Where norms follow the sums, as in BERT, the normed sum goes into the feed-forward network and past it.
    after = inputs["ffn_in"] if torch.equal(inputs["q"], hidden) else attended
    return Seen(inputs, {"attn_out": attended, "ffn_out": after + outputs["ffn_out"]}, output)
