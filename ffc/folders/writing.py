"""Writing a folder whole: a new one appears under its name when all is in it, in an existing one files are replaced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from ffc.folders.places import MODEL
from ffc.graph import files
from ffc.graph.files import publish

__all__ = ["write"]

_LINK = Path("onnx") / MODEL
"""Where transformers.js looks for the model."""


def write(folder: Path, model: ir.Model, contents: Mapping[str, bytes]) -> None:
    """Write a model and what goes with it into a folder; other files that are in it stay.

    Raises:
        UsageError: If the folder cannot be written; nothing of a new one is left then.
        InputError: If the model cannot be saved, for example because the disk is full.
    """
    with publish.asked_for(f"{folder}", "name another folder"):
        real = Path(os.path.realpath(folder))
        if real.is_dir():
            _fill(real, model, contents)
            return
        with publish.draft(real) as draft:
            _fill(draft, model, contents)
            try:
                os.replace(draft, real)
            except OSError:
                if not real.is_dir():
                    raise
                _fill(real, model, contents)  # another process made it meanwhile


def _fill(folder: Path, model: ir.Model, contents: Mapping[str, bytes]) -> None:
    """Write all; what is small is on the disk before the model gets its name, and gets its own right after."""
    with publish.Staging() as staging:
        written = [staging.write([content], folder / name) for name, content in contents.items()]
        files.save(model, folder / MODEL)
        for staged in written:
            staging.place(staged)
    if not list(folder.glob(f"{MODEL}.*.data")):  # data that runtimes would look for beside the link
        _link(folder)


def _link(folder: Path) -> None:
    """Let the model be found where transformers.js looks, at no cost; a system without links goes without."""
    link = folder / _LINK
    with contextlib.suppress(OSError):
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)  # one whose target has gone
            link.symlink_to(Path("..") / MODEL)
