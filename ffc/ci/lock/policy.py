"""What a check lets pass: the table ``[tool.ffc.check]`` of a ``pyproject.toml``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from ffc.ci.diff.changes import KINDS, Kind
from ffc.errors import InputError
from ffc.graph.cost import Cost
from ffc.recipe.file import projects, table_of
from ffc.settings.setting import Wanted, changed, check, setting
from ffc.settings.wanted import FROM_0

__all__ = ["Allowance", "Policy", "find", "is_better", "load", "require"]

_TABLE = ("tool", "ffc", "check")
_FAILING = tuple(kind for kind in KINDS if kind != "name")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?)B?|\+(\d+(?:\.\d+)?) ?%")


@dataclass(frozen=True)
class Allowance:
    """How much of something a model may have.

    Attributes:
        text: As written: ``120M`` for that much, ``+2%`` for so much more than the lock has.
    """

    text: str

    def most(self, locked: int) -> int:
        """Return the most that is allowed where the lock has `locked`."""
        found = _AMOUNT.fullmatch(self.text)
        assert found is not None
        number, unit, percent = found.groups()
        return int(locked * (1 + float(percent) / 100)) if percent else int(float(number) * _UNITS[unit])


@dataclass(frozen=True)
class Policy:
    """What a check lets pass.

    Attributes:
        source: Where it is written, for messages; empty for the default.
        fail: Kinds of changes that fail.
        improvements: Whether a model that costs less, and nothing more, passes though its graph is another.
        weights: How far weights may have moved, as a share of their norm.
        budget: The most of ``nodes``, ``parameters``, ``bytes`` and ``macs``.
        difference: The largest difference of outputs from those of the model as it came, relative to their scale.
        cosine: The least cosine to them.
        agreement: The least share of rows whose largest output is the same.
        locks: Patterns of the locks that `ffc check` without arguments checks.
        folder: The folder that those are seen from.
    """

    source: str = ""
    fail: tuple[Kind, ...] = _FAILING
    improvements: bool = True
    weights: float = 1e-5
    budget: Mapping[str, Allowance] = field(default_factory=dict)
    difference: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    locks: tuple[str, ...] = ("**/*.ffc.lock",)
    folder: Path = Path()


_MOST = Wanted(
    "an amount such as 450, '120M', or '+2%' over the lock", lambda value: bool(_AMOUNT.fullmatch(str(value)))
)


@dataclass(frozen=True)
class _Budget:
    """The most that a model may have."""

    nodes: int | str | None = setting(_MOST, default=None)
    parameters: int | str | None = setting(_MOST, default=None)
    bytes: int | str | None = setting(_MOST, default=None)
    macs: int | str | None = setting(_MOST, default=None)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class _Numerics:
    """What outputs may differ from those of the model as it came."""

    difference: float | None = setting(FROM_0, default=None)
    cosine: float | None = setting(Wanted("a number from -1 to 1", lambda value: -1 <= value <= 1), default=None)
    agreement: float | None = setting(Wanted("a number from 0 to 1", lambda value: 0 <= value <= 1), default=None)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class _Check:
    """The table as written."""

    fail: Sequence[Kind] = setting(Wanted("a list of kinds of changes"), default=_FAILING)
    improvements: bool = setting(Wanted("true or false"), default=True)
    weights: float = setting(FROM_0, default=Policy.weights)
    locks: Sequence[str] = setting(Wanted("a list of patterns such as 'models/*.ffc.lock'"), default=Policy.locks)
    budget: _Budget = setting(Wanted("a table"), default=_Budget())
    numerics: _Numerics = setting(Wanted("a table"), default=_Numerics())

    def __post_init__(self) -> None:
        check(self)


def find(folder: str | os.PathLike[str] = ".") -> Policy:
    """Return the policy of the project that a folder is in: that of the nearest ``pyproject.toml`` with one.

    Without any it is the default: every change fails but of names, improvements pass.

    Raises:
        InputError: If that file is not TOML.
        UsageError: If a key is unknown or of the wrong type; the message names the line.
    """
    found = (policy for path in projects(folder) if (policy := load(path)) is not None)
    return next(found, Policy(folder=Path(folder)))


def load(path: Path) -> Policy | None:
    """Return the policy in a ``pyproject.toml``, or None where it has none.

    Raises:
        InputError: If the file is missing or not TOML.
        UsageError: As `find`.
    """
    found = table_of(path, _TABLE)
    if found is None:
        return None
    file, data = found
    keys = file.read(_Check, data)
    return Policy(
        source=file.name,
        fail=tuple(kind for kind in KINDS if kind in keys.fail),
        improvements=keys.improvements,
        weights=keys.weights,
        budget={name: Allowance(str(amount)) for name, amount in changed(keys.budget).items()},
        **changed(keys.numerics),
        locks=tuple(keys.locks),
        folder=path.parent,
    )


def require(path: Path) -> Policy:
    """Return the policy in a file that must have one.

    Raises:
        InputError: If it has none, is missing or not TOML.
        UsageError: As `find`.
    """
    found = load(path)
    if found is None:
        raise InputError(f"{path} has no table [{'.'.join(_TABLE)}]; add one, or name another file")
    return found


def is_better(was: Cost, now: Cost) -> bool:
    """Whether a model costs less of something and more of nothing."""
    return now != was and all(new <= old for old, new in zip(astuple(was), astuple(now), strict=True))
