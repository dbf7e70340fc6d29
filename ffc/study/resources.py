"""What the steps of a study share: rows, tokens and models, each loaded when a step first asks for it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffc.errors import InputError
from ffc.study.study import Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ffc.train.encoding import Collator, Rows
    from ffc.train.tasks import Example, Scores, Task

__all__ = ["Resources"]


class Resources:
    """Loads what a study is made from, once."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @functools.cached_property
    def task(self) -> Task:
        """The task; a study needs rows to train on."""
        from ffc.train import tasks

        task = tasks.load(self.study.task(), seed=self.study.keys.seed)
        if not task.train:
            raise InputError(f'task {task.name} has no training rows; give some, such as train = "train.jsonl"')
        if any(row.label is None for row in task.validation):
            raise InputError(f"task {task.name} has validation rows without labels; give rows that can be scored")
        return task

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the teacher, which is that of all systems."""
        from ffc.train.models import pretrained

        return pretrained.tokenizer(self.study.source(self.study.keys.teacher.model))

    @functools.cached_property
    def training(self) -> Rows:
        """The rows to train on."""
        return self.encoded(self.task.train)

    @functools.cached_property
    def validation(self) -> Rows:
        """The rows that accuracies are of."""
        return self.encoded(self.task.validation)

    @functools.cached_property
    def collator(self) -> Collator:
        """Makes batches."""
        from ffc.train.encoding import Collator

        return Collator(self.tokenizer)

    def encoded(self, examples: Sequence[Example]) -> Rows:
        """Return rows as tokens."""
        from ffc.train.encoding import encode

        return encode(examples, self.tokenizer, self.study.keys.max_length)

    def sample(self, rows: int, seed: int) -> Rows:
        """Return some of the rows to train on, the same for the same seed."""
        from ffc.train.tasks import sample

        return self.encoded(sample.take(self.task.train, rows, seed))

    def arrays(self, rows: int) -> dict[str, np.ndarray]:
        """Return some of the rows to train on as one batch: an array for each input that a model may have."""
        found = self.sample(rows, self.study.keys.seed)
        batch = self.collator(list(found))
        return {name: value.numpy() for name, value in batch.items() if name not in ("labels", "index")}

    def score(self, logits: np.ndarray) -> Scores:
        """Return how good logits [validation rows, labels] are."""
        from ffc.train.tasks import metrics

        return metrics.score(self.task, logits, self.task.validation)

    def same_tokenizer(self, source: str) -> None:
        """Refuse a checkpoint that was trained with another tokenizer than the teacher's."""
        from ffc.train.models import pretrained

        other = pretrained.tokenizer(source)
        if not pretrained.same_tokens(other, self.tokenizer):
            raise InputError(
                f"the student {source} makes tokens otherwise than the teacher "
                f"{self.study.keys.teacher.model} and cannot learn from it; take a checkpoint with the same tokenizer"
            )

    def digest(self) -> str:
        """Return the sha256 of the rows and labels."""
        state = hashlib.sha256(repr((self.task.labels, self.task.metric, self.task.spans)).encode())
        for part in (self.task.train, self.task.validation):
            state.update(b"\0")
            for row in part:
                state.update(json.dumps(dataclasses.astuple(row)).encode())
        return state.hexdigest()
