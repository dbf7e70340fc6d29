"""A tokenizer of few words for tests: that of `tests.graphs.encoder`, whose table of ids it fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.graphs import VOCABULARY

PAD, CLS, SEP = 0, 2, 3
FIRST = 4
"""The id of the word ``w0``; that of ``w1`` is one more, and so on."""


def write_tokenizer(
    folder: Path, *, words: int = VOCABULARY - FIRST, cut: int | None = None, padding: bool = True, **settings: Any
) -> Path:
    """Write a ``tokenizer.json`` that makes ``[CLS] a [SEP]`` and ``[CLS] a [SEP] b [SEP]`` of words ``w0``, ``w1``, ...

    Args:
        folder: Where to; it is made.
        words: How many words there are.
        cut: The length that the tokenizer cuts to by its own settings.
        padding: Whether it says how it pads.
        **settings: What its ``tokenizer_config.json`` says; without any there is none.
    """
    special = ["[PAD]" if padding else "[BLANK]", "[UNK]", "[CLS]", "[SEP]"]
    names = [*special, *(f"w{number}" for number in range(words))]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    if cut is not None:
        tokenizer.enable_truncation(cut)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder / "tokenizer.json"


def write(path: Path, *lines: str) -> Path:
    """Write a file of lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
