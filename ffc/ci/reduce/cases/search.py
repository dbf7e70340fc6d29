"""The search for a smaller case: what is the smallest so far, what was tried, and how much time is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from ffc.ci.reduce.cases.case import Case, digest
from ffc.ci.reduce.cases.conditions import Condition
from ffc.ci.reduce.cases.failure import Failure
from ffc.compiler.passes import Pass

__all__ = ["OutOfTimeError", "Search"]


class OutOfTimeError(Exception):
    """The time that the search may take is over; the smallest case so far is what there is."""


@dataclass
class Search:
    """Tries cases and keeps the smallest that shows what the first one shows.

    Attributes:
        best: That case.
        wanted: How the first one goes wrong.
        condition: What tells.
        deadline: When to stop, by `time.monotonic`.
        tell: Called with a line whenever a smaller case is found.
        failure: How the best one goes wrong.
        tried: How many cases were run.
    """

    best: Case
    wanted: Failure
    condition: Condition
    deadline: float
    tell: Callable[[str], None]
    failure: Failure = field(init=False)
    tried: int = 0
    _tensors: dict[int, tuple[ir.TensorProtocol, str]] = field(default_factory=dict)
    _seen: dict[str, Failure | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.failure = self._seen[self.digest()] = self.wanted

    def model(self, model: ir.Model | None) -> bool:
        """Try another model; whether it shows it, and is now the best."""
        return self.case(model, self.best.passes)

    def passes(self, passes: Iterable[Pass]) -> bool:
        """Try another pipeline; whether it shows it, and is now the best."""
        return self.case(self.best.model, passes)

    def case(self, model: ir.Model | None, passes: Iterable[Pass]) -> bool:
        """Try another model through another pipeline; whether it shows it, and is now the best."""
        if model is None:
            return False
        case = Case(model, tuple(passes))
        key = digest(case, self._tensors)
        if key not in self._seen:
            if time.monotonic() > self.deadline:
                raise OutOfTimeError
            failure = self.condition.check(case)
            self.tried += 1
            self._seen[key] = failure if isinstance(failure, Failure) and failure.alike(self.wanted) else None
        shown = self._seen[key]
        if shown is None:
            return False
        known, self.best, self.failure = self.digest(), case, shown
        if key != known:
            self._tell()
        return True

    def first(self, models: Iterable[ir.Model | None]) -> bool:
        """Try models in order until one shows it."""
        return any(self.model(model) for model in models)

    def digest(self) -> str:
        """Return the digest of the best case."""
        return digest(self.best, self._tensors)

    def _tell(self) -> None:
        case = self.best
        self.tell(
            f"{case.nodes} nodes, {_size(case.weights)} of weights"
            f"{f', {case.pipeline!r}' if self.condition.by_passes else ''}; {self.tried} tried"
        )


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
