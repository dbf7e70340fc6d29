"""What a task is: its examples, its labels, and how well a model does on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Example", "Scores", "Task", "Unit"]


@dataclass(frozen=True)
class Example:
    """A row: one text or a pair of texts, and what a model should say of it.

    Attributes:
        first: The first text.
        second: The second text; None in tasks on single texts.
        tail: How many characters at the end of the first text stay when it is cut (MultiRC: the question).
        label: Index into the labels of the task; None where it is unknown.
        group: What the rows of one question share (MultiRC, ReCoRD); empty where each row is its own question.
        answer: What the row proposes (ReCoRD: the entity filled in).
        truths: The accepted answers of its question (ReCoRD).
        spans: Part (0 first, 1 second), start and end, exclusive, in characters of that part (WiC: two).
    """

    first: str
    second: str | None = None
    label: int | None = None
    group: str = ""
    answer: str = ""
    truths: tuple[str, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()
    tail: int = 0


@dataclass(frozen=True)
class Unit:
    """The examples of one record of a file, such as those of all questions on a passage.

    Attributes:
        where: File and line, for errors.
        texts: What must not stand on both sides of a split: the passage, or each of two sentences.
        examples: At least one.
    """

    where: str
    texts: tuple[str, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Task:
    """A text classification with its rows.

    Attributes:
        name: As `ffc.train.tasks.load` takes it.
        labels: Names of the labels, in the order of the logits.
        metric: A name in `ffc.train.tasks.metrics.METRICS`.
        train: Rows to train on, each with a label.
        validation: Rows to judge by, never trained on.
        spans: How many spans each row has; zero where the head reads the first token alone.
    """

    name: str
    labels: tuple[str, ...]
    metric: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    spans: int = 0


@dataclass(frozen=True)
class Scores:
    """How well a model does, in percent.

    Attributes:
        main: The figure that models are compared by.
        parts: What it is made of, by name.
    """

    main: float
    parts: Mapping[str, float]
