"""ReLU in place of GELU, at once or gradually."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, TrainerCallback

from ffc.errors import CannotApplyError
from ffc.settings.activation import Activation

__all__ = ["Annealing", "relu_for_gelu"]

_FIELDS = ("hidden_act", "activation")


class Annealing(TrainerCallback):
    """Moves the activations of a model from GELU to ReLU with the steps of its training."""

    def __init__(self, model: nn.Module, share: float) -> None:
        """Put blends in place of the GELUs of a model.

        Args:
            model: As for `relu_for_gelu`.
            share: The share of the steps, in (0, 1], over which the activation goes from one to the other linearly.

        Raises:
            UsageError: If the share is another number.
            CannotApplyError: As `relu_for_gelu`.
        """
        Activation("relu", share)  # which refuses a share that is none
        self._model = model
        self._share = share
        self._blends = {name: _Blend(model.get_submodule(name)) for name in _gelus(model)}
        for name, blend in self._blends.items():
            model.set_submodule(name, blend)

    @property
    def done(self) -> bool:
        """Whether nothing of GELU is left."""
        return all(blend.part >= 1 for blend in self._blends.values())

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Move on by one step."""
        part = min(1.0, state.global_step / (self._share * state.max_steps))
        for blend in self._blends.values():
            blend.part = part

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Leave plain ReLUs."""
        _put_relu(self._model, list(self._blends))

    def close(self) -> None:
        """Put the GELUs back where training has not come to its end: nothing that is saved knows a blend."""
        for name, blend in self._blends.items():
            if self._model.get_submodule(name) is blend:
                self._model.set_submodule(name, blend.gelu)


class _Blend(nn.Module):
    """(1 − part) · GELU + part · ReLU."""

    def __init__(self, gelu: nn.Module) -> None:
        super().__init__()
        self.gelu = gelu
        self.part = 0.0

    def forward(self, values: Tensor) -> Tensor:
        """Return the blend, of the shape of `values`; what has no part in it is not computed."""
        if self.part >= 1:
            return functional.relu(values)
        old: Tensor = self.gelu(values)
        return old if self.part <= 0 else torch.lerp(old, functional.relu(values), self.part)


def relu_for_gelu(model: nn.Module) -> int:
    """Put ReLU in place of the GELUs of the feed-forward blocks, and write so to the config.

    Those are replaced that the config's activation stands for, so that a saved model is the same when it is loaded: in
    every layer, and in the head of a masked language model where it reads the same field. Activations that a head or a
    pooler has of its own stay.

    Args:
        model: A transformer of transformers', with or without a head; changed in place.

    Returns:
        How many were replaced; 0 where the model has ReLU already.

    Raises:
        CannotApplyError: If the model has neither.
    """
    found = _gelus(model)
    _put_relu(model, found)
    return len(found)


def _gelus(model: nn.Module) -> list[str]:
    """Return the paths of the GELUs that the config stands for: where a model made with ReLU would have ReLU."""
    found: list[str] = []
    for prefix, part in _transformers(model).items():
        field = _field(part)
        stated = getattr(part.config, field)
        if not isinstance(stated, str) or not ("gelu" in stated or stated == "relu"):
            raise CannotApplyError(f"the activation of {type(part).__name__} is {stated}, which is no GELU; leave it")
        config = copy.deepcopy(part.config)
        setattr(config, field, "relu")
        with torch.device("meta"):
            fresh = type(part)(config)
        own = dict(part.named_modules())
        names = (name for name, module in fresh.named_modules() if isinstance(module, nn.ReLU) and name in own)
        found += [f"{prefix}{name}" for name in names if "gelu" in type(own[name]).__name__.lower()]
    return found


def _put_relu(model: nn.Module, names: list[str]) -> None:
    for name in names:
        model.set_submodule(name, nn.ReLU())
    for part in _transformers(model).values():
        setattr(part.config, _field(part), "relu")


def _transformers(model: nn.Module) -> dict[str, PreTrainedModel]:
    """Return the outermost models of transformers' in a model, by the prefix of their modules' paths."""
    if isinstance(model, PreTrainedModel):
        return {"": model}
    found = {f"{name}.": part for name, part in model.named_children() if isinstance(part, PreTrainedModel)}
    if not found:
        raise CannotApplyError(f"{type(model).__name__} holds no model of transformers', whose config states the GELU")
    return found


def _field(part: PreTrainedModel) -> str:
    """Return the name under which a config states its activation."""
    for name in _FIELDS:
        if hasattr(part.config, name):
            return name
    raise CannotApplyError(f"the config of {type(part).__name__} states no activation ({' or '.join(_FIELDS)})")
