"""Small models as sentence-transformers saves them, in the layouts of its versions, and what they give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.train.tiny import save_model

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.",
    "Dense": "sentence_transformers.base.modules.dense.",
    "Normalize": "sentence_transformers.base.modules.normalize.",
}
TANH = "torch.nn.modules.activation.Tanh"

Module = tuple[str, Mapping[str, Any] | None]


def save_sentences(folder: Path, modules: Sequence[Module] = (("Pooling", {"pooling_mode": "mean"}),), *, old: bool = False, encoder: str = "", **settings: Any) -> Path:
    """Save a tiny BERT with modules after it, each by its class and its config.

    Args:
        folder: Where it goes.
        modules: The modules; a Dense gets random weights of the sizes that its config states.
        old: Name the classes as version 2 did.
        encoder: The folder of the encoder below it.
        settings: What `sentence_bert_config.json` holds.
    """
    save_model(folder / encoder, layers=1)
    (folder / encoder / "sentence_bert_config.json").write_text(json.dumps(settings))
    listed = [{"idx": 0, "name": "0", "path": encoder, "type": (OLD if old else NEW["Transformer"]) + "Transformer"}]
    for index, (name, config) in enumerate(modules, 1):
        path = f"{index}_{name}"
        kind = name if "." in name else (OLD if old else NEW.get(name, OLD)) + name
        listed.append({"idx": index, "name": str(index), "path": path, "type": kind})
        if config is not None:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(config))
        if name == "Dense" and config:
            save_file(dense_weights(config), folder / path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def dense_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the random weights of a Dense, the same for the same sizes."""
    random, sizes = np.random.default_rng(0), (config["out_features"], config["in_features"])
    found = {"linear.weight": random.normal(size=sizes) / sizes[1] ** 0.5, "linear.bias": random.normal(size=sizes[0])}
    if not config.get("bias", True):
        del found["linear.bias"]
    if config.get("use_residual") and sizes[0] != sizes[1]:
        found["residual.weight"] = random.normal(size=sizes) / sizes[1] ** 0.5
    return {name: value.astype(np.float32) for name, value in found.items()}
