"""Steps of a run: each keeps its results in a folder, and is done again only when what it was made from changes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ffc.errors import InputError, UsageError, located
from ffc.graph.files import publish, targets
from ffc.progress import Tell

if os.name == "posix":
    import fcntl

__all__ = ["Done", "Job", "Progress", "State", "Step", "Work", "digest_of", "run", "states"]

_FORMAT = "ffc.step/1"
_RECORD = "step.json"
_SCRATCH = "scratch"
_LOCK = ".lock"

State = Literal["done", "stale", "to do"]


class Progress(Protocol):
    """Who is told how a run goes."""

    def begin(self, number: int, of: int, title: str) -> None:
        """Tell that a step begins."""

    def tell(self, line: str, done: int = 0, total: int = 0, /) -> None:
        """Tell how the step goes, as `Tell` has it."""

    def end(self, seconds: float, *, kept: bool) -> None:
        """Tell that it is done, or was kept from a former run."""


@dataclass(frozen=True)
class Done:
    """A finished step.

    Attributes:
        folder: Where its files lie.
        output: sha256 of its files and its result.
        seconds: What it took.
        result: What it found, as JSON.
    """

    folder: Path
    output: str
    seconds: float
    result: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What the work of a step is given.

    Attributes:
        folder: An empty folder for its files.
        scratch: A folder for what is not kept.
        done: The steps that it needs, by name.
        tell: Told how it goes.
    """

    folder: Path
    scratch: Path
    done: Mapping[str, Done]
    tell: Tell


Work = Callable[[Job], Mapping[str, Any]]
"""Does a step, and returns what it found, as JSON: the same from the same inputs, so no times."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Its folder, relative to that of the run.
        title: What people call it.
        version: Raised whenever its work changes, so that what older versions made is done again.
        work: Does it.
        settings: All that it depends on but files and steps, as JSON.
        inputs: Files and folders that it reads, by a word.
        needs: Names of the steps whose files or results it reads.
    """

    name: str
    title: str
    version: int
    work: Work
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


def run(steps: Sequence[Step], folder: Path, progress: Progress) -> dict[str, Done]:
    """Do the steps that are not done, each after those that it needs, and return all by name.

    A process that is killed leaves all finished ones.

    Raises:
        UsageError: If the folder cannot be written, holds something else, or another process works in it.
        FfcError: As the work of a step does, its title put before the message.
    """
    done: dict[str, Done] = {}
    with _alone(folder):
        for number, step in enumerate(steps, 1):
            progress.begin(number, len(steps), step.title)
            kept = _kept(step, folder, done)
            done[step.name] = kept or _do(step, folder, done, progress.tell)
            progress.end(done[step.name].seconds, kept=kept is not None)
    return done


def states(steps: Sequence[Step], folder: Path) -> list[tuple[Step, State, float]]:
    """Return, for each step, whether it is done, to do again, or to do, and the seconds that it took last."""
    done: dict[str, Done] = {}
    found: list[tuple[Step, State, float]] = []
    for step in steps:
        record = _record(folder / step.name)
        seconds = float(record.get("seconds", 0.0))
        kept = _kept(step, folder, done) if all(name in done for name in step.needs) else None
        if kept is not None:
            done[step.name] = kept
        found.append((step, "done" if kept else "stale" if record else "to do", seconds))
    return found


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of all files in a folder.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        if path.is_file():
            status = path.stat()
            return _digest_of_file(path, status.st_size, status.st_mtime_ns)
        if not path.is_dir():
            raise InputError(f"cannot read {path}: there is no such file")
        parts = {str(file.relative_to(path)): digest_of(file) for file in _files(path)}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return _digest(parts)


@functools.lru_cache(maxsize=1024)
def _digest_of_file(path: Path, size: int, changed: int) -> str:
    """Return the sha256 of a file that is as it was when it had this size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _inputs_digest(step: Step, done: Mapping[str, Done]) -> str:
    """Return the digest of all that a step is made from."""
    return _digest(
        {
            "version": step.version,
            "settings": step.settings,
            "inputs": {word: digest_of(path) for word, path in step.inputs.items()},
            "needs": {name: done[name].output for name in step.needs},
        }
    )


def _kept(step: Step, folder: Path, done: Mapping[str, Done]) -> Done | None:
    """Return a step that was finished before, from the same inputs, and whose files are still there."""
    place = folder / step.name
    record = _record(place)
    if not record or record["digest"] != _inputs_digest(step, done):
        return None
    for name, size in record["files"].items():
        path = place / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return Done(place, record["output"], record["seconds"], record["result"])


def _record(place: Path) -> dict[str, Any]:
    """Return what a finished step has written down, or nothing."""
    try:
        record = json.loads((place / _RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    wanted = {"digest", "files", "output", "seconds", "result"}
    return record if isinstance(record, dict) and record.get("format") == _FORMAT and wanted <= record.keys() else {}


def _do(step: Step, folder: Path, done: Mapping[str, Done], tell: Tell) -> Done:
    """Do a step in an empty folder, which takes the place of what a former run left only when all is done."""
    digest = _inputs_digest(step, done)
    place = folder / step.name
    draft = place.with_name(f".{place.name}.draft")
    scratch = draft / _SCRATCH
    started = time.perf_counter()
    _remove(draft)
    scratch.mkdir(parents=True)
    with located(step.title):
        result = dict(step.work(Job(draft, scratch, {name: done[name] for name in step.needs}, tell)))
    shutil.rmtree(scratch)
    seconds = time.perf_counter() - started
    output = _digest({"files": digest_of(draft), "result": result})
    record = {
        "format": _FORMAT,
        "step": step.title,
        "digest": digest,
        "settings": step.settings,
        "output": output,
        "seconds": seconds,
        "files": {str(file.relative_to(draft)): file.stat().st_size for file in _files(draft)},
        "result": result,
    }
    publish.write(draft / _RECORD, (json.dumps(record, indent=1) + "\n").encode())
    _remove(place)
    draft.rename(place)
    return Done(place, output, seconds, result)


def _remove(place: Path) -> None:
    """Remove a folder if it is there; its record goes first, so that half of a step passes for none.

    Of a link, what it names stays.
    """
    if place.is_symlink():
        place.unlink()
        return
    with contextlib.suppress(FileNotFoundError):
        (place / _RECORD).unlink()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder."""
    targets.check_no_stream(folder)
    with publish.asked_for(f"to the folder {folder}", "choose another with -o"):
        publish.make_folder(folder)
        if not (folder / _LOCK).exists() and any(folder.iterdir()):  # a checkpoint, say, whose files would be replaced
            raise UsageError(f"the folder {folder} holds files and no run of a study; choose another with -o")
        file = (folder / _LOCK).open("wb")
    with file:
        if os.name == "posix":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another run is at work in {folder}; wait for it, or choose another folder with -o"
                ) from error
        yield
