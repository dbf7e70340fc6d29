"""Checkpoints from wherever they lie: folders of ffc and of transformers, installed packages, the hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ffc.errors import FfcError, InputError, MissingError, one_line
from ffc.settings import packages
from ffc.train.models.blueprint import architecture
from ffc.train.models.checkpoint import CONFIG, RECORD, WEIGHTS, read_saved
from ffc.train.models.silence import silenced

__all__ = ["MODULES", "fetched", "load", "loading", "locate", "on_gpu"]

MODULES = "modules.json"
"""The file that says of what a model of sentence-transformers is made, whose encoder may lie in a folder below."""

_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
_UNWANTED = ("onnx/*", "openvino/*")
"""What is fetched of a model on the hub, and what of that is not: exports that others have made."""


def locate(source: str | Path) -> str:
    """Return where transformers finds a model.

    Args:
        source: A folder; ``package:NAME``, as `ffc.settings.packages.folder` finds it; or a name on the hub.

    Returns:
        The path of a folder, or the name on the hub as it is.

    Raises:
        InputError: If there is no such folder, or it holds no model; likewise of a package.
        MissingError: If the package is not installed.
    """
    text = os.fspath(source)
    if text.startswith(packages.PREFIX):
        return str(packages.folder(text.removeprefix(packages.PREFIX)))
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in (CONFIG, MODULES)):
            raise InputError(f"the folder {text} holds no model: it has no config.json; name a saved model's folder")
        return str(folder)
    if isinstance(source, Path) or folder.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise InputError(f"there is no model at {text}; name a folder, package:NAME or a model on the hub")
    return text


def fetched(source: str | Path) -> Path:
    """Return the folder of a model, with its files from the hub if it is there.

    Args:
        source: As for `locate`.

    Raises:
        InputError: If there is no such folder, or it holds no model.
        MissingError: If the package is not installed, or the hub does not give the model.
    """
    place = locate(source)
    if Path(place).is_dir():
        return Path(place)
    with silenced(), loading(place, "model"):
        return Path(snapshot_download(place, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)))


def load(source: str | Path, heads: Mapping[str, Any] | None = None) -> nn.Module:
    """Load a checkpoint, pruned or whole.

    Nothing is run that a checkpoint brings along. What ffc has saved comes with the head that it has, and so does any
    other without `heads`; it is then read from safetensors alone, so that nothing is unpickled.

    Args:
        source: As for `locate`; a path must be a folder.
        heads: By how the name of a model's class ends, the class of transformers to load it as; a model whose class is
            named otherwise comes without its head. None for its own class.

    Returns:
        The model, in evaluation mode, with the weights and types that were saved; torch's random state is left as it
        was.

    Raises:
        InputError: If there is no model, or its files are damaged, do not belong together or are of another format.
        MissingError: If a package is not installed, or the hub does not give the model.
    """
    place = locate(source)
    with silenced(), torch.random.fork_rng(devices=[]), loading(place, "model"):
        model = read_saved(Path(place)) if (Path(place) / RECORD).exists() else _of_transformers(place, heads)
    return model.eval()


def on_gpu(model: nn.Module) -> nn.Module:
    """Move a model to the GPU, where there is one, and return it."""
    return model.to("cuda") if torch.cuda.is_available() else model


@contextlib.contextmanager
def loading(place: str, what: str) -> Iterator[None]:
    """Turn what transformers raises for a source that it cannot load into one line."""
    try:
        yield
    except FfcError as error:
        raise type(error)(f"cannot load the {what} in {place}: {error}") from error
    except Exception as error:  # transformers runs into all kinds of trouble with files that are not sound
        reason = one_line(str(error) or repr(error), 200)
        if Path(place).is_dir():
            raise InputError(f"cannot load the {what} in {place}: {reason}") from error
        raise MissingError(
            f"cannot load the {what} '{place}': it is no folder here, and the hub does not give it ({reason}); "
            "name a folder, package:NAME, or go online"
        ) from error


def _of_transformers(place: str, heads: Mapping[str, Any] | None) -> nn.Module:
    """Load what transformers has saved."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
    kind, safe = (_named(config, place), True) if heads is None else (_headed(config, heads), None)
    model, info = kind.from_pretrained(
        place,
        config=config,
        use_safetensors=safe,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below in one line
    )
    if misfits := sorted(str(name) for name, *_ in info["mismatched_keys"]):
        raise InputError(f"'{misfits[0]}' has another shape than {CONFIG} states; a pruned model needs its {RECORD}")
    missing = sorted(info["missing_keys"])
    if missing and model.base_model is model and all(name.startswith("pooler.") for name in missing):
        model.pooler = None  # many are saved without one, and it would be random
    elif missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"its weights lack '{missing[0]}'{more}, which would be random; name another model")
    whole: nn.Module = model
    return whole


def _named(config: PreTrainedConfig, place: str) -> Any:
    """Return the class that a config names, whose weights lie beside it as safetensors."""
    names = config.architectures or ()
    if len(names) != 1:
        raise InputError(f"{CONFIG} names {len(names)} architectures, expected one")
    if Path(place).is_dir() and not list(Path(place).glob("model*.safetensors")):
        raise InputError(f"it has no {WEIGHTS}; weights in other files are not read, save it with transformers 5")
    return architecture(names[0], config)


def _headed(config: PreTrainedConfig, heads: Mapping[str, Any]) -> Any:
    """Return the class of `heads` for a config, or that of models without a head."""
    names = config.architectures or ()
    return next((kind for end, kind in heads.items() if any(name.endswith(end) for name in names)), AutoModel)
