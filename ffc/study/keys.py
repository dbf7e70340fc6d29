"""The keys of a study's file, table by table, each with what is wanted of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ffc.recipe.compiling import CompileKeys, Text
from ffc.recipe.file import Keys

__all__ = [
    "ChooseKeys",
    "LossKeys",
    "PlanKeys",
    "ReportKeys",
    "StudentKeys",
    "StudyKeys",
    "TaskKeys",
    "TeacherKeys",
    "TrainingKeys",
]

_Number = Annotated[float, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Amount = _Count | _Share
_Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
_Texts = Text | list[Text]

_SEED = "a whole number from 0 to 4294967295"
_WEIGHT = "a number from 0"
_ROWS = "a whole number from 1"
_SHARE = "a number above 0 and up to 1"
_AMOUNT = "a count such as 6 or a share such as 0.5"
_COLUMNS = "the name of a column or a list of them"


class TaskKeys(Keys):
    """``[task]``: which rows, from where; as `ffc.train.tasks.load` takes them."""

    name: Text = Field(description="the name of a task, such as rte or text")
    folder: Text | None = Field(default=None, description="the path of a folder")
    train: Text | None = Field(default=None, description="the path of a file")
    validation: Text | None = Field(default=None, description="the path of a file")
    text: _Texts = Field(default=[], description=_COLUMNS)
    label: Text = Field(default="label", description="the name of a column")
    labels: list[Text] = Field(default=[], description="a list of the labels, in the order of their numbers")
    train_rows: _Count | None = Field(default=None, description=_ROWS)
    validation_rows: _Count | None = Field(default=None, description=_ROWS)
    validation_share: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.1, description="a number between 0 and 1")

    @model_validator(mode="after")
    def _somewhere(self) -> TaskKeys:
        if not (self.name.startswith("hub:") or self.folder or self.train):
            raise ValueError('has no data; add the training file, such as train = "train.tsv", or a folder')
        return self


class TrainingKeys(Keys):
    """How to train; those left out are as `ffc.train.learning.trainer.Training` has them."""

    learning_rate: _Positive | None = Field(default=None, description="a number above 0")
    batch_size: _Count | None = Field(default=None, description=_ROWS)
    accumulate: _Count | None = Field(default=None, description=_ROWS)
    weight_decay: _Number | None = Field(default=None, description=_WEIGHT)
    warmup: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, description="a number from 0 to 1")
    clip: _Number | None = Field(default=None, description=_WEIGHT)
    max_steps: _Count | None = Field(default=None, description=_ROWS)
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] | None = Field(
        default=None, description="a schedule: linear, cosine, constant or constant_with_warmup"
    )
    seed: _Seed | None = Field(default=None, description=_SEED)

    def training(self, epochs: float, seed: int) -> dict[str, Any]:
        """Return the arguments of `ffc.train.learning.trainer.Training`."""
        given = {name: getattr(self, name) for name in TrainingKeys.model_fields}
        return {"seed": seed, **{name: value for name, value in given.items() if value is not None}, "epochs": epochs}


class LossKeys(Keys):
    """What to learn from the teacher, and how much of each; as `ffc.train.distillation.losses.Losses` has them."""

    labels: _Number = Field(default=0.0, description=_WEIGHT)
    logits: _Number = Field(default=0.0, description=_WEIGHT)
    hidden: _Number = Field(default=0.0, description=_WEIGHT)
    attention: _Number = Field(default=0.0, description=_WEIGHT)
    relations: _Number = Field(default=0.0, description=_WEIGHT)
    temperature: _Positive = Field(default=1.0, description="a number above 0")
    relation_heads: _Count = Field(default=12, description=_ROWS)

    @model_validator(mode="after")
    def _something(self) -> LossKeys:
        if not (self.labels or self.logits or self.hidden or self.attention or self.relations):
            raise ValueError("gives no loss a weight; add one, such as logits = 1.0")
        return self


_LOSSES = "a table of losses and their weights, such as { logits = 1.0, hidden = 0.1 }"
_EPOCHS = "a number from 0"


class TeacherKeys(TrainingKeys):
    """``[teacher]``: where it starts from, and how it is trained; 0 epochs leave it as it is."""

    model: Text = Field(description="a folder, package:NAME, or a name on the hub")
    epochs: _Number = Field(default=3.0, description=_EPOCHS)


class StudentKeys(TrainingKeys):
    """``[students.NAME]``: some layers of the teacher, or a checkpoint, and how it is distilled."""

    layers: _Count | list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="a number of layers to keep, or a list of the teacher's, from 0"
    )
    model: Text | None = Field(default=None, description="a folder, package:NAME, or a name on the hub")
    activation: Literal["relu"] | None = Field(default=None, description='"relu"')
    anneal: _Share | None = Field(default=None, description=_SHARE)
    epochs: _Number = Field(default=3.0, description=_EPOCHS)
    losses: LossKeys = Field(default=LossKeys(logits=1.0, hidden=0.1), description=_LOSSES)

    @model_validator(mode="after")
    def _whole(self) -> StudentKeys:
        if (self.layers is None) == (self.model is None):
            raise ValueError("wants one of layers, those of the teacher to keep, and model, a checkpoint")
        if isinstance(self.layers, list) and (not self.layers or sorted(set(self.layers)) != self.layers):
            raise ValueError(f"layers is {self.layers}, wanted layers of the teacher, ascending and each once")
        if self.anneal is not None and self.activation is None:
            raise ValueError('anneal is for a change of activation; add activation = "relu"')
        if self.anneal is not None and not self.epochs:
            raise ValueError("anneal wants epochs to anneal over; raise epochs, or leave anneal out")
        return self


class PlanKeys(TrainingKeys):
    """``[plans.NAME]``: of which students, how much is kept, how it is scored, and how it is distilled again."""

    student: _Texts = Field(default=[], description="the name of a student, or a list of them")
    heads: _Amount | None = Field(default=None, description=_AMOUNT)
    ffn: _Amount | None = Field(default=None, description=_AMOUNT)
    macs: _Share | None = Field(default=None, description=_SHARE)
    by: Literal["taylor", "fisher", "norm", "random", "search"] = Field(default="taylor", description="a way to score")
    on: Literal["labels", "model"] = Field(default="labels", description='"labels" or "model"')
    allocate: Literal["uniform", "global", "macs"] | None = Field(
        default=None, description='"uniform", "global" or "macs"'
    )
    floor: _Amount | None = Field(default=None, description=_AMOUNT)
    steps: _Count = Field(default=1, description=_ROWS)
    rows: _Count = Field(default=2000, description=_ROWS)
    epochs: _Number = Field(default=0.0, description=_EPOCHS)
    teacher: Literal["student", "teacher"] = Field(default="student", description='"student" or "teacher"')
    losses: LossKeys | None = Field(default=None, description=_LOSSES)

    @property
    def allocation(self) -> str:
        """How what is kept is spread over layers."""
        return self.allocate or ("uniform" if self.macs is None else "macs")

    @property
    def least(self) -> int | float | None:
        """What every layer keeps at least; None where all keep the same."""
        return None if self.allocation == "uniform" else self.floor or 0.25

    @model_validator(mode="after")
    def _whole(self) -> PlanKeys:
        widths = self.heads is not None or self.ffn is not None
        if widths == (self.macs is not None):
            raise ValueError("wants heads or ffn, what to keep of them, or else macs, the share of all work to keep")
        if self.macs is not None and self.allocation != "macs":
            raise ValueError(f'allocate = "{self.allocation}" wants heads and ffn; macs goes with allocate = "macs"')
        if self.macs is None and self.allocation == "macs":
            raise ValueError('allocate = "macs" wants the share to keep; add it, such as macs = 0.7')
        if self.floor is not None and self.allocation == "uniform":
            raise ValueError('floor is for allocate = "global" and "macs"; otherwise all layers keep the same')
        if self.by == "search" and self.macs is None:
            raise ValueError('by = "search" keeps to a share of the work; add it, such as macs = 0.7')
        if self.by in ("norm", "random") and self.allocation == "macs":
            raise ValueError(f'by = "{self.by}" compares within a layer only; give heads and ffn, or score otherwise')
        given = self.model_fields_set
        idle = given & (TrainingKeys.model_fields.keys() - {"seed"} | {"losses", "teacher"})
        if not self.epochs and idle:
            raise ValueError(f"{min(idle)} is for distilling again; add epochs, such as epochs = 1, or leave it out")
        if self.by in ("norm", "random") and (unread := given & {"rows", "on"}):
            raise ValueError(f'{min(unread)} is for scores from rows, and by = "{self.by}" reads none; leave it out')
        if self.steps > 1 and self.by not in ("taylor", "fisher"):
            raise ValueError(f'steps are for by = "taylor" and "fisher", which are scored again; by is "{self.by}"')
        return self


class ChooseKeys(Keys):
    """``[choose]``: how many points the smallest system may lose."""

    accuracy: _Number = Field(default=2.5, description="a number of points, from 0")


class ReportKeys(Keys):
    """``[report]``: what the report assumes and how much it measures."""

    dollars_per_hour: _Number = Field(default=0.0, description="a price from 0")
    queries: _Count = Field(default=100, description=_ROWS)
    rounds: _Count = Field(default=3, description=_ROWS)


class StudyKeys(CompileKeys):
    """The whole file."""

    model_config = ConfigDict(allow_inf_nan=False)

    seed: _Seed = Field(default=0, description=_SEED)
    max_length: Annotated[int, Field(ge=2)] = Field(default=128, description="a number of tokens, from 2")
    task: TaskKeys = Field(description="a table [task]")
    teacher: TeacherKeys = Field(description="a table [teacher]")
    students: dict[str, StudentKeys] = Field(
        default={}, description="a table for each student, such as [students.small]"
    )
    plans: dict[str, PlanKeys] = Field(default={}, description="a table for each plan, such as [plans.third]")
    choose: ChooseKeys = Field(default=ChooseKeys(), description="a table [choose]")
    report: ReportKeys = Field(default=ReportKeys(), description="a table [report]")
