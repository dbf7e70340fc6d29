"""The keys of a study's file are those of what they set."""

from __future__ import annotations

import dataclasses
import typing

from ffc.study import keys


def test_the_keys_are_those_of_training_and_losses() -> None:
    from ffc.train.distillation.losses import Losses
    from ffc.train.learning.trainer import SCHEDULES, Training

    schedule = keys.TrainingKeys.model_fields["schedule"].annotation
    assert typing.get_args(typing.get_args(schedule)[0]) == SCHEDULES
    assert {*keys.TrainingKeys.model_fields, "epochs"} == {field.name for field in dataclasses.fields(Training)}
    stated = {name: field.default for name, field in keys.LossKeys.model_fields.items()}
    assert {**stated, "layers": None} == {field.name: field.default for field in dataclasses.fields(Losses)}
