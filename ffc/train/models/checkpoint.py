"""Checkpoints: models of any shape as the files that transformers writes, and `ffc.json` for what these do not say."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from ffc.errors import InputError, one_line
from ffc.graph.files import publish
from ffc.train.models.blueprint import Blueprint, build, describe

__all__ = ["CONFIG", "RECORD", "WEIGHTS", "read_saved", "save_pruned"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
RECORD = "ffc.json"
"""The file that tells a folder that ffc has saved from one that transformers has."""


def save_pruned(
    model: nn.Module, folder: str | os.PathLike[str], tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Save a model, pruned or whole, with or without a head.

    The files are those of transformers, which itself loads them where nothing was cut; `ffc.json` states the heads and
    units of each layer. It is put in place last and has the hashes of the weights and the config, so that a folder that
    was half overwritten is not taken for a model.

    Args:
        model: A model of transformers or a `SpanClassifier`.
        folder: Where the files go; it is made where it is not there.
        tokenizer: Its files are put beside those of the model.

    Raises:
        CannotApplyError: If the model is of another class, or has parts that its class does not build.
        UsageError: If the folder cannot be written.
    """
    blueprint = describe(model)
    files = {WEIGHTS: safetensors.torch.save(_state(model), {"format": "pt"}), CONFIG: _config(model)}
    hashes = {name: _hash(content) for name, content in files.items()}
    if tokenizer is not None:
        files = _tokenizer_files(tokenizer) | files
    blueprint = blueprint.model_copy(update={"files": hashes})
    files[RECORD] = f"{blueprint.model_dump_json(by_alias=True, exclude_defaults=True, indent=1)}\n".encode()
    place = Path(folder)
    with publish.asked_for(f"{folder}", "choose another folder"):
        publish.make_folder(place)
        with publish.Staging() as staging:
            for staged in [staging.write([content], place / name) for name, content in files.items()]:
                staging.place(staged)


def read_saved(place: Path) -> nn.Module:
    """Return what `save_pruned` has saved in a folder, bit for bit; nothing is unpickled.

    Raises:
        InputError: If its files are damaged, do not belong together or are of another format.
    """
    blueprint = _record(place)
    contents = {name: _content(place, name, blueprint) for name in (CONFIG, WEIGHTS)}
    config = AutoConfig.from_pretrained(str(place), trust_remote_code=False, local_files_only=True)
    model = build(blueprint, config)
    try:
        _fill(model, safetensors.torch.load(contents[WEIGHTS]))
    except SafetensorError as error:
        raise InputError(f"{WEIGHTS} is damaged: {one_line(str(error), 200)}") from error
    return model


def _record(place: Path) -> Blueprint:
    try:
        return Blueprint.model_validate_json((place / RECORD).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {RECORD}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{RECORD} is damaged or of another format: {where}: {one_line(first['msg'], 200)}") from error


def _content(place: Path, name: str, blueprint: Blueprint) -> bytes:
    """Return the content of a file, checked against the record."""
    try:
        content = (place / name).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error
    if _hash(content) != blueprint.files.get(name):
        raise InputError(f"{name} is not the file that {RECORD} was saved with; save the model again")
    return content


def _config(model: Any) -> bytes:
    """Return the config of a model as a file, with its class and type."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = next(tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    return str(config.to_json_string()).encode()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model by name, one that bears several names once."""
    kept: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        kept.setdefault(id(tensor), name)
    return {name: state[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in kept.values()}


def _fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the tensors of a model their values and types."""
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if unknown := sorted(state.keys() - own.keys()):
        raise InputError(f"{WEIGHTS} holds '{unknown[0][:80]}', which the model does not have")
    filled = {id(own[name]) for name in state}
    if missing := sorted(name for name in own if id(own[name]) not in filled):
        raise InputError(f"{WEIGHTS} lacks '{missing[0]}'")
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise InputError(f"{WEIGHTS}: '{name}' is {list(value.shape)}, expected {list(own[name].shape)}")
        own[name].data = value.clone()


def _tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
