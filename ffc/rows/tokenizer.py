"""The tokenizer of a model, of its ``tokenizer.json`` and the settings beside it: texts as ids, and batches of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffc.errors import CannotApplyError, InputError, UsageError, one_line
from ffc.settings import libraries, packages

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Batch", "Padding", "Tokenizer", "Tokens", "find", "load"]

_FILE = "tokenizer.json"
_CONFIG, _SPECIAL, _MODEL = "tokenizer_config.json", "special_tokens_map.json", "config.json"
_EXPORTS = "onnx"
"""The folder, inside that of a model, in which exports lie on the hub; the tokenizer lies beside the folder."""

_PADS = ("[PAD]", "<pad>")
"""How nearly all vocabularies spell padding, for tokenizers that do not say."""

_UNLIMITED = 10**6
"""A number of tokens from which on a limit is none: transformers writes 10^30."""

_CHUNK = 1000
"""How many texts the library gets at once: it keeps several times the memory of a row while at it."""


@dataclass(frozen=True)
class Tokens:
    """A row as tokens.

    Attributes:
        ids: The number of each token.
        types: Which text of a pair each belongs to.
        cut: Whether the text was longer.
    """

    ids: Sequence[int]
    types: Sequence[int]
    cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one length: int64 `ids` and `types`, and which tokens are real, bool `mask`, each [B, S]."""

    ids: np.ndarray
    types: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Padding:
    """What rows are filled with to one length, and on which side; an `id` of None where the tokenizer says none."""

    id: int | None = None
    type: int = 0
    left: bool = False


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer, made by `load`.

    Attributes:
        path: Its file.
        longest: How many tokens a row has at most as its own settings say it, None where they do not.
        padding: How it pads.
        vocabulary: The number of its tokens.
    """

    path: Path
    longest: int | None
    padding: Padding
    vocabulary: int
    _library: tokenizers.Tokenizer
    _cut_left: bool

    def least(self, pairs: bool) -> int:
        """Return the number of tokens that leaves room for one of each text beside the special ones."""
        return int(self._library.num_special_tokens_to_add(pairs)) + 1 + pairs

    def encode(self, texts: Sequence[tuple[str, ...]], longest: int | None = None) -> list[Tokens]:
        """Turn texts into tokens.

        Args:
            texts: Single texts or pairs, one or the other throughout.
            longest: The number of tokens, special ones included, to cut to, the longer text of a pair first.

        Raises:
            UsageError: If that leaves no room for text.
        """
        if longest is None:
            self._library.no_truncation()
        else:
            least = max((self.least(len(each) > 1) for each in texts[:1]), default=1)
            if longest < least:
                raise UsageError(f"max_length={longest} leaves no room for text beside special tokens; give {least}")
            side = "left" if self._cut_left else "right"
            self._library.enable_truncation(longest, strategy="longest_first", direction=side)
        found: list[Tokens] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = [each if len(each) > 1 else each[0] for each in texts[start : start + _CHUNK]]
            found += [
                Tokens(row.ids, row.type_ids, bool(row.overflowing)) for row in self._library.encode_batch(chunk)
            ]
        return found

    def batch(self, rows: Sequence[Tokens], length: int | None = None) -> Batch:
        """Pad rows to the longest of them, or to `length`.

        Raises:
            CannotApplyError: If rows must be padded and the tokenizer has no token for that.
        """
        length = max(1, *map(len, rows)) if length is None else length
        padding = self.padding
        if padding.id is None and any(len(row) < length for row in rows):
            raise CannotApplyError(
                f"{self.path} names no token for padding, and rows differ in length; add 'pad_token' to the "
                f"{_CONFIG} beside it"
            )
        ids = np.full((len(rows), length), padding.id or 0, np.int64)
        types = np.full(ids.shape, padding.type, np.int64)
        mask = np.zeros(ids.shape, np.bool_)
        for place, row in enumerate(rows):
            start = length - len(row) if padding.left else 0
            where = slice(start, start + len(row))
            ids[place, where], types[place, where], mask[place, where] = row.ids, row.types, True
        return Batch(ids, types, mask)


def find(named: str | Path | None, model: Path | None) -> Path:
    """Return the file of a tokenizer.

    Args:
        named: The file, its folder, or ``package:NAME`` for that of an installed package.
        model: The model that it is wanted for; where nothing is named, it lies beside this, or beside its folder if
            that is called ``onnx``.

    Raises:
        InputError: If it is not there.
        MissingError: If the package is not installed.
    """
    if named is not None:
        path = packages.folder(package) if (package := _package(named)) else Path(named)
        path = path / _FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"there is no tokenizer at {path}; name a {_FILE} or its folder as the tokenizer")
        return path
    if model is None:
        raise InputError(f"rows of text need a tokenizer, and beside a model in memory lies none; name its {_FILE}")
    folder = model.absolute().parent
    places = [folder, *([folder.parent] if folder.name == _EXPORTS else [])]
    found = next((place / _FILE for place in places if (place / _FILE).is_file()), None)
    if found is None:
        raise InputError(
            f"rows of text need a tokenizer, and there is no {_FILE} in {' or '.join(map(str, places))}; put that of "
            "the model there, or name it with --tokenizer"
        )
    return found


def _package(named: str | Path) -> str:
    """Return the name of a package that is named in the place of a path; empty for a path."""
    text = str(named)
    return text.removeprefix(packages.PREFIX) if text.startswith(packages.PREFIX) else ""


def load(path: Path) -> Tokenizer:
    """Load a tokenizer from its file and the settings beside it, of which those of `transformers` come first.

    Raises:
        InputError: If a file is broken.
        MissingError: If the library is not installed.
    """
    libraries.check(libraries.TEXTS)
    import tokenizers

    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"cannot read the tokenizer {path}: {one_line(str(error), 200)}; save it again") from error
    config = _settings(path.parent / _CONFIG)
    padding, cutting = library.padding or {}, library.truncation or {}
    library.no_padding()
    side = config.get("padding_side", padding.get("direction"))
    cut = config.get("truncation_side", cutting.get("direction"))
    limit = cutting.get("max_length") or config.get("model_max_length")
    return Tokenizer(
        path=path,
        longest=int(limit) if isinstance(limit, int | float) and 0 < limit < _UNLIMITED else None,
        padding=Padding(
            _padding_id(library, path.parent, config, padding),
            int(config.get("pad_token_type_id", padding.get("pad_type_id", 0))),
            left=side == "left",
        ),
        vocabulary=library.get_vocab_size(),
        _library=library,
        _cut_left=cut == "left",
    )


def _padding_id(
    library: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any], padding: Mapping[str, Any]
) -> int | None:
    """Return the token that stands for padding, by the first that says it."""
    if (named := _token(library, config)) is not None:
        return named
    if padding:
        return int(padding["pad_id"])
    if (named := _token(library, _settings(folder / _SPECIAL))) is not None:
        return named
    of_model = _settings(folder / _MODEL).get("pad_token_id")
    if isinstance(of_model, int) and of_model >= 0:
        return of_model
    return next((token for text in _PADS if (token := library.token_to_id(text)) is not None), None)


def _token(library: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> int | None:
    """Return the padding token that settings name, as a text or as an object that holds it."""
    named = settings.get("pad_token")
    text = named.get("content") if isinstance(named, dict) else named
    return library.token_to_id(text) if isinstance(text, str) else None


def _settings(path: Path) -> Mapping[str, Any]:
    """Return what a file of settings says; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the settings of the tokenizer in {path}: {one_line(str(error), 200)}") from error
    return found if isinstance(found, dict) else {}
