"""Teachers: they answer once, and each row finds its own answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ffc.errors import UsageError
from ffc.settings.losses import Losses
from ffc.settings.training import Training
from ffc.train.distillation.objective import LiveTeacher
from ffc.train.distillation.teacher import CachedTeacher, cached_logits
from ffc.train.encoding import Rows
from ffc.train.evaluate import predict
from ffc.train.learning.trainer import train
from ffc.train.tasks.base import Example
from tests.train.lessons import (
    LENGTHS,
    classifier,
    collator,
    encoded,
    largest_difference,
    narrow,
    weights,
)


def test_a_teacher_of_logits_runs_once_and_never_again(tmp_path: Path) -> None:
    teacher, runs = classifier("roberta"), []
    teacher.register_forward_hook(lambda module, inputs, output: runs.append(len(output.logits)))

    def distil(rows: Rows, *, epochs: int = 1) -> dict[str, Tensor]:
        student = narrow()
        train(
            student,
            rows,
            collator(),
            Training(epochs=epochs),
            losses=Losses(logits=1.0),
            teacher=teacher,
            folder=tmp_path,
        )
        return weights(student)

    first = distil(encoded(), epochs=2)
    assert sum(runs) == len(LENGTHS)
    assert largest_difference(first, distil(encoded(), epochs=2)) == 0 and sum(runs) == len(LENGTHS)
    distil(encoded(seed=1))
    assert sum(runs) == 2 * len(LENGTHS), "other rows"
    next(teacher.parameters()).data[7] += 0.1
    distil(encoded())
    assert sum(runs) == 3 * len(LENGTHS), "other weights"
    assert len(list(tmp_path.glob("teacher-*.npz"))) == 3


def test_a_damaged_file_of_logits_is_made_anew(tmp_path: Path) -> None:
    teacher = classifier()
    expected = cached_logits(teacher, encoded(), collator(), tmp_path)
    (path,) = tmp_path.glob("teacher-*.npz")
    for damaged in (b"", b"PK\x03\x04 no more", path.read_bytes()[:-30]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cached_logits(teacher, encoded(), collator(), tmp_path), expected)
    np.testing.assert_array_equal(np.load(path)["logits"], expected)


def test_logits_are_looked_up_by_the_number_of_the_row() -> None:
    teacher, rows = classifier(), encoded()
    order = (6, 1, 4, 3)
    chosen = Rows([rows[index] for index in order], [Example("text")] * 4, 64)
    cached = CachedTeacher(predict(teacher, chosen, collator()), chosen, torch.device("cpu"))
    batch = collator()([rows[3], rows[6]])
    live = LiveTeacher(teacher, Losses(logits=1.0), None)
    torch.testing.assert_close(cached(batch).logits, live(batch).logits.float(), rtol=1e-5, atol=1e-6)
    twice = Rows([rows[1], rows[1]], [Example("text")] * 2, 64)
    with pytest.raises(UsageError, match="two training rows have the same `index`"):
        CachedTeacher(np.zeros((2, 3), np.float32), twice, torch.device("cpu"))
