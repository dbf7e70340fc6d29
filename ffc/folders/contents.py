"""What lies beside a compiled model in its folder: its tokenizer, its config, and what other libraries look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffc.errors import InputError, one_line
from ffc.folders.places import MODULES
from ffc.train.models.features import SENTENCE

if TYPE_CHECKING:
    import onnx_ir as ir

    from ffc.train.exportable import Exportable

__all__ = ["beside", "of_saved", "with_modules"]

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
SPECIAL, SENTENCES = "special_tokens_map.json", "config_sentence_transformers.json"

_WORDS = ("added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model")
"""What tokenizers that have no `tokenizer.json` are made of; some libraries read them still."""

_ENCODER = "ffc.train.sentence_encoder.SentenceEncoder"
"""The class that runs the model in sentence-transformers, which imports it by this name."""

Contents = dict[str, bytes]
"""Files by name."""


def of_saved(saved: Exportable) -> Contents:
    """Return the files that go with the graph of a saved model.

    Its tokenizer pads a batch to its longest text and cuts texts where the model does, whoever reads it.
    """
    tokenizer: Any = saved.tokenizer
    pad, longest = tokenizer.pad_token, saved.longest
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    ways = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_token": pad}
    ids = {"pad_id": tokenizer.pad_token_id, "pad_type_id": tokenizer.pad_token_type_id}
    whole["padding"] = None if pad is None else ways | ids
    cuts = {"direction": "Right", "max_length": longest, "strategy": "LongestFirst", "stride": 0}
    whole["truncation"] = None if longest is None else cuts
    settings = _json(saved.encoder / TOKENIZER_CONFIG) or {"tokenizer_class": "PreTrainedTokenizerFast"}
    for other in ("max_length", "auto_map"):  # fastembed cuts to the former; the latter asks for code from elsewhere
        settings.pop(other, None)
    limit = {} if longest is None else {"model_max_length": longest}
    settings |= limit | ({} if pad is None else {"pad_token": pad}) | {"padding_side": "right"}
    config = _json(saved.encoder / CONFIG)
    config.pop("auto_map", None)
    config.setdefault("transformers.js_config", {})["dtype"] = "fp32"  # for transformers.js, the file without a suffix
    found = _copied(saved.encoder, (*_WORDS, SPECIAL)) | _copied(saved.folder, (SENTENCES,))
    found.setdefault(SPECIAL, _text(dict(tokenizer.special_tokens_map)))
    return found | {TOKENIZER: _text(whole), TOKENIZER_CONFIG: _text(settings), CONFIG: _text(config)}


def beside(model: Path) -> Contents:
    """Return the files of a tokenizer and a config that lie beside a model, or above it where its folder is `onnx`."""
    names = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, SPECIAL, SENTENCES, *_WORDS)
    folder = model.absolute().parent
    above = _copied(folder.parent, names) if folder.name == "onnx" else {}
    return above | _copied(folder, names)


def with_modules(contents: Mapping[str, bytes], model: ir.Model) -> Contents:
    """Return the files, with what lets sentence-transformers load the folder if the model embeds sentences."""
    embeds = any(value.name == SENTENCE for value in model.graph.outputs)
    if not embeds or TOKENIZER not in contents:
        return dict(contents)
    return {**contents, MODULES: _text([{"idx": 0, "name": "0", "path": "", "type": _ENCODER}])}


def _copied(folder: Path, names: tuple[str, ...]) -> Contents:
    files = (file for name in names for file in sorted(folder.glob(name)) if file.is_file())
    try:
        return {file.name: file.read_bytes() for file in files}
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


def _json(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {one_line(str(error), 100)}; save the model again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it holds no object; save the model again")
    return found


def _text(found: object) -> bytes:
    return f"{json.dumps(found, indent=2, ensure_ascii=False)}\n".encode()
