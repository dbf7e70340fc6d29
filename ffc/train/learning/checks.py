"""Checks that what training is asked for fits together, made before any work; and of the weights that it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ffc.errors import InputError, UsageError
from ffc.train.checks import check_precision, check_rows
from ffc.train.models.blueprint import labels

if TYPE_CHECKING:
    from ffc.settings.losses import Losses
    from ffc.train.encoding import Rows

__all__ = ["check_finite", "check_known", "check_labels", "check_training", "check_validation"]


def check_training(model: nn.Module, rows: Rows, losses: Losses, teacher: nn.Module | None) -> None:
    """Check that what training is asked for fits together.

    Raises:
        UsageError: If not.
        CannotApplyError: If weights are in half precision.
        InputError: If there are no rows, or they are not for these models.
    """
    if not len(rows):
        raise InputError("there are no rows to train on; give at least one")
    if losses.labels and any("labels" not in row for row in rows):
        raise UsageError("the loss labels has a weight and not every row has a label; give labels, or the weight 0")
    if losses.taught and teacher is None:
        raise UsageError(f"the losses {losses} need a teacher; give one")
    models = (model,) if teacher is None else (model, teacher)
    sizes = [cast(Any, each.config).vocab_size for each in models]
    if sizes[0] != sizes[-1]:
        raise UsageError(
            f"the teacher has a vocabulary of {sizes[-1]} tokens and the student one of {sizes[0]}; both read the same "
            "ids, so give a teacher and a student with the same tokenizer"
        )
    check_precision(*models)
    check_rows(rows, *models)


def check_known(model: nn.Module, rows: Rows) -> None:
    """Check that a classifier knows the labels of the rows.

    Raises:
        InputError: If not.
    """
    config: Any = model.config
    highest = max(row["labels"] for row in rows)
    if highest >= config.num_labels:
        raise InputError(f"a row has label {highest} and the model knows {config.num_labels}; give rows of its task")


def check_validation(model: nn.Module, validation: Rows) -> None:
    """Check that a model can be scored on rows after each epoch, before the first.

    Raises:
        UsageError: If a row is longer than the model takes.
        InputError: If there are no rows, one has no label, or they are not for this model.
    """
    if not len(validation):
        raise InputError("there are no validation rows to choose the best epoch on; give at least one")
    if any("labels" not in row for row in validation):
        raise InputError("not every validation row has a label, so no epoch can be scored; give labelled rows")
    check_rows(validation, model)


def check_finite(model: nn.Module) -> None:
    """Check the weights that training has left: the last steps are not among the losses that are logged.

    Raises:
        UsageError: If one is no number.
    """
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise UsageError(f"training went astray: {name} is not finite in the end; give a lower learning_rate")


def check_labels(model: nn.Module, teacher: nn.Module) -> None:
    """Check that teacher and student mean the same by each of their logits.

    Raises:
        UsageError: If they have other numbers of labels, or the same names in another order.
    """
    names, others = labels(model), labels(teacher)
    if len(names) != len(others):
        raise UsageError(
            f"the teacher has {len(others)} labels and the student {len(names)}; give a teacher that was trained on "
            "this task"
        )
    if names != others and sorted(names) == sorted(others):
        raise UsageError(
            f"the teacher has its labels in the order {', '.join(others)} and the student in the order "
            f"{', '.join(names)}; give a teacher that was trained on this task"
        )
