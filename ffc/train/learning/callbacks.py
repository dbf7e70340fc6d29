"""What watches a run of training: the best epoch's weights, the losses, and lines about how far it has come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from transformers import TrainerCallback

from ffc.errors import UsageError
from ffc.progress import Tell
from ffc.train.evaluate import predict
from ffc.train.learning.activation import Annealing

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows
    from ffc.train.tasks.base import Scores

__all__ = ["BestEpoch", "History", "Reporter"]


@dataclass(frozen=True)
class History:
    """What a run of training did.

    Attributes:
        loss: The mean loss of a row since the one before, by step; at most some fifty of them.
        scores: What each epoch scored on the validation rows; empty without them.
        seconds: How long it took, the teacher's logits and validation included.
        steps: Steps of the optimiser.
        best: The epoch, from 0, whose weights were kept; None where there were no validation rows.
    """

    loss: tuple[tuple[int, float], ...]
    scores: tuple[Scores, ...]
    seconds: float
    steps: int
    best: int | None


class BestEpoch(TrainerCallback):
    """Scores the model after each epoch, and puts back the weights of the best one in the end.

    The first process alone predicts; the others are told the score, so that all of them keep the same epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        validation: Rows | None,
        collator: Collator,
        score: Callable[[np.ndarray], Scores] | None,
        annealing: Annealing | None,
        progress: Tell | None,
    ) -> None:
        self.scores: list[Scores] = []
        self.best: int | None = None
        self._model = model
        self._validation, self._collator, self._score = validation, collator, score
        self._annealing = annealing
        self._progress = progress
        self._weights: dict[str, Tensor] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Score the model, and remember its weights if it is the best so far and has its final activation."""
        if self._validation is None or self._score is None:
            return
        told: list[Scores | None] = [None]
        if state.is_world_process_zero:
            told = [self._score(predict(self._model, self._validation, self._collator))]
        if args.world_size > 1:
            broadcast_object_list(told)
        found = told[0]
        assert found is not None
        self.scores.append(found)
        if self._progress and state.is_world_process_zero:
            self._progress(f"epoch {len(self.scores)}: {found.main:.2f} on {len(self._validation)} validation rows")
        final = self._annealing is None or self._annealing.done
        if final and (self.best is None or found.main > self.scores[self.best].main):
            self.best = len(self.scores) - 1
            self._weights = {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Put back the best weights."""
        if self.best is not None and self.best != len(self.scores) - 1:
            self._model.load_state_dict(self._weights)
        self._weights = {}


class Reporter(TrainerCallback):
    """Keeps the losses that the trainer logs, and tells of them."""

    def __init__(self, progress: Tell | None) -> None:
        self.losses: list[tuple[int, float]] = []
        self._progress = progress
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Take note of a loss.

        Raises:
            UsageError: If it is no number any more.
        """
        if not logs or "loss" not in logs:
            return
        step, loss = int(state.global_step), float(logs["loss"])
        if not math.isfinite(loss):
            raise UsageError(f"training went astray: the loss is {loss} at step {step}; give a lower learning_rate")
        self.losses.append((step, loss))
        if self._progress and state.is_world_process_zero:
            left = (time.perf_counter() - self._began) / step * (state.max_steps - step)
            line = f"step {step} of {state.max_steps}: loss {loss:.4f}, {left:.0f} s left"
            self._progress(line, step, state.max_steps)
