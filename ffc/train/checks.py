"""Checks that rows, tokenizers and weights suit a model, made before any work: torch would fail in the middle of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ffc.errors import CannotApplyError, InputError
from ffc.train.models.pretrained import check_length

if TYPE_CHECKING:
    from ffc.train.encoding import Rows

__all__ = ["check_precision", "check_rows", "check_vocabulary"]


def check_rows(rows: Rows, *models: nn.Module) -> None:
    """Check that models can take rows.

    Raises:
        UsageError: If a row is longer than a model takes.
        InputError: If a row holds a token that a model has no embedding for.
    """
    check_length(max(rows.lengths, default=0), *models)
    highest = max((token for row in rows for token in row["input_ids"]), default=0)
    for model in models:
        config: Any = model.config
        if highest >= config.vocab_size:
            raise InputError(
                f"the rows hold the token {highest} and {type(model).__name__} has embeddings for {config.vocab_size}; "
                "encode them with the tokenizer that it was trained with"
            )


def check_vocabulary(model: nn.Module, tokenizer: Any) -> None:
    """Check that a model has an embedding for every token of a tokenizer.

    Raises:
        InputError: If not.
    """
    config: Any = model.config
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"the tokenizer makes {len(tokenizer)} ids and the model has embeddings for {config.vocab_size}; "
            "take the tokenizer that it was trained with"
        )


def check_precision(*models: nn.Module) -> None:
    """Check that weights are in float32 at least: in half precision small gradients vanish and sums overflow.

    Raises:
        CannotApplyError: If not.
    """
    for model in models:
        types = {value.dtype for value in model.parameters() if value.is_floating_point()}
        coarse = [dtype for dtype in types if torch.finfo(dtype).bits < 32]
        if coarse:
            raise CannotApplyError(
                f"the weights of {type(model).__name__} are {str(coarse[0]).removeprefix('torch.')}, too coarse to "
                "learn or to score with; convert the model to float32 first"
            )
