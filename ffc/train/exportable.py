"""Models as they are exported: of ffc, transformers or sentence-transformers, with their tokenizer and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ffc.errors import CannotApplyError
from ffc.train.models import pretrained, sentences
from ffc.train.models.loading import fetched, load

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Exportable", "read"]

_CLASSIFIES, _EMBEDS = "sequence-classification", "feature-extraction"
_UNBOUND = 1 << 20
"""Tokens from which on a limit is none: transformers writes 1e30."""


@dataclass(frozen=True)
class Exportable:
    """A model, and what goes along with its graph.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: What makes its inputs.
        folder: Where the files of the whole model lie.
        encoder: Where the config and the tokenizer lie, `folder` or one in it.
        longest: Tokens that a text is cut to, None where nothing tells.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    encoder: Path
    longest: int | None


def read(source: str | Path) -> Exportable:
    """Load a model for its export.

    Args:
        source: A folder of ffc, transformers or sentence-transformers; ``package:NAME``; or a name on the hub.

    Raises:
        InputError: If there is no model, or its files are damaged or of another format.
        CannotApplyError: If it has parts that ffc does not know.
        MissingError: If a package is not installed, or the hub does not give the model.
    """
    folder = fetched(source)
    modules = sentences.listed(folder)
    if modules is None:
        return _whole(load(folder), sentences.Transformer(folder), folder)
    (kind, place), *after = modules or [("", folder)]
    if kind != "Transformer":
        raise CannotApplyError(f"the model in {folder} begins with no Transformer, so there is nothing to compile")
    encoder = sentences.encoder(place)
    if encoder.task == _CLASSIFIES and not after:
        return _whole(load(place), encoder, folder)
    if encoder.task != _EMBEDS:
        raise CannotApplyError(f"the model in {folder} is for '{encoder.task}'; known: {_EMBEDS}, {_CLASSIFIES} alone")
    return _whole(sentences.load_sentences(encoder, after), encoder, folder)


def _whole(model: nn.Module, encoder: sentences.Transformer, folder: Path) -> Exportable:
    tokenizer = pretrained.tokenizer(encoder.folder)
    normalizer = tokenizer.backend_tokenizer.normalizer
    if encoder.lowers and (normalizer is None or normalizer.normalize_str("A") != "a"):
        raise CannotApplyError(
            f"the model in {folder} lowers texts before its tokenizer has them, which no tokenizer.json says; "
            "put a Lowercase normalizer into the tokenizer and set do_lower_case to false"
        )
    longest = _longest(model, encoder.longest or tokenizer.model_max_length)
    return Exportable(model, tokenizer, folder, encoder.folder, longest)


def _longest(model: nn.Module, told: int) -> int | None:
    """Return how many tokens a text may have by what was told and by the table of positions, else by the config."""
    known = [limit for limit in (told, pretrained.longest(model)) if limit is not None and limit < _UNBOUND]
    config: Any = model.config
    stated = getattr(config, "max_position_embeddings", None)
    return min(known) if known else stated if isinstance(stated, int) and stated > 0 else None
