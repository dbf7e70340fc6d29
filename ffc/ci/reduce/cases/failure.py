"""How something goes wrong, and when two things go wrong in the same way."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from ffc.errors import FfcError, MissingError

__all__ = ["Failure"]

_NAMED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]")
"""Parts of a message that name something of a model, which a smaller model may lack."""

_WORD = re.compile(r"[A-Za-z-]{3,}[,;:.]?")


@dataclass(frozen=True)
class Failure:
    """How a model goes wrong.

    Attributes:
        kind: The class of the error, the signal that ended the process, ``hangs``, or ``--when``.
        exit_code: What ``ffc compile`` would exit with; of a process that a signal ended, 128 and the number of it.
        step: The pass that was at work, empty before the first.
        message: The error, on one line.
        place: The file and the function that raised it first.
        died: Whether it ended the process, or never came to an end.
    """

    kind: str
    exit_code: int
    step: str
    message: str
    place: str = ""
    died: bool = False

    @classmethod
    def of(cls, error: Exception, step: str) -> Failure:
        """Return what an error says that was raised while the pass `step` was at work."""
        exit_code = error.exit_code if isinstance(error, FfcError) else FfcError.exit_code
        if isinstance(error, MemoryError):
            exit_code = MissingError.exit_code
        return cls(type(error).__name__, exit_code, step, " ".join(str(error).split()), _place(error))

    def alike(self, other: Failure) -> bool:
        """Whether `other` goes wrong in the same way: names, numbers and sizes may differ, the rest may not.

        The same error from the same place may still be two: of what onnxruntime refuses, the words tell which.
        """
        if (self.kind, self.exit_code, self.step, self.place) != (other.kind, other.exit_code, other.step, other.place):
            return False
        mine, theirs = self._words(), other._words()
        return 2 * len(mine & theirs) >= max(len(mine), len(theirs))

    def _words(self) -> set[str]:
        plain = _NAMED.sub(" ", self.message).split()
        return {word.rstrip(",;:.").lower() for word in plain if _WORD.fullmatch(word)}


def _place(error: BaseException) -> str:
    """Return where the error was raised that `error` came of."""
    while error.__cause__ not in (None, error):  # `raise error from error` makes an error its own cause
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
