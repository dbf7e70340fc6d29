"""Importance: a score for every attention head and feed-forward unit of a model, and its file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ffc.errors import InputError, one_line
from ffc.graph.blocks.structure import Blocks, Layer
from ffc.graph.files import publish
from ffc.graph.files.destination import named

__all__ = ["FORMAT", "Importance", "LayerImportance", "blocks_hash", "head_count", "unit_count", "weights_hash"]

FORMAT = "ffc.importance/1"

_KEY = re.compile(r"layers\.(0|[1-9][0-9]{0,5})\.(heads|ffn)")


@dataclass(frozen=True, eq=False)
class LayerImportance:
    """The scores of one layer; larger means keep.

    Attributes:
        heads: float32 [heads], empty where the layer has no attention.
        ffn: float32 [units], empty where the layer has no feed-forward network.
    """

    heads: np.ndarray
    ffn: np.ndarray


@dataclass(frozen=True, eq=False)
class Importance:
    """The scores of all layers, and where they come from. A 0/1 mask is an importance.

    Attributes:
        layers: Scores, in the order in which data flow.
        method: How they were made, such as ``norm``.
        data: The data they were made on, or "".
        samples: Number of samples of these data.
        seed: Seed of what was random.
        model: The `weights_hash` of the model that was scored, or "".

    Raises:
        InputError: If scores are not float32, have the wrong rank or are not finite.
    """

    layers: tuple[LayerImportance, ...]
    method: str
    data: str = ""
    samples: int = 0
    seed: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        """Refuse scores that cannot be ranked."""
        if not self.layers:
            raise InputError("importance has no layers; make it again")
        for index, layer in enumerate(self.layers):
            _check_scores(f"layers.{index}.heads", layer.heads)
            _check_scores(f"layers.{index}.ffn", layer.ffn)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Importance:
        """Read an importance file.

        Args:
            path: Safetensors with ``layers.{i}.heads`` f32[heads] and ``layers.{i}.ffn`` f32[units].

        Raises:
            InputError: If the file is missing, corrupt or of another format, lacks a layer, or holds scores that are
                not float32 vectors of finite numbers.
        """
        tensors, metadata = _read(Path(path))
        found = metadata.get("format", "none")
        if found != FORMAT:
            raise InputError(f"{path}: format is '{found}', expected '{FORMAT}'; it is not an importance file")
        try:
            return cls(
                _layers(tensors),
                method=metadata.get("method", ""),
                data=metadata.get("data", ""),
                samples=_whole(metadata, "samples"),
                seed=_whole(metadata, "seed"),
                model=metadata.get("model", ""),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an importance file, which `load` reads.

        Raises:
            UsageError: If the path cannot be written.
        """
        tensors = {}
        for index, layer in enumerate(self.layers):
            tensors[f"layers.{index}.heads"] = np.ascontiguousarray(layer.heads)
            tensors[f"layers.{index}.ffn"] = np.ascontiguousarray(layer.ffn)
        told = {name: str(getattr(self, name)) for name in ("method", "data", "samples", "seed", "model")}
        metadata = {"format": FORMAT, **told}
        with publish.asked_for(f"{path}", "choose another place"):
            publish.write(named(path), save(tensors, metadata))

    def mismatch(self, blocks: Blocks) -> str | None:
        """Say why these scores are not of a model: in which layer they do not fit it, or that it has other weights."""
        sizes = [(head_count(layer), unit_count(layer)) for layer in blocks.layers]
        return self.misfit(sizes) or self.estranged(blocks_hash(blocks))

    def misfit(self, sizes: Sequence[tuple[int, int]]) -> str | None:
        """Say in which layer these scores do not fit such numbers of heads and units by layer, or None if they do."""
        if len(self.layers) != len(sizes):
            return f"the importance has {len(self.layers)} layers and the model has {len(sizes)}"
        for index, ((heads, units), scores) in enumerate(zip(sizes, self.layers, strict=True)):
            if len(scores.heads) != heads:
                return f"layer {index}: the importance has {len(scores.heads)} heads and the model has {heads}"
            if len(scores.ffn) != units:
                return f"layer {index}: the importance has {len(scores.ffn)} units and the model has {units}"
        return None

    def estranged(self, weights: str) -> str | None:
        """Say that others than the weights of this hash were scored, or None if these were or it is not known."""
        if self.model in ("", weights):
            return None
        return f"weights of sha256 {self.model[:12]} were scored and the model has {weights[:12]}; score this one"


def head_count(layer: Layer) -> int:
    """Return the number of heads of a layer that can be cut, 0 where none can."""
    return 0 if layer.cuttable is None else layer.cuttable.heads


def unit_count(layer: Layer) -> int:
    """Return the number of feed-forward units of a layer, 0 where it has none."""
    return 0 if layer.ffn is None else layer.ffn.units


def weights_hash(matrices: Iterable[np.ndarray]) -> str:
    """Return the sha256, in hex, of a model's weights, the same of a torch module and of the ONNX model made from it.

    Args:
        matrices: The weights of its products [in, out], by layer and in each by role: q, k, v, attn_out, ffn_in, gate,
            ffn_out. They are hashed as little-endian float32 in C order.
    """
    found = hashlib.sha256()
    for matrix in matrices:
        found.update(np.ascontiguousarray(matrix, dtype="<f4").data)
    return found.hexdigest()


def blocks_hash(blocks: Blocks) -> str:
    """Return the `weights_hash` of an ONNX model."""
    return weights_hash(product.matrix() for layer in blocks.layers for product in layer.products())


def _check_scores(name: str, scores: np.ndarray) -> None:
    if scores.dtype != np.float32:
        raise InputError(f"{name} is {scores.dtype}, expected float32")
    if scores.ndim != 1:
        raise InputError(f"{name} has shape {list(scores.shape)}, expected one score each, so one axis")
    if not np.isfinite(scores).all():
        raise InputError(f"{name} holds a score that is not a finite number; make the importance again")


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file."""
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file; `ffc score` makes one")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype != "F32":  # numpy has no name for some types, and reading those fails obscurely
                    raise InputError(f"{path}: {name} is {dtype}, expected F32")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        why = one_line(str(error), 200)
        raise InputError(f"cannot read {path}: not a safetensors file or damaged: {why}") from error


def _layers(tensors: dict[str, np.ndarray]) -> tuple[LayerImportance, ...]:
    """Sort tensors into layers."""
    count = 0
    for name in sorted(tensors):
        match = _KEY.fullmatch(name)
        if match is None:
            raise InputError(f"unknown tensor '{name[:60]}', expected layers.N.heads and layers.N.ffn")
        count = max(count, int(match[1]) + 1)
    return tuple(
        LayerImportance(_tensor(tensors, f"layers.{i}.heads"), _tensor(tensors, f"layers.{i}.ffn"))
        for i in range(count)
    )


def _tensor(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise InputError(f"{name} is missing; every layer needs its heads and its ffn")
    return tensors[name]


def _whole(metadata: dict[str, str], key: str) -> int:
    text = metadata.get(key, "0")
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InputError(f"metadata '{key}' is '{text[:40]}', expected a whole number")
    return int(text)
