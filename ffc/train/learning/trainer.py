"""Training of a model on labels, on a teacher, or on both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from ffc.errors import UsageError
from ffc.graph.files import publish
from ffc.progress import Tell
from ffc.settings.losses import ON_LABELS, Losses
from ffc.settings.training import Training
from ffc.train.distillation.objective import LiveTeacher, Objective, Pairing
from ffc.train.distillation.teacher import CachedTeacher, cached_logits
from ffc.train.evaluate import evaluating
from ffc.train.learning.activation import Annealing
from ffc.train.learning.callbacks import BestEpoch, History, Reporter
from ffc.train.learning.checks import check_finite, check_known, check_labels, check_training, check_validation
from ffc.train.learning.sampling import LengthSampler
from ffc.train.models.pretrained import read_logits, taken

if TYPE_CHECKING:
    from ffc.train.encoding import Collator, Rows
    from ffc.train.tasks.base import Scores

__all__ = ["DistillTrainer", "History", "leave", "train"]

_LOGS = 50
"""Losses that a run records; each costs a wait for the device."""


class DistillTrainer(Trainer):
    """transformers' trainer for an `Objective`: its loss is the mean over all rows of an optimiser step."""

    # The loss is divided by the rows of the whole step already, whatever parts it is accumulated from.
    loss_is_scaled_for_ga = True

    def __init__(
        self, objective: Objective, teacher: LiveTeacher | CachedTeacher | None, lengths: list[int], **options: Any
    ) -> None:
        """Set up as a `Trainer` does, with the objective for its model; lengths are those of the rows, in tokens."""
        super().__init__(model=objective, **options)
        self._teacher = teacher
        self._lengths = lengths

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return this part's share of the mean loss of a row in the step; `num_items_in_batch` is the rows of all."""
        lesson = self._teacher(inputs) if self._teacher else None
        total: Tensor = model(inputs, lesson)
        assert num_items_in_batch is not None  # see get_batch_samples
        # Gradients of several processes are averaged: times their number, they are the sum over all rows.
        loss: Tensor = total * (self.args.world_size / num_items_in_batch)
        return loss

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Return the parts of one step, and the number of rows in them and in those of all other processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = sum(len(batch["input_ids"]) for batch in samples)
        if self.args.world_size > 1:
            rows = int(self.accelerator.reduce(torch.tensor(rows, device=device)).item())
        return samples, rows

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Return 0: counting parameters at every step takes longer than it tells."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthSampler(self._lengths, rows, self.args.seed)


def train(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    training: Training,
    *,
    losses: Losses = ON_LABELS,
    teacher: nn.Module | None = None,
    validation: Rows | None = None,
    score: Callable[[np.ndarray], Scores] | None = None,
    folder: Path,
    progress: Tell | None = None,
    anneal: float | None = None,
) -> History:
    """Train a model in place.

    It runs on a GPU if there is one, and in every process that torchrun has started; all of them end with the same
    weights. With the same seed, on the same machine, the weights are the same.

    Args:
        model: The student; it ends in evaluation mode, on the device that it came on.
        rows: What to train on.
        collator: Makes a batch of some rows.
        training: How.
        losses: What to learn from.
        teacher: A model with the same tokenizer, as `ffc.train.models.pretrained.same_tokens` tells; it may be left in
            evaluation mode. If its logits alone are wanted it runs once over the rows, and never again in this folder;
            otherwise on every batch.
        validation: With `score`, what to choose the best epoch on; its weights are kept. Otherwise the last are.
        score: Judges logits [validation rows, labels].
        folder: Where the logits of the teacher are kept.
        progress: Told how it goes now and then.
        anneal: Go over from GELU to ReLU in this share of the steps; epochs that end before that are not kept.

    Raises:
        UsageError: If losses, teacher and rows do not fit together, or the loss grows beyond all numbers.
        CannotApplyError: If a loss looks inside a model that is not understood, or at logits that it does not give, or
            weights are in half precision.
        InputError: If there are no rows, training or validation rows are not for these models, or lack labels that are
            needed.
    """
    check_training(model, rows, losses, teacher)
    if validation is not None and score is not None:
        check_validation(model, validation)
    batch = collator([rows[0]])
    of_tokens = batch.get("labels", torch.empty(1)).dim() > 1
    _check_head(model, batch, losses, tokens=of_tokens)
    if losses.labels and not of_tokens:
        check_known(model, rows)
    if teacher is not None and losses.logits and not of_tokens:
        check_labels(model, teacher)
    began = time.perf_counter()
    arguments = _arguments(training, folder)
    verbosity = logging.get_verbosity()
    with contextlib.ExitStack() as stack:
        stack.callback(logging.set_verbosity, verbosity)
        stack.callback(model.eval)
        for part in (model, teacher) if teacher is not None else (model,):
            stack.callback(part.to, next(part.parameters()).device)
        pairing = Pairing.of(model, teacher, losses) if teacher is not None and losses.inside else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            objective = Objective(model, losses, pairing)
        stack.callback(objective.close)
        lessons: LiveTeacher | CachedTeacher | None = None
        if teacher is not None and (losses.inside or (losses.logits and of_tokens)):
            lessons = LiveTeacher(teacher.to(arguments.device), losses, pairing)
        elif teacher is not None and losses.logits:
            lessons = _cached(teacher, rows, collator, folder, arguments)
        if lessons:
            stack.callback(lessons.close)
        if arguments.world_size > 1:
            arguments.ddp_find_unused_parameters = _idle(objective.to(arguments.device), lessons, batch)
        annealing = None if anneal is None else Annealing(model, anneal)
        if annealing:
            stack.callback(annealing.close)
        best = BestEpoch(model, validation, collator, score, annealing, progress)
        reporter = Reporter(progress)
        trainer = DistillTrainer(
            objective,
            lessons,
            rows.lengths,
            args=arguments,
            data_collator=collator,
            train_dataset=rows,
            callbacks=[*([annealing] if annealing else []), best, reporter],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        check_finite(model)
        _check_head(model, batch, losses, tokens=of_tokens)
    return History(
        loss=tuple(reporter.losses),
        scores=tuple(best.scores),
        seconds=time.perf_counter() - began,
        steps=trainer.state.global_step,
        best=best.best,
    )


def leave() -> None:
    """Leave the other processes that train the model, if there are any: what is left to do, the first does alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _check_head(model: nn.Module, batch: Mapping[str, Tensor], losses: Losses, *, tokens: bool) -> None:
    """Check that a model gives finite logits if losses are of them, by running it on a row."""
    if not losses.on_logits:
        return
    with evaluating(model), torch.no_grad():
        found = read_logits(model, model(**taken(model, batch)), tokens=tokens)
    if not bool(found.isfinite().all()):
        raise UsageError(
            f"{type(model).__name__} gives logits that are not finite; if this training has made it so, give a lower "
            "learning_rate"
        )


def _arguments(training: Training, folder: Path) -> TrainingArguments:
    """Return the settings of the trainer, whose folder is there."""
    with publish.asked_for(f"in {folder}", "choose another folder"):
        publish.make_folder(folder)
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulate,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup,
        lr_scheduler_type=training.schedule,
        max_grad_norm=training.clip,
        optim="adamw_torch_fused",
        seed=training.seed,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        remove_unused_columns=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="steps",
        logging_steps=1 / _LOGS,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    # One process drives one GPU; several are torchrun's business. Hooks do not survive DataParallel's copies.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def _cached(
    teacher: nn.Module, rows: Rows, collator: Collator, folder: Path, arguments: TrainingArguments
) -> CachedTeacher:
    """Return a teacher whose logits are kept.

    Not for rows with labelled tokens, which are masked anew whenever they come, so that there is nothing to keep.
    """
    # The first process runs the teacher and writes the file; then the others read it.
    with arguments.main_process_first(desc="the teacher's logits"):
        logits = cached_logits(teacher.to(arguments.device), rows, collator, folder)
    return CachedTeacher(logits, rows, arguments.device)


def _idle(objective: Objective, teacher: LiveTeacher | CachedTeacher | None, batch: Mapping[str, Tensor]) -> bool:
    """Return whether some parameter has no part in the loss, which `DistributedDataParallel` must be told."""
    device = next(objective.parameters()).device
    moved = {name: value.to(device) for name, value in batch.items()}
    objective.eval()
    objective(moved, teacher(moved) if teacher else None).backward()
    idle = any(parameter.grad is None for parameter in objective.parameters() if parameter.requires_grad)
    objective.zero_grad()
    return idle
