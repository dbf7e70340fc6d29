"""What a smaller case must still show: the failure of a compile, a command that says so, or a function."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from ffc.ci.reduce.cases import child
from ffc.ci.reduce.cases.case import Case
from ffc.ci.reduce.cases.failure import Failure
from ffc.compiler.proof import probes
from ffc.errors import FfcError, MissingError, UsageError, one_line
from ffc.graph import files

__all__ = ["Command", "Compiles", "Condition", "Holds", "feeds"]

_PLACES = re.compile(r"\{(model|inputs|passes)\}")
_AT_WORK = re.compile(r"(\S+) \.\.\.")


class Condition(Protocol):
    """What a case must show."""

    @property
    def by_passes(self) -> bool:
        """Whether it depends on the pipeline."""

    def check(self, case: Case) -> Failure | str:
        """Return how `case` shows it, or in words what it does instead."""


@dataclass(frozen=True)
class Compiles:
    """The failure of a compile.

    Attributes:
        plugins: Files with passes, as `ffc.compile` takes them.
        target: What to lower to.
        seconds: How long a compile may take before it counts as one that hangs.
    """

    plugins: Sequence[str]
    target: str
    seconds: float

    by_passes = True

    def check(self, case: Case) -> Failure | str:
        """Compile in a process of its own."""
        ending = child.run(lambda tell: self._compile(case, tell), self.seconds)
        at_work = _AT_WORK.fullmatch(ending.last)
        step = at_work[1] if at_work else ""
        if ending.died:
            hangs = ending.died == child.HANGS
            message = f"the compile takes longer than {self.seconds:g} s" if hangs else "native code ends the process"
            return Failure(ending.died, ending.exit_code, step, message, died=True)
        return "it compiles" if ending.result is True else Failure(**{**ending.result, "step": step})

    def _compile(self, case: Case, tell: Callable[[str], None]) -> Any:
        from ffc.compiler import pipeline

        try:
            pipeline.compile(case.model, case.passes, target=self.target, plugins=self.plugins, progress=tell)
        except Exception as error:  # whatever it is, it is what a smaller model must show
            return dataclasses.asdict(Failure.of(error, ""))
        return True


@dataclass(frozen=True)
class Command:
    """A command that ends with status 0 where a case shows it.

    Attributes:
        words: Its words; ``{model}``, ``{inputs}`` and ``{passes}`` in them stand for two files and the pipeline.
        seconds: How long it may take; one that is stopped does not show it.
    """

    words: Sequence[str]
    seconds: float

    @classmethod
    def parse(cls, text: str, seconds: float) -> Command:
        """Read a command.

        Raises:
            UsageError: If it has no place for the model, or its quotes do not close.
            MissingError: If there is no such program.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--when {text!r} is no command: {str(error).lower()}") from error
        if not any("{model}" in word for word in words):
            raise UsageError(f"--when {text!r} has no {{model}}; write it where the command takes the model's path")
        for name in re.findall(r"\{(\w+)\}", text):
            if not _PLACES.fullmatch(f"{{{name}}}"):
                raise UsageError(f"--when {text!r} has {{{name}}}; known are {{model}}, {{inputs}} and {{passes}}")
        return cls(words, seconds)

    @property
    def by_passes(self) -> bool:
        """Whether the pipeline is one of its words."""
        return any("{passes}" in word for word in self.words)

    def check(self, case: Case) -> Failure | str:
        """Write the model into a folder of its own and run the command on it, from the current folder."""
        with tempfile.TemporaryDirectory(prefix="ffc-reduce-") as folder:
            given = {"model": str(Path(folder) / "model.onnx"), "passes": case.pipeline}
            try:
                files.save(case.model, given["model"])
                if any("{inputs}" in word for word in self.words):
                    given["inputs"] = str(Path(folder) / "inputs.npz")
                    np.savez(given["inputs"], **feeds(case.model))  # type: ignore[arg-type]
            except FfcError as error:
                return one_line(str(error))
            code = _status(self.filled(given), self.seconds)
        if code is None:
            return f"it does not end within {self.seconds:g} s"
        if code:
            return f"it exits with status {code}"
        return Failure("--when", 0, "", "the command exits with status 0")

    def filled(self, given: dict[str, str]) -> list[str]:
        """Return its words with files and pipeline in their places."""
        return [_PLACES.sub(lambda place: given.get(place[1], place[0]), word) for word in self.words]


@dataclass(frozen=True)
class Holds:
    """A function that says of a model whether it shows it.

    Attributes:
        function: Called in a process of its own; what it raises, or ends that by, counts as no.
        seconds: How long it may take.
    """

    function: Callable[[ir.Model], bool]
    seconds: float

    by_passes = False

    def check(self, case: Case) -> Failure | str:
        """Ask the function."""
        ending = child.run(lambda tell: self._ask(case, tell), self.seconds)
        if ending.died:
            return f"it ends by {ending.died}{f' of {ending.last}' if ending.last else ''}"
        if not ending.result:
            return f"it raises {ending.last}" if ending.last else "it returns False"
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return Failure("--when", 0, "", f"the function {name} returns True")

    def _ask(self, case: Case, tell: Callable[[str], None]) -> bool:
        try:
            return bool(self.function(case.model.clone()))
        except Exception as error:  # of a candidate that is no sensible model
            tell(one_line(f"{type(error).__name__}: {error}"))
            return False


def feeds(model: ir.Model, name: str = "") -> dict[str, np.ndarray]:
    """Return the inputs of the probe called `name`, or of the first.

    Raises:
        InputError: If no probe can be made.
    """
    made = probes.make(model)
    chosen = next((probe for probe in made if probe.name == name), made[0])
    return dict(chosen.feeds)


def _status(words: Sequence[str], seconds: float) -> int | None:
    """Run a command in silence and return its exit status, None if it was stopped, with all that it started."""
    silence = subprocess.DEVNULL
    try:
        process = subprocess.Popen(words, stdin=silence, stdout=silence, stderr=silence, start_new_session=True)
    except OSError as error:
        raise MissingError(f"cannot run '{words[0]}' of --when: {error.strerror or error}; check its path") from error
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None and os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
