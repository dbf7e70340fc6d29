"""Whether a file can be written where it is asked for, told before any work is done for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ffc.errors import UsageError

__all__ = ["check_apart", "check_file", "check_folder", "same"]


def check_file(path: Path, *, named: str = "", advice: str = " with -o") -> None:
    """Refuse a file that is a folder, or whose folder does not exist.

    Args:
        path: The file to write.
        named: What messages call it; the output, where nothing is said.
        advice: How to name another.

    Raises:
        UsageError: If it is so.
    """
    if path.is_dir():
        what = named or f"the output '{path}'"
        raise UsageError(f"{what} is a folder; name a file{advice}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder '{path.parent}' of {named or 'the output'} does not exist; create it first")


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
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write in the folder '{shown}'; name another place with {option}") from error


def check_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that no output is an input or another output, under whatever name.

    Raises:
        UsageError: If one is, be it through a link.
    """
    for index, output in enumerate(outputs):
        if any(same(output, other) for other in inputs):
            raise UsageError(f"the output '{output}' is an input; name another file")
        if any(same(output, other) for other in outputs[:index]):
            raise UsageError(f"the output '{output}' is named twice; name another file")


def same(one: Path, other: Path) -> bool:
    """Whether two paths name one file or folder, be it through a link."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False
