"""What a reproducer says: the script that shows the fault, and the README."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ffc.ci.reduce.cases.case import Reduction
from ffc.ci.reduce.cases.failure import Failure
from ffc.compiler.pipeline import versions
from ffc.graph.text import text
from ffc.tables import markdown
from ffc.tables.table import Table, columns

__all__ = ["FUNCTION_SCRIPT", "command_script", "compile_script", "readme"]

_MOST_LINES = 120
"""Lines of a model as text that a README shows."""

_HEAD = '''\
"""Shows the fault that README.md tells of: exit status 1 while it is there, 0 once it is gone{third}."""

import os
'''

_COMPILE = (
    _HEAD.format(third=", 2 if another is in its place")
    + """\
import sys
from pathlib import Path

import ffc

os.chdir(Path(__file__).resolve().parent)
told = [""]
try:
    ffc.compile({arguments}, progress=told.append)
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
    sys.exit(1 if {same} else 2)
print("it compiles: the fault is gone")
"""
)

_DIES = (
    _HEAD.format(third=", 2 if another is in its place")
    + """\
import signal
import subprocess
import sys
from pathlib import Path

os.chdir(Path(__file__).resolve().parent)
code = {code!r}
try:
    status = subprocess.run([sys.executable, "-c", code], timeout={seconds!r}).returncode
    ending = signal.Signals(-status).name if status < 0 else f"exit {{status}}"
except subprocess.TimeoutExpired:
    ending = "hangs"
print(f"the compile ends by: {{ending}}")
sys.exit(0 if ending == "exit 0" else 1 if ending == {kind!r} else 2)
"""
)

_COMMAND = (
    _HEAD.format(third="")
    + """\
import subprocess
import sys
from pathlib import Path

os.chdir(Path(__file__).resolve().parent)
command = {words!r}
if command[0] == "python":
    command[0] = sys.executable
try:
    status = subprocess.run(command, timeout={seconds!r}).returncode
except subprocess.TimeoutExpired:
    status = None
print("the command exits with status 0, which shows the fault" if status == 0 else "the command shows no fault")
sys.exit(1 if status == 0 else 0)
"""
)

FUNCTION_SCRIPT = '''\
"""Runs the model on inputs.npz and prints what it gives; the function that tells the fault is not in this folder."""

import os
from pathlib import Path

import numpy as np
import onnxruntime

os.chdir(Path(__file__).resolve().parent)
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
for output, array in zip(session.get_outputs(), session.run(None, dict(np.load("inputs.npz")))):
    print(output.name, array.shape, array, sep="\\n")
'''
"""Runs the model, where the condition was a function."""


def compile_script(failure: Failure, pipeline: str, plugins: Sequence[str], target: str, seconds: float) -> str:
    """Return a script that compiles ``model.onnx`` and exits with status 1 if that fails as `failure` says.

    The plugins lie beside the script; a compile that takes longer than `seconds` hangs.
    """
    arguments = f"'model.onnx', {pipeline!r}, target={target!r}, plugins={list(plugins)!r}"
    if failure.died:
        return _DIES.format(code=f"import ffc; ffc.compile({arguments})", kind=failure.kind, seconds=seconds)
    same = f"type(error).__name__ == {failure.kind!r}"
    if failure.step:
        same += f" and told[-1] == {f'{failure.step} ...'!r}"
    return _COMPILE.format(arguments=arguments, same=same)


def command_script(words: Sequence[str], seconds: float) -> str:
    """Return a script that runs a command for `seconds` at most, and exits with status 1 if that ends with 0."""
    return _COMMAND.format(words=list(words), seconds=seconds)


def readme(found: Reduction, message: str, command: str, *, absent: Sequence[str], inputs: bool, tells: bool) -> str:
    """Return the README of a reproducer, Markdown.

    Args:
        found: The reduction.
        message: What goes wrong, without a path of this machine.
        command: What to type in the folder to see the fault, apart from the script.
        absent: Files that the command names and the folder lacks.
        inputs: Whether there are inputs.
        tells: Whether the script says if the fault is there.
    """
    failure = found.failure
    at_work = ["", "The pass at work:", "", _block(failure.step)] if failure.step else []
    unfinished = "" if found.finished else " The time was over before nothing smaller was left to try."
    lines = [
        "# A reduced model that goes wrong", "", _block(f"{failure.kind}: {message}"), *at_work, "",
        "## To see it", "", _block(f"python reproduce.py\n{command}"),
        "The script exits with status 1 while the fault is there and with 0 once it is gone." if tells else
        "The script prints what the model gives; the function that tells the fault is not in this folder.",
    ]  # fmt: skip
    if inputs:
        lines += [
            "",
            "`inputs.npz` holds inputs for `model.onnx` by name, those on which it shows where that is known.",
        ]
    if absent:
        lines += ["", "These files are not in this folder:", "", _block("\n".join(absent))]
    sizes = (
        ("nodes", str(found.nodes_before), str(found.nodes)),
        ("bytes of weights", str(found.weights_before), str(found.weights)),
    )
    lines += [
        "", "## The model", "", *markdown.lines(Table(columns("", numbers=("before", "after")), sizes)), "",
        f"{found.tried} models and pipelines were tried in {found.seconds:.0f} s.{unfinished}",
    ]  # fmt: skip
    printed = text(found.model)
    if printed.count("\n") <= _MOST_LINES:
        lines += ["", "`ffc print model.onnx`:", "", _block(printed)]
    lines += ["", "## Versions", "", *(f"- {name} {version}" for name, version in versions().items())]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _block(content: str) -> str:
    """Return a block of code that nothing in it ends: names come from the model."""
    plain = "\n".join(_printable(line) for line in content.strip("\n").split("\n"))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence}text\n{plain}\n{fence}\n"


def _printable(line: str) -> str:
    """Return a line with its indentation, what is not printable spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line.rstrip())
