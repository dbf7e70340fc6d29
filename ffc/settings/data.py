"""Which rows to learn from and to judge by, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffc.settings.setting import Wanted, check, setting
from ffc.settings.wanted import COLUMN, COLUMNS, COUNT, FILE, FOLDER, LABELS

__all__ = ["OF_THE_HUB", "Data", "Encoding", "LimitedTexts", "Texts"]

OF_THE_HUB = "hub:"
"""What stands before the name of a data set of the hub."""


@dataclass(frozen=True)
class Data:
    """The rows of a task.

    Files may take the place of the folder of a SuperGLUE task; validation rows alone leave nothing to train on. A
    sample may be a few rows larger than asked for, since the rows of one question stay together.
    """

    name: str = setting(
        Wanted("the name of a task, such as rte or text", bool),
        "boolq, cb, copa, multirc, record, rte or wic from --data; text for files of your own (--train, --validation); "
        "hub:NAME[/CONFIG] for a data set of the datasets hub.",
        option="task",
        metavar="NAME",
    )
    folder: str | Path | None = setting(
        FOLDER,
        "The folder of a SuperGLUE task: train.jsonl and val.jsonl.",
        option="data",
        metavar="FOLDER",
        default=None,
    )
    train: str | Path | None = setting(FILE, "Training rows: .tsv, .csv or .jsonl.", metavar="FILE", default=None)
    validation: str | Path | None = setting(
        FILE,
        "Validation rows.  [default: a part of the training rows, the same every time]",
        metavar="FILE",
        default=None,
    )
    text: str | Sequence[str] = setting(
        COLUMNS, "A text column; at most two.  [repeatable]", metavar="COLUMN", repeated=True, default=()
    )
    label: str = setting(COLUMN, "The column of labels.", metavar="COLUMN", default="label")
    labels: Sequence[str] = setting(
        LABELS,
        "The labels, in the order of the logits.  [default: those of the training rows, sorted]",
        metavar="A,B,...",
        default=(),
    )
    train_rows: int | None = setting(
        COUNT, "Use N of the training rows.  [default: all]", option="rows", metavar="N", default=None
    )
    validation_rows: int | None = setting(
        COUNT, "Use N of the validation rows.  [default: all]", metavar="N", default=None
    )
    # Of the training rows, what is set apart for validation where there are no rows for that.
    validation_share: float = setting(Wanted("a number between 0 and 1", lambda value: 0 < value < 1), default=0.1)

    def __post_init__(self) -> None:
        check(self)

    @property
    def of_the_hub(self) -> bool:
        """Whether it is a data set of the hub."""
        return self.name.lower().startswith(OF_THE_HUB)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """How rows of text that a model is run on are read."""

    text: str | Sequence[str] = setting(
        COLUMNS,
        "A column of text, where --data is text; at most two.  [repeatable]  [default: the only one beside label]",
        metavar="COLUMN",
        repeated=True,
        default=(),
    )
    tokenizer: str | Path | None = setting(
        Wanted("the path of a tokenizer.json or of its folder, or package:NAME", bool),
        "The model's tokenizer.json, its folder or package:NAME, where --data is text.  [default: beside the model]",
        metavar="PATH",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class LimitedTexts(Texts):
    """The same, and how much of them is read."""

    rows: int | None = setting(
        COUNT,
        "Rows to take at most, at even distances, where --data is text.  [default: 128]",
        metavar="N",
        default=None,
    )
    max_length: int | None = setting(
        COUNT,
        "Tokens a row at most, where --data is text.  [default: what the tokenizer says or the model takes]",
        metavar="N",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How rows become tokens."""

    max_length: int = setting(
        Wanted("a number of tokens, from 4", lambda value: value >= 4), "Tokens a row at most.", default=128
    )
