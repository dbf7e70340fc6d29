"""Models of sentence-transformers, read from their files: an encoder, and what makes one vector of its tokens."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ffc.errors import CannotApplyError, InputError, one_line
from ffc.train.models import pooling
from ffc.train.models.checkpoint import CONFIG, WEIGHTS
from ffc.train.models.features import SENTENCE, TOKENS
from ffc.train.models.loading import MODULES, load
from ffc.train.models.pretrained import base

__all__ = ["SentenceModel", "Transformer", "encoder", "listed", "load_sentences"]

_THEIRS = "sentence_transformers."
_ENCODER = "Transformer"
_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_UNREAD = (
    "config_kwargs", "config_args", "processor_kwargs", "tokenizer_args", "processing_kwargs", "query_length",
    "document_length", "query_expansion",
)  # fmt: skip
"""Settings of an encoder that change what it computes, and that few models have."""

_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_SCORES = {"text": {"method": "forward", "method_output_name": "logits"}}

Features = dict[str, Tensor]


class SentenceModel(nn.Module):
    """An encoder, and the modules after it in their order.

    Attributes:
        config: The encoder's configuration.
        encoder: The transformer.
        stages: What comes after it; each takes the features so far and the mask, and returns the features.
    """

    base_model_prefix = "encoder"

    def __init__(self, encoder: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.config: Any = encoder.config
        self.encoder = encoder
        self.stages = nn.ModuleList(stages)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Features:
        """Return the embeddings of sentences and of their tokens.

        Args:
            input_ids: int64 [B, S].
            attention_mask: int64 [B, S], 1 at real tokens.
            token_type_ids: int64 [B, S]; left out where the encoder knows no types.

        Returns:
            `sentence_embedding` [B, width] and `token_embeddings` [B, S, width].
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        features = {TOKENS: output.last_hidden_state}
        for stage in self.stages:
            features = stage(features, attention_mask)
        return {name: features[name] for name in (SENTENCE, TOKENS)}


@dataclass(frozen=True)
class Transformer:
    """What the files say of the encoder of a model.

    Attributes:
        folder: Where its config, its weights and its tokenizer lie.
        task: What it is loaded as, a task of transformers.
        longest: Tokens that a text is cut to; None where it is up to the tokenizer.
        lowers: Whether texts are lowered before the tokenizer has them.
    """

    folder: Path
    task: str = "feature-extraction"
    longest: int | None = None
    lowers: bool = False


class _Pooling(nn.Module):
    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, features: Features, mask: Tensor) -> Features:
        return features | {SENTENCE: pooling.pool(features[TOKENS], mask, self.modes)}


class _Normalize(nn.Module):
    def __init__(self, source: str, target: str) -> None:
        super().__init__()
        self.source, self.target = source, target

    def forward(self, features: Features, mask: Tensor) -> Features:
        return features | {self.target: nn.functional.normalize(features[self.source], p=2.0, dim=-1)}


class _Dense(nn.Module):
    def __init__(self, source: str, target: str, linear: nn.Module, activation: nn.Module, skip: nn.Module | None):
        super().__init__()
        self.source, self.target = source, target
        self.linear, self.activation, self.skip = linear, activation, skip

    def forward(self, features: Features, mask: Tensor) -> Features:
        given = features[self.source]
        found = self.activation(self.linear(given))
        return features | {self.target: found if self.skip is None else found + self.skip(given)}


def listed(folder: Path) -> list[tuple[str, Path]] | None:
    """Return the modules of a model, each by its class and its folder, or None for another kind of model.

    Raises:
        InputError: If the list is damaged, or names a folder elsewhere.
        CannotApplyError: If there is a module that ffc does not know.
    """
    if not (folder / MODULES).is_file():
        return None
    found = []
    for entry in _read(folder / MODULES, list):
        kind, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str):
            raise InputError(f"{folder / MODULES} is damaged: a module has no type or no path; save the model again")
        path = PurePosixPath(place)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{folder / MODULES} names a folder elsewhere, '{one_line(place, 60)}'; it is unsafe")
        if kind.startswith("ffc."):
            raise InputError(f"{folder} is a compiled model; name its model.onnx, or the model that it was made of")
        name = kind.rpartition(".")[2]
        if not kind.startswith(_THEIRS) or name not in (_ENCODER, *_STAGES):
            raise CannotApplyError(
                f"{folder / MODULES} has a module '{one_line(kind, 80)}', which ffc does not know; known: "
                f"{', '.join((_ENCODER, *_STAGES))} of sentence-transformers"
            )
        found.append((name, folder / path))
    return found


def encoder(folder: Path) -> Transformer:
    """Return what the files in a folder say of an encoder.

    Raises:
        InputError: If they are damaged.
        CannotApplyError: If they ask for what ffc does not know.
    """
    path = next((folder / name for name in _SETTINGS if (folder / name).is_file()), None)
    found = {} if path is None else _read(path)
    unread = [name for name in _UNREAD if found.get(name)]
    if found.get("modality_config", _TEXT) not in (_TEXT, _SCORES):
        unread.append("modality_config")
    if unread:
        raise CannotApplyError(f"{path} has '{unread[0]}', which ffc does not know; save the model without it")
    most = found.get("max_seq_length")
    if most is not None and not (isinstance(most, int) and most > 0):
        raise InputError(f"{path} is damaged: its max_seq_length is no number of tokens; save the model again")
    task = str(found.get("transformer_task", Transformer.task))
    return Transformer(folder, task, most, bool(found.get("do_lower_case")))


def load_sentences(source: Transformer, after: Sequence[tuple[str, Path]]) -> SentenceModel:
    """Load an encoder and the modules after it, each by its class and its folder; nothing is unpickled.

    Raises:
        InputError: If files are missing or damaged.
        CannotApplyError: If modules do something that ffc does not know, or make no vector of a sentence.
    """
    stages = [_STAGES[name](folder) for name, folder in after]
    if not any(isinstance(stage, _Pooling) for stage in stages):
        raise CannotApplyError(f"the model in {source.folder} has no Pooling, so it makes no vector of a sentence")
    return SentenceModel(base(load(source.folder)), stages).eval()


def _pooling(folder: Path) -> nn.Module:
    found = _read(folder / CONFIG)
    if not found.get("include_prompt", True):
        raise CannotApplyError(
            f"{folder / CONFIG} leaves prompts out of the pooling, whose length is no input of a graph; "
            "set include_prompt to true if the model is used without prompts"
        )
    old = [mode for key, mode in pooling.OLD_KEYS.items() if found.get(key)]
    given = found.get("pooling_mode", old or ["mean"])
    modes = [given] if isinstance(given, str) else list(given)
    if unknown := [mode for mode in modes if mode not in pooling.MODES] or [
        key for key, on in found.items() if key.startswith("pooling_mode_") and on and key not in pooling.OLD_KEYS
    ]:
        raise CannotApplyError(
            f"{folder / CONFIG} pools by '{unknown[0]}', which ffc does not know; known: {', '.join(pooling.MODES)}"
        )
    return _Pooling(modes)


def _normalize(folder: Path) -> nn.Module:
    return _Normalize(*_ends(folder, _read(folder / CONFIG) if (folder / CONFIG).is_file() else {}))


def _dense(folder: Path) -> nn.Module:
    found = _read(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}; other weights are not read, save it with a newer version")
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} is damaged: {one_line(str(error), 200)}; save the model again") from error
    skip: nn.Module | None = None
    if found.get("use_residual"):
        skip = _linear(folder, weights, "residual") if "residual.weight" in weights else nn.Identity()
    activation = _activation(folder, found.get("activation_function", "torch.nn.modules.activation.Tanh"))
    return _Dense(*_ends(folder, found), _linear(folder, weights, "linear"), activation, skip)


_STAGES: Mapping[str, Callable[[Path], nn.Module]] = {"Pooling": _pooling, "Dense": _dense, "Normalize": _normalize}
"""What reads a module after the encoder from its folder, by its class."""


def _ends(folder: Path, found: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a module reads and what it writes."""
    source = found.get("module_input_name", SENTENCE)
    target = found.get("module_output_name") or source
    for name in (source, target):
        if name not in (SENTENCE, TOKENS):
            raise CannotApplyError(f"{folder / CONFIG} names '{one_line(str(name), 60)}'; known: {SENTENCE}, {TOKENS}")
    return source, target


def _linear(folder: Path, weights: Mapping[str, Tensor], name: str) -> nn.Linear:
    weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
    if weight is None or weight.ndim != 2:
        raise InputError(f"{folder / WEIGHTS} has no matrix '{name}.weight'; save the model again")
    with torch.device("meta"):  # without drawing weights
        result = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    result.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias}, assign=True)
    return result


def _activation(folder: Path, path: str) -> nn.Module:
    home, _, name = str(path).rpartition(".")
    found = getattr(nn, name, None) if home in ("torch.nn.modules.activation", "torch.nn.modules.linear") else None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise CannotApplyError(f"{folder / CONFIG} has the activation '{one_line(str(path), 80)}', not one of torch.nn")
    try:
        made: nn.Module = found()
    except TypeError as error:
        raise CannotApplyError(f"{folder / CONFIG} has the activation '{name}', which takes arguments") from error
    if made.state_dict():
        raise CannotApplyError(f"{folder / CONFIG} has the activation '{name}', whose own weights are not read")
    return made


def _read(path: Path, kind: type = dict) -> Any:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; save the model again") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {one_line(str(error), 100)}; save the model again") from error
    if not isinstance(found, kind):
        raise InputError(f"{path} is damaged: it holds no {'list' if kind is list else 'object'}; save the model again")
    return found
