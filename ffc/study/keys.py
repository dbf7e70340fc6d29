"""The keys of a study's file, table by table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ffc.recipe.compiling import CompileKeys
from ffc.settings.activation import Activation
from ffc.settings.amount import Amount, Kept
from ffc.settings.data import Data, Encoding
from ffc.settings.losses import ON_A_TASK, Losses
from ffc.settings.setting import SettingError, Wanted, changed, check, fields, setting
from ffc.settings.training import Schedule
from ffc.settings.wanted import ANY, COUNT, FROM_0, MODEL, SEED

__all__ = [
    "ChooseKeys", "PlanKeys", "ReportKeys", "StudentKeys", "StudyKeys", "TaskKeys", "TeacherKeys", "TrainingKeys",
]  # fmt: skip

_LOSSES = Wanted("a table of losses and their weights, such as { logits = 1.0, hidden = 0.1 }")
_STUDENTS = Wanted("the name of a student, or a list of them")


@dataclass(frozen=True)
class TaskKeys(Data):
    """``[task]``: which rows, from where; there must be some to train on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.of_the_hub or self.folder or self.train):
            raise SettingError('has no data; add the training file, such as train = "train.tsv", or a folder')


@dataclass(frozen=True, kw_only=True)
class TrainingKeys(Schedule):
    """How to train; the seed, where it is left out, is that of the study, and 0 epochs are none."""

    epochs: float = setting(FROM_0, default=3.0)
    seed: int | None = setting(SEED, default=None)

    def training(self, seed: int) -> dict[str, Any]:
        """Return the arguments of `ffc.settings.training.Training` that are stated, and epochs and seed."""
        stated = {name: value for name, value in changed(self).items() if name in fields(Schedule)}
        return {"seed": seed if self.seed is None else self.seed, **stated, "epochs": self.epochs}


@dataclass(frozen=True, kw_only=True)
class TeacherKeys(TrainingKeys):
    """``[teacher]``: where it starts from, and how it is trained; 0 epochs leave it as it is."""

    model: str = setting(MODEL)


@dataclass(frozen=True, kw_only=True)
class StudentKeys(TrainingKeys, Activation):
    """``[students.NAME]``: some layers of the teacher, or a checkpoint, and how it is distilled."""

    layers: int | Sequence[int] | None = setting(
        Wanted(
            "a number of layers to keep, or a list of the teacher's, from 0",
            lambda value: value >= 1 if isinstance(value, int) else all(layer >= 0 for layer in value),
        ),
        default=None,
    )
    model: str | None = setting(MODEL, default=None)
    losses: Losses = setting(_LOSSES, default=ON_A_TASK)

    def __post_init__(self) -> None:
        Activation.__post_init__(self)
        if (self.layers is None) == (self.model is None):
            raise SettingError("wants one of layers, those of the teacher to keep, and model, a checkpoint")
        if isinstance(self.layers, Sequence) and not _ascends(self.layers):
            raise SettingError(f"layers is {self.layers}, wanted layers of the teacher, ascending and each once")
        if self.anneal is not None and not self.epochs:
            raise SettingError("anneal wants epochs to anneal over; raise epochs, or leave anneal out")


def _ascends(layers: Sequence[int]) -> bool:
    return bool(layers) and sorted(set(layers)) == list(layers)


@dataclass(frozen=True, kw_only=True)
class PlanKeys(TrainingKeys, Kept):
    """``[plans.NAME]``: of which students, how much is kept, how it is scored, and how it is distilled again."""

    student: str | Sequence[str] = setting(_STUDENTS, default=())
    by: Literal["taylor", "fisher", "norm", "random", "search"] = setting(ANY, default="taylor")
    on: Literal["labels", "model"] = setting(ANY, default="labels")
    allocate: Literal["uniform", "global", "macs"] | None = setting(ANY, default=None)
    steps: int = setting(COUNT, default=1)
    rows: int = setting(COUNT, default=2000)
    epochs: float = setting(FROM_0, default=0.0)
    teacher: Literal["student", "teacher"] = setting(ANY, default="student")
    losses: Losses | None = setting(_LOSSES, default=None)

    @property
    def allocation(self) -> str:
        """How what is kept is spread over layers."""
        return self.allocate or ("uniform" if self.macs is None else "macs")

    @property
    def amount(self) -> Amount:
        """How much is kept; where layers may differ each keeps a quarter at least, unless the file says otherwise."""
        floor = 0.25 if self.floor is None and self.allocation != "uniform" else self.floor
        return Amount(self.heads, self.ffn, self.macs, floor, self.allocation == "global")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.macs is not None and self.allocation != "macs":
            raise SettingError(f'allocate = "{self.allocation}" wants heads and ffn; macs goes with allocate = "macs"')
        if self.macs is None and self.allocation == "macs":
            raise SettingError('allocate = "macs" wants the share to keep; add it, such as macs = 0.7')
        try:
            self.amount  # noqa: B018 - which refuses what contradicts itself
        except SettingError as error:
            said = {"across": 'allocate = "global"'}
            raise SettingError(error.spelled(lambda name: said.get(name, name))) from error
        if self.by == "search" and self.macs is None:
            raise SettingError('by = "search" keeps to a share of the work; add it, such as macs = 0.7')
        if self.by in ("norm", "random") and self.allocation == "macs":
            raise SettingError(f'by = "{self.by}" compares within a layer only; give heads and ffn, or score otherwise')
        self._check_idle()

    def _check_idle(self) -> None:
        """Refuse what would have no effect."""
        stated = changed(self).keys()
        if not self.epochs and (idle := stated & (fields(Schedule).keys() | {"losses", "teacher"})):
            raise SettingError(f"{min(idle)} is for distilling again; add epochs, such as epochs = 1, or leave it out")
        if self.by in ("norm", "random") and (unread := stated & {"rows", "on"}):
            raise SettingError(f'{min(unread)} is for scores from rows, and by = "{self.by}" reads none; leave it out')
        if self.steps > 1 and self.by not in ("taylor", "fisher"):
            raise SettingError(f'steps are for by = "taylor" and "fisher", which are scored again; by is "{self.by}"')


@dataclass(frozen=True)
class ChooseKeys:
    """``[choose]``: how many points the smallest system may lose."""

    accuracy: float = setting(Wanted("a number of points, from 0", FROM_0.fits), default=2.5)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ReportKeys:
    """``[report]``: what the report assumes and how much it measures."""

    dollars_per_hour: float = setting(Wanted("a price from 0", FROM_0.fits), default=0.0)
    queries: int = setting(COUNT, default=100)
    rounds: int = setting(COUNT, default=3)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class StudyKeys(CompileKeys, Encoding):
    """The whole file."""

    seed: int = setting(SEED, default=0)
    task: TaskKeys = setting(Wanted("a table [task]"))
    teacher: TeacherKeys = setting(Wanted("a table [teacher]"))
    students: Mapping[str, StudentKeys] = setting(
        Wanted("a table for each student, such as [students.small]"), factory=dict
    )
    plans: Mapping[str, PlanKeys] = setting(Wanted("a table for each plan, such as [plans.third]"), factory=dict)
    choose: ChooseKeys = setting(Wanted("a table [choose]"), default=ChooseKeys())
    report: ReportKeys = setting(Wanted("a table [report]"), default=ReportKeys())
