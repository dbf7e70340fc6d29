"""Blueprints: what the shape of a model is where its config does not say it, and models built from them."""

from __future__ import annotations

import copy
import inspect
from typing import Annotated, Any, Literal

import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2CLS

from ffc.errors import CannotApplyError, InputError
from ffc.train.models.layers import TorchLayer, find_layers
from ffc.train.models.slicing import cut_heads, cut_units, keep_planes, planes
from ffc.train.models.span_classifier import SpanClassifier

__all__ = ["Blueprint", "LayerShape", "architecture", "build", "describe", "labels"]

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", populate_by_name=True)
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Index = Annotated[int, Field(ge=0)]


class LayerShape(BaseModel):
    """What a layer has.

    Attributes:
        heads: Number of heads.
        units: Number of feed-forward units.
        planes: Where all layers share a bias by head, the planes of it that the heads take; None for all.
    """

    model_config = _STRICT

    heads: PositiveInt
    units: PositiveInt
    planes: Annotated[tuple[_Index, ...], Field(strict=False)] | None = None


class Blueprint(BaseModel):
    """What a checkpoint says beside its config: the file `ffc.json`.

    Attributes:
        format: Its format and number.
        kind: The class of the model, ``class`` in the file: one of transformers, or `SpanClassifier`.
        layers: The shape of each layer; None for an encoder whose layers ffc does not understand, which is whole.
        activations: By module path, the names of activations that are not those of the config.
        without: The modules that the class builds and the model lacks, such as a pooler.
        task: The name of the task that the model was trained for, or "".
        labels: The labels of the task, in the order of the logits.
        files: The sha256 of the files beside it, by name.
    """

    model_config = _STRICT

    format: Literal["ffc.checkpoint/1"]
    kind: Annotated[str, Field(alias="class", pattern="^[A-Za-z][A-Za-z0-9_]*$")]
    layers: Annotated[tuple[LayerShape, ...], Field(strict=False)] | None = None
    activations: dict[str, str] = {}
    without: Annotated[tuple[str, ...], Field(strict=False)] = ()
    task: str = ""
    labels: Annotated[tuple[str, ...], Field(strict=False)] = ()
    files: dict[str, _Hash] = {}


def describe(model: nn.Module) -> Blueprint:
    """Return the blueprint of a model, from which `build` makes one of the same shape.

    Raises:
        CannotApplyError: If the class is neither one of transformers nor `SpanClassifier`, or the model has parts that
            its class does not build.
    """
    kind = type(model).__name__
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig) or _class(kind) is not type(model):
        raise CannotApplyError(
            f"a {kind} cannot be saved: it is neither a model of transformers nor a SpanClassifier; save what it wraps"
        )
    with torch.device("meta"):  # shapes without memory
        plain = _new(kind, config)
    theirs, ours = dict(plain.named_modules()), dict(model.named_modules())
    task = str(getattr(config, "ffc_task", ""))
    blueprint = Blueprint(
        format="ffc.checkpoint/1",
        kind=kind,
        layers=_shapes(model),
        activations=_activations(ours, theirs),
        without=tuple(name for name in theirs if name not in ours and name.rpartition(".")[0] in ours),
        task=task,
        labels=labels(model) if task else (),
    )
    _carve(plain, blueprint)
    if strange := _difference(model, plain):
        raise CannotApplyError(f"this {kind} cannot be saved: {strange} is not what its class and config build")
    return blueprint


def build(blueprint: Blueprint, config: PreTrainedConfig) -> nn.Module:
    """Return a new model of the shape that a blueprint and a config state, with random weights.

    Raises:
        InputError: If the two do not go together.
    """
    model = _new(blueprint.kind, config)
    _carve(model, blueprint)
    return model


def labels(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the labels of a model, in the order of its logits."""
    config: Any = model.config
    return tuple(str(config.id2label[index]) for index in range(config.num_labels))


def architecture(name: str, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return a model class of transformers.

    Raises:
        InputError: If there is none of this name, or it is for other configs.
    """
    found = _class(name)
    if found is None or not issubclass(found, PreTrainedModel):
        raise InputError(f"'{name[:60]}' is no model of this transformers {transformers.__version__}; update it")
    if not isinstance(config, found.config_class or ()):
        raise InputError(f"{name} does not go with a config of type '{config.model_type}'; the files are of two models")
    return found


def _class(name: str) -> type[nn.Module] | None:
    if name == SpanClassifier.__name__:
        return SpanClassifier
    found = getattr(transformers, name, None)
    return found if inspect.isclass(found) and issubclass(found, PreTrainedModel) else None


def _new(kind: str, config: PreTrainedConfig) -> nn.Module:
    config = copy.deepcopy(config)  # a model writes into its config
    if kind == SpanClassifier.__name__:
        return SpanClassifier.from_config(config)
    return architecture(kind, config)(config)


def _shapes(model: nn.Module) -> tuple[LayerShape, ...] | None:
    try:
        layers = find_layers(model)
    except CannotApplyError:  # then nothing can have been cut
        return None
    return tuple(LayerShape(heads=it.heads, units=it.units, planes=planes(it.attention)) for it in layers)


def _activations(ours: dict[str, nn.Module], theirs: dict[str, nn.Module]) -> dict[str, str]:
    """Return the names of the activations that differ from those that the config states."""
    names = {found: name for name, found in ACT2CLS.items() if inspect.isclass(found)}
    differing = (path for path in ours.keys() & theirs.keys() if type(ours[path]) is not type(theirs[path]))
    return {path: names[type(ours[path])] for path in sorted(differing) if type(ours[path]) in names}


def _carve(model: nn.Module, blueprint: Blueprint) -> None:
    """Give a model that its class has built the shape that a blueprint states."""
    for path in (*blueprint.without, *blueprint.activations):
        if not path or path not in dict(model.named_modules()):
            raise InputError(f"ffc.json names the module '{path[:60]}', which a {blueprint.kind} does not have")
    for path in blueprint.without:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, None)
    for path, name in blueprint.activations.items():
        if not inspect.isclass(ACT2CLS.get(name)):
            raise InputError(f"ffc.json names the activation '{name[:60]}', which this transformers does not have")
        activation: Any = ACT2CLS[name]
        model.set_submodule(path, activation())
    if blueprint.layers is None:
        return
    layers = find_layers(model)
    if len(layers) != len(blueprint.layers):
        raise InputError(f"ffc.json states {len(blueprint.layers)} layers and the config {len(layers)}")
    for layer, shape in zip(layers, blueprint.layers, strict=True):
        _cut(layer, shape)


def _cut(layer: TorchLayer, shape: LayerShape) -> None:
    """Cut a layer to a shape; which weights it keeps does not matter, as they are loaded afterwards."""
    for part, wanted, there in (("heads", shape.heads, layer.heads), ("units", shape.units, layer.units)):
        if wanted > there:
            raise InputError(f"ffc.json states {wanted} {part} for layer {layer.index} and the config {there}")
    if shape.heads < layer.heads:
        cut_heads(layer, range(shape.heads))
    if shape.units < layer.units:
        cut_units(layer, range(shape.units))
    if shape.planes is not None:
        if planes(layer.attention) is None or len(shape.planes) != shape.heads or max(shape.planes) >= layer.heads:
            raise InputError(f"ffc.json states planes {list(shape.planes)} for layer {layer.index}, which do not fit")
        keep_planes(layer.attention, shape.planes)


def _difference(model: nn.Module, plain: nn.Module) -> str:
    """Name a part in which two models differ in shape or kind, or nothing."""
    ours, theirs = dict(model.named_modules()), dict(plain.named_modules())
    for path in sorted(ours.keys() | theirs.keys()):
        if type(ours.get(path)) is not type(theirs.get(path)):
            return f"'{path}'"
    mine, built = model.state_dict(), plain.state_dict()
    for name in sorted(mine.keys() | built.keys()):
        if name not in mine or name not in built or mine[name].shape != built[name].shape:
            return f"'{name}'"
    return ""
