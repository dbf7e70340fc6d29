"""Leaving out what fails: which rules and lowerings, at which places, break a pass, and the pass without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ffc.compiler.log import Application, Log
from ffc.errors import CannotApplyError, GateError, one_line

__all__ = ["FAILURES", "leave_out"]

R = TypeVar("R")

FfcFailure = GateError | CannotApplyError

FAILURES = (GateError, CannotApplyError)
"""What a pass fails with when its contract breaks, or when the checker or onnxruntime refuses what it made."""

_CULPRITS = 8
"""So many are looked for, each at the cost of a few runs of the pass; one that fails in more ways is refused."""

_PLACES = 2
"""What failed at so many places is left out everywhere."""


@dataclass
class _Left:
    """What is left out, each with what happens where it is not."""

    why: dict[Application, str] = field(default_factory=dict)

    def __contains__(self, application: Application) -> bool:
        return application in self.why or self._everywhere(application.what)

    def _everywhere(self, what: str) -> bool:
        return sum(each.what == what for each in self.why) >= _PLACES

    def tell(self, log: Log) -> None:
        """Say in a log what was left out."""
        for each, why in self.why.items():
            too = ", and wherever else it fits" if self._everywhere(each.what) else ""
            log.missed(f"{each.what} at '{each.where}'", f"left out{too}, since with it {why}")


def leave_out(attempt: Callable[[Log], R], failed: Log, error: FfcFailure, new_log: Callable[[], Log]) -> tuple[R, Log]:
    """Run a pass without the applications that break it.

    The first that breaks it is found by halving: all that the pass asked `Log.takes` for up to a place is done, the
    rest is not. It is left out, the pass takes what comes next there, and the search goes on where that fails too.

    Args:
        attempt: Runs the pass, and proves what it makes; it is given the log to ask.
        failed: The log of the attempt that failed.
        error: What it failed with.
        new_log: Makes a log for the next attempt.

    Returns:
        What the attempt without them returns, and its log, which names them.

    Raises:
        GateError: If the pass fails with nothing of all that applied, or with too much of it left out.
        CannotApplyError: Likewise.
    """
    search = _Search(attempt, new_log)
    if not failed.asked or search.failure(set()) is not None:
        raise error
    for _ in range(_CULPRITS):
        culprit, reason = search.culprit([each for each in failed.asked if each not in search.left], error)
        search.left.why[culprit] = reason
        failed = search.log(lambda each: each in search.left)
        try:
            result = attempt(failed)
        except FAILURES as another:
            error = another
            continue
        search.left.tell(failed)
        return result, failed
    raise error


@dataclass(frozen=True)
class _Search:
    """Runs a pass with some of its applications alone."""

    attempt: Callable[[Log], object]
    new_log: Callable[[], Log]
    left: _Left = field(default_factory=_Left)

    def log(self, leaves: Callable[[Application], bool]) -> Log:
        """Return a log that tells a pass to leave what `leaves` says."""
        log = self.new_log()
        log.leaves = leaves
        return log

    def failure(self, allowed: set[Application]) -> FfcFailure | None:
        """Return what the pass fails with where nothing but `allowed` applies, None if it holds."""
        try:
            self.attempt(self.log(lambda each: each not in allowed or each in self.left))
        except FAILURES as error:
            return error
        return None

    def culprit(self, asked: Sequence[Application], error: FfcFailure) -> tuple[Application, str]:
        """Return the application which breaks a pass that holds with those before it, and how.

        With none of `asked` the pass holds, with all it fails with `error`.
        """
        holds, fails = 0, len(asked)
        while fails - holds > 1:
            middle = (holds + fails) // 2
            found = self.failure({*asked[:middle]})
            if found is None:
                holds = middle
            else:
                fails, error = middle, found
        return asked[fails - 1], one_line(str(error), 300).removesuffix("; nothing was written")
