"""Whether a file can be written where it is asked for, told before any work is done for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from ffc.errors import UsageError
from ffc.graph.files.destination import STANDARD_OUTPUT, destination, status

__all__ = ["check_apart", "check_file", "check_folder", "check_no_stream", "check_suffix", "is_standard_output", "same"]


def check_file(path: Path, *, named: str = "", advice: str = " with -o") -> None:
    """Refuse a file in whose place none can be put, and what is no file and cannot be written into.

    Args:
        path: The file to write; links are followed.
        named: What messages call it; the output, where nothing is said.
        advice: How to name another.

    Raises:
        UsageError: If it is a folder or mounted by itself, or its folder does not exist or cannot be written in.
    """
    what = named or f"the output '{path}'"
    try:
        to = destination(path)
    except OSError as error:
        raise UsageError(f"{what} cannot be written: {error.strerror}; name another file{advice}") from error
    if to.real is None:
        if reason := to.hindrance():
            raise UsageError(f"{what} {reason}; name another file{advice}")
        return
    if path.is_dir():
        raise UsageError(f"{what} is a folder; name a file{advice}")
    if to.is_mounted:
        raise UsageError(
            f"{what} is mounted by itself and cannot be replaced; mount its folder, or name another file{advice}"
        )
    folder = to.real.parent if to.is_linked else path.parent
    if not folder.absolute().is_dir():
        link = f", to which '{path}' links," if to.is_linked else ""
        raise UsageError(f"the folder '{folder}' of {named or 'the output'}{link} does not exist; create it first")
    _check_writable(folder, shown=folder, advice=advice)


def check_no_stream(folder: Path, *, option: str = "-o") -> None:
    """Refuse standard output where a folder is to be written, and links that lead nowhere.

    Raises:
        UsageError: If `folder` is such.
    """
    if folder == STANDARD_OUTPUT:
        raise UsageError(f"a folder cannot be written to standard output; name one with {option}, be it './-'")
    try:
        destination(folder)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise UsageError(f"the folder '{folder}' {reason}; name another with {option}") from error


def check_suffix(path: Path, known: Collection[str], *, named: str) -> None:
    """Refuse a file whose suffix names no form to write it in.

    Raises:
        UsageError: If none of those that are known, or it is standard output, which has no suffix.
    """
    if path == STANDARD_OUTPUT:
        raise UsageError(
            f"{named} is standard output, which has no suffix to say in which form; --json prints JSON there, or name "
            "a file"
        )
    if path.suffix not in known:
        raise UsageError(f"{named} has the suffix {path.suffix!r}; known: {', '.join(known)}")


def check_folder(folder: Path, *, shown: Path, option: str = "-o") -> None:
    """Refuse a folder in which nothing can be written.

    Args:
        folder: The folder.
        shown: What messages call it.
        option: The option that names what goes there.

    Raises:
        UsageError: If it is not there, or nothing can be written in it.
    """
    if not folder.is_dir():
        raise UsageError(f"the folder '{shown}' of the output does not exist; create it first")
    _check_writable(folder, shown=shown, advice=f" with {option}")


def _check_writable(folder: Path, *, shown: Path, advice: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write in the folder '{shown}'; name another place{advice}") from error


def check_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that no output is an input or another output, under whatever name.

    Raises:
        UsageError: If one is, be it through a link.
    """
    for index, output in enumerate(outputs):
        if any(same(output, other.absolute()) for other in inputs):  # an input that is called - is a file
            raise UsageError(f"the output '{output}' is an input; name another file")
        if any(same(output, other) for other in outputs[:index]):
            raise UsageError(f"the output '{output}' is named twice; name another file")


def same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, folder or stream, be it through a link; ``-`` is standard output in both."""
    sides = [is_standard_output(path) for path in (one, other)]
    if all(sides) or (not any(sides) and os.path.realpath(one) == os.path.realpath(other)):
        return True
    try:
        return os.path.samestat(status(one), status(other))
    except OSError:  # one of them is not there, or standard output is no file
        return False


def is_standard_output(path: Path) -> bool:
    """Whether what is written to a path goes to standard output."""
    try:
        return destination(path).is_standard_output
    except OSError:
        return False
