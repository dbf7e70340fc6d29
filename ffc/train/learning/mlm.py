"""Task-agnostic distillation: a student learns from plain text, by masked language modelling and from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from torch import nn

from ffc.errors import InputError, UsageError
from ffc.progress import Tell
from ffc.settings.losses import Losses
from ffc.settings.training import Training
from ffc.train.checks import check_vocabulary
from ffc.train.distillation.losses import IGNORED
from ffc.train.encoding import Collator, Row, Rows
from ffc.train.learning.trainer import train
from ffc.train.models.checkpoint import save_pruned
from ffc.train.models.pretrained import base, filling, fills_masks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ffc.train.learning.callbacks import History

__all__ = ["MaskingCollator", "distill_general", "read_texts", "text_rows"]

_SHARE = 0.15
_TO_MASK, _TO_RANDOM = 0.8, 0.1
"""Which part of the tokens that are to be told becomes a mask, or a random token; the rest stays (BERT, 1810.04805)."""


def distill_general(
    teacher: nn.Module,
    student: nn.Module,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
    losses: Losses,
    folder: Path,
    *,
    max_length: int = 128,
    progress: Tell | None = None,
) -> History:
    """Distil a student for no task in particular, and save it as a checkpoint for other students to start from.

    Under the losses `labels` and `logits` some tokens are masked, and these two count at them; without either, texts
    stay as they are. Of several processes the first alone saves.

    Args:
        teacher: Best with its head for masked language modelling.
        student: A model of any shape, trained in place.
        texts: Passages.
        tokenizer: That of both.
        training: How to train.
        losses: What the student learns from.
        folder: Where the checkpoint goes.
        max_length: Tokens of a row.
        progress: Told how it goes.

    Raises:
        UsageError: If the loss logits has a weight and the teacher no head for masked language modelling, rows are
            longer than a model takes, the tokenizer has no mask, or as `ffc.train.learning.trainer.train` does.
        InputError: If there is no text, or the tokenizer is another model's.
        CannotApplyError: If a model is not understood.
    """
    if losses.logits and not fills_masks(teacher):
        raise UsageError(
            f"the loss logits needs a teacher with a head for masked language modelling, and this "
            f"{type(teacher).__name__} has none; use relations, hidden or labels, or another teacher"
        )
    check_vocabulary(teacher, tokenizer)
    if losses.on_logits and not fills_masks(student):
        student = filling(base(student), seed=training.seed)
    history = train(
        student,
        text_rows(texts, tokenizer, max_length),
        MaskingCollator(
            tokenizer, share=_SHARE if losses.on_logits else 0.0, random=torch.Generator().manual_seed(training.seed)
        ),
        training,
        losses=losses,
        teacher=teacher if losses.taught else None,
        folder=folder,
        progress=progress,
    )
    if PartialState().is_main_process:
        save_pruned(student, folder, tokenizer)
    return history


def read_texts(path: Path) -> list[str]:
    """Return the passages of a text file in UTF-8: a line each, empty ones left out.

    Raises:
        InputError: If the file is missing, or no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error.reason})"
        raise InputError(f"cannot read {path}: {reason}; give a text file in UTF-8, a passage on each line") from error
    return [line.strip() for line in lines if line.strip()]


def text_rows(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int = 128) -> Rows:
    """Turn passages into rows of tokens, whose `labels` are the tokens themselves.

    They are joined, a separator between them where the tokenizer has one, and cut into full rows; the last may be
    shorter.

    Args:
        texts: Passages.
        tokenizer: The model's.
        max_length: Tokens of a row, special ones included.

    Raises:
        InputError: If there are no tokens.
        UsageError: If `max_length` leaves no room for text.
    """
    room = max_length - tokenizer.num_special_tokens_to_add()
    if room < 1:
        raise UsageError(f"max_length={max_length} leaves no room for text beside the special tokens; give more")
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    passages = [ids for ids in found if ids]
    if not passages:
        raise InputError("there is no text to learn from; give at least one passage")
    before, after = _frame(texts[found.index(passages[0])], passages[0], tokenizer)
    between = [] if tokenizer.sep_token_id is None else [int(tokenizer.sep_token_id)]
    joined = [token for ids in passages for token in (*ids, *between)]
    if between:
        joined.pop()
    rows: list[Row] = []
    for index, start in enumerate(range(0, len(joined), room)):
        ids = [*before, *joined[start : start + room], *after]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids, "index": index})
    return Rows(rows, (), max_length)


@dataclass(frozen=True)
class MaskingCollator(Collator):
    """Makes a batch of text in which some tokens are to be told from the others, drawn anew whenever a row comes.

    `labels` [batch, length] holds the tokens to tell, and -100 elsewhere. Of them 80 % are masked, 10 % replaced by a
    random token and 10 % left as they are. Special tokens are never among them.

    Attributes:
        share: The share of the tokens to tell.
        random: What is drawn from.
    """

    share: float = _SHARE
    random: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        if self.share and self.tokenizer.mask_token_id is None:
            raise UsageError(
                f"the tokenizer {type(self.tokenizer).__name__} has no mask; use the losses relations and hidden alone"
            )

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the batch; errors are those of `Collator`."""
        batch = super().__call__([{name: value for name, value in row.items() if name != "labels"} for row in rows])
        ids = batch["input_ids"]
        ordinary = ~torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        drawn = torch.rand(ids.shape, generator=self.random) / self.share if self.share else torch.ones(ids.shape)
        told = (drawn < 1) & ordinary
        words = torch.randint(len(self.tokenizer), ids.shape, generator=self.random)
        shown = torch.where(told & (drawn < _TO_MASK + _TO_RANDOM), words, ids)
        mask = torch.tensor(self.tokenizer.mask_token_id if self.share else 0)
        batch["input_ids"] = torch.where(told & (drawn < _TO_MASK), mask, shown)
        batch["labels"] = torch.where(told, ids, IGNORED)
        return batch


def _frame(text: str, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after the tokens of a text."""
    framed: Any = tokenizer(text, verbose=False)["input_ids"]
    start = next(place for place in range(len(framed)) if framed[place : place + len(ids)] == ids)
    return framed[:start], framed[start + len(ids) :]
