"""How to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ffc.settings.setting import Wanted, check, setting
from ffc.settings.wanted import ANY, COUNT, FROM_0, POSITIVE, SEED

__all__ = ["Schedule", "Training"]


@dataclass(frozen=True)
class Schedule:
    """How to train, but for the seed. How a step is split into batches changes nothing but memory and time."""

    epochs: float = setting(POSITIVE, "Passes over the training rows; may be a fraction.", default=3.0)
    learning_rate: float = setting(POSITIVE, "The highest, after warm-up.", default=5e-5)
    batch_size: int = setting(COUNT, "Rows at a time, in each process.", default=32)
    accumulate: int = setting(COUNT, "Batches whose gradients add up to one step.", default=1)
    weight_decay: float = setting(FROM_0, "But on biases and norms.", default=0.01)
    warmup: float = setting(
        Wanted("a share of all steps, from 0 and below 1", lambda value: 0 <= value < 1),
        "The share of all steps over which the learning rate rises.",
        default=0.06,
    )
    clip: float = setting(FROM_0, "Largest norm of the gradient; 0 for any.", default=1.0)
    max_steps: int = setting(
        Wanted("a whole number from 1, or -1 to go by epochs", lambda value: value >= 1 or value == -1),
        "Steps in all, in place of --epochs; -1 for none.",
        default=-1,
    )
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = setting(
        ANY, "How the learning rate goes on.", default="linear"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Training(Schedule):
    """How to train."""

    seed: int = setting(SEED, "Of the order of rows, dropout and fresh heads.", default=0)
