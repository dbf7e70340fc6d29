"""The folder that shows a fault to others: the model, its inputs, a script, what that needs, and a README."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffc.ci.reduce import documents
from ffc.ci.reduce.attachments import Attachments
from ffc.ci.reduce.cases.case import Reduction
from ffc.ci.reduce.cases.conditions import Command, Compiles, Condition, feeds
from ffc.compiler.library import Library
from ffc.errors import FfcError, InputError, UsageError, innermost, one_line
from ffc.graph import files
from ffc.graph.files import targets

__all__ = ["check_target", "write"]

_PROBE = re.compile(r"probe '([^']*)'")
_START_SECONDS = 60
"""How long it may take until a fresh process has imported everything."""


@dataclass(frozen=True)
class _Shown:
    """How a fault is shown: by ``reproduce.py``, whose status may tell, and by a command to type."""

    script: str
    command: str
    attachments: Attachments
    seconds: float
    tells: bool = True


def check_target(folder: Path) -> None:
    """Refuse a folder that is there already, or that nothing can be written beside.

    Raises:
        UsageError: If it is so.
    """
    targets.check_no_stream(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"the output '{folder}' is there already; remove it, or name another folder with -o")
    real = Path(os.path.realpath(folder))
    targets.check_folder(real.parent, shown=real.parent if folder.is_symlink() else folder.parent)


def write(found: Reduction, condition: Condition, library: Library, folder: Path) -> bool | None:
    """Write a reproducer, whole or not at all, and run it.

    Returns:
        Whether its script, in a process of its own, shows the fault; None where a function tells that.

    Raises:
        UsageError: If a pass is defined where no copy can be made.
        InputError: If writing fails, for example because the disk is full.
    """
    shown = _shown(found, condition, library)
    real = Path(os.path.realpath(folder))
    staging = real.parent / f".ffc-{secrets.token_hex(6)}.reduced"
    try:
        staging.mkdir()
        _fill(staging, found, shown)
        reproduced = _fails(staging, shown) if shown.tells else None
        os.replace(staging, real)
    except (OSError, InputError) as error:
        raise InputError(f"cannot write '{folder}': {innermost(error)}; nothing was written") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return reproduced


def _shown(found: Reduction, condition: Condition, library: Library) -> _Shown:
    attachments = Attachments()
    if isinstance(condition, Compiles):
        plugins = attachments.plugins(found.passes, library)
        pipeline = attachments.pipeline(found.passes)
        script = documents.compile_script(found.failure, pipeline, plugins, condition.target, condition.seconds)
        target = [] if condition.target == "cpu" else ["--target", condition.target]
        words = ["ffc", "compile", "model.onnx", "--passes", pipeline, *target]
        words += [word for plugin in plugins for word in ("--plugin", plugin)]
        return _Shown(script, shlex.join(words), attachments, condition.seconds)
    if isinstance(condition, Command):
        pipeline = attachments.pipeline(found.passes)
        command = Command(attachments.words(condition.words), condition.seconds)
        filled = command.filled({"model": "model.onnx", "inputs": "inputs.npz", "passes": pipeline})
        script = documents.command_script(filled, condition.seconds)
        return _Shown(script, shlex.join(filled), attachments, condition.seconds)
    return _Shown(documents.FUNCTION_SCRIPT, "ffc print model.onnx", attachments, 0, tells=False)


def _fill(folder: Path, found: Reduction, shown: _Shown) -> None:
    files.save(found.model, folder / "model.onnx")
    shown.attachments.copy(folder)
    named = _PROBE.search(found.failure.message)
    try:
        inputs = feeds(found.model, named[1] if named else "")
    except FfcError:  # a model whose inputs cannot be drawn may well be the fault
        inputs = {}
    if inputs:
        np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    (folder / "reproduce.py").write_text(shown.script, encoding="utf-8")
    absent = shown.attachments.absent
    message = shown.attachments.unplaced(one_line(found.failure.message))
    text = documents.readme(found, message, shown.command, absent=absent, inputs=bool(inputs), tells=shown.tells)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _fails(folder: Path, shown: _Shown) -> bool:
    """Run the script and return whether it shows the fault; leave nothing of that behind."""
    silence = subprocess.DEVNULL
    before = set(folder.iterdir())
    try:
        done = subprocess.run(
            [sys.executable, "-B", "reproduce.py"], cwd=folder, stdin=silence, stdout=silence, stderr=silence,
            timeout=shown.seconds + _START_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    finally:
        for left in set(folder.iterdir()) - before:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return done.returncode == 1
