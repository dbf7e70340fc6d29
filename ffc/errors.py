"""Every error a user can meet, with the exit code that the command line gives it.

A message is one line: what failed, where, why, and what to do about it.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

__all__ = [
    "CannotApplyError", "FfcError", "GateError", "InputError", "MissingError", "UsageError", "innermost", "located",
    "nearest", "one_line",
]  # fmt: skip


class FfcError(Exception):
    """Base of all errors that ffc raises on purpose. One that reaches the user as such is a bug."""

    exit_code = 70


class GateError(FfcError):
    """A gate failed: a contract, a budget, a lock, or two models that differ."""

    exit_code = 1


class UsageError(FfcError):
    """The request is malformed: an unknown pass or option, a value of the wrong type, a misplaced brace."""

    exit_code = 2


class InputError(FfcError):
    """An input file is missing, broken, unsafe, or not what it claims to be."""

    exit_code = 3


class CannotApplyError(FfcError):
    """A pass cannot be applied to this model as asked."""

    exit_code = 4


class MissingError(FfcError):
    """Something is missing from the environment, such as an optional dependency."""

    exit_code = 5


def one_line(text: str, longest: int = 1000) -> str:
    """Return `text` on one line that a terminal shows as it is: names in it may come from anywhere."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[:longest]}..."


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of `known`, or the whole list where none is near."""
    names = sorted(known)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    close += [lowered[each] for each in difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place before the message of an error."""
    try:
        yield
    except FfcError as error:
        raise type(error)(f"{place}: {error}") from error


def innermost(error: BaseException) -> str:
    """Return the message of the error that an error came of, which is the one that explains."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
