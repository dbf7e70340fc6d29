"""The lock of a compiled model: text that git diffs well, and that a model can be held against."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from ffc.ci.lock.reading import MalformedError, read_text
from ffc.ci.lock.sketch import Sketch, of_snapshot
from ffc.ci.matching.snapshot import Snapshot, of_model
from ffc.errors import InputError
from ffc.graph.cost import Cost, cost
from ffc.graph.files import publish
from ffc.graph.files.destination import named
from ffc.graph.text import text

__all__ = ["FORMAT", "Lock", "Making", "beside", "load", "lock_of", "parse", "save", "settled", "unparse"]

FORMAT = "ffc.lock/1"

_HINT = "# ffc check compiles again and compares; ffc check --accept writes this anew"
_CONFLICT = re.compile(r"(<{7}|>{7}|\|{7}) |={7}$")
_AGAIN = "write it again with `ffc lock`, or take it from version control"


@dataclass(frozen=True)
class Making:
    """How a locked model is made.

    Attributes:
        source: The model that is compiled, as seen from the folder of the lock.
        pipeline: The passes as asked for, in text; None where the model is locked as it is.
        decided: The same with what was decided where it was compiled, in the place of what left a choice.
        target: What was compiled for.
        plugins: Files of passes, as seen from the folder of the lock.
    """

    source: str
    pipeline: str | None
    decided: str
    target: str
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Lock:
    """What a compiled model must look like.

    Attributes:
        making: How it is made.
        versions: Versions of what made it, which are recorded and not compared.
        weights: What its weights hold.
        cost: What it costs at batch 1 and 128 tokens.
        graph: Its canonical text, without weights.
    """

    making: Making
    versions: Mapping[str, str]
    weights: Sketch
    cost: Cost
    graph: str

    @property
    def structure(self) -> str:
        """The sha256, in hex, of the text of the graph."""
        return hashlib.sha256(self.graph.encode()).hexdigest()

    def snapshot(self, name: str) -> Snapshot:
        """Return the graph as records.

        Raises:
            InputError: If the text is broken.
        """
        try:
            return read_text(self.graph.splitlines(), name)
        except (MalformedError, ValueError, IndexError) as error:
            raise InputError(f"lock {name} is broken: {error}; {_AGAIN}") from error


def beside(model: Path) -> Path:
    """Return where the lock of a model lies, unless another place is named."""
    return model.parent / f"{model.stem}.ffc.lock"


def settled(model: ir.Model) -> ir.Model:
    """Return a clone in the form that locks hold: constants as initializers, nothing that no output needs."""
    clone = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(clone)
    common.RemoveUnusedNodesPass()(clone)
    for node in list(clone.graph):
        (first, *_) = node.inputs or (None,)
        if node.op_type != "Identity" or node.domain or first is None or node.outputs[0].is_graph_output():
            continue
        if first.is_initializer():
            node.outputs[0].replace_all_uses_with(first)
            clone.graph.remove(node, safe=True)
    common.RemoveUnusedNodesPass()(clone)
    return clone


def lock_of(model: ir.Model, making: Making, versions: Mapping[str, str]) -> Lock:
    """Return the lock of a compiled model, which is not changed."""
    form = settled(model)
    return Lock(making, versions, of_snapshot(of_model(form)), cost(form), text(form, weights=False))


def unparse(lock: Lock) -> str:
    """Write a lock as text, ending with a newline."""
    making = lock.making
    lines = [FORMAT, _HINT, f"source {making.source}"]
    lines += [f"pipeline {making.pipeline}", f"target {making.target}"] if making.pipeline is not None else []
    lines += [f"decided {making.decided}"] if making.pipeline is not None and making.decided != making.pipeline else []
    lines += [f"plugin {plugin}" for plugin in making.plugins]
    lines += [f"versions {', '.join(f'{name} {version}' for name, version in lock.versions.items())}"]
    lines += [f"structure sha256:{lock.structure}", f"weights {lock.weights}"]
    lines += [f"{each.name.replace('_', '-')} {getattr(lock.cost, each.name)}" for each in fields(Cost)]
    lines += ["", "operators", *_histogram(lock.graph), "", lock.graph.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _histogram(graph: str) -> list[str]:
    """Return how often each operator occurs in the text of a graph, functions and subgraphs included."""
    found = re.findall(r"^ *(?:[%_\"].* = )([\w.:]+)\(", graph, re.MULTILINE)
    return [f"  {op} {count}" for op, count in sorted(Counter(found).items())]


def parse(content: str, name: str) -> Lock:
    """Read the text of a lock that messages call `name`.

    Raises:
        InputError: If it is of another format, truncated, edited by hand, or broken otherwise.
    """
    lines = content.split("\n")
    if any(_CONFLICT.match(line) for line in lines):
        raise InputError(f"lock {name} holds a conflict of a merge; take either side, then run `ffc check --accept`")
    _check_format(lines[0], name)
    start = next((index for index, line in enumerate(lines) if line.startswith("ffc.text/")), None)
    if start is None or not content.endswith("\n"):
        raise InputError(f"lock {name} is truncated; {_AGAIN}")
    head = _head(lines[1:start])
    graph = "\n".join(lines[start:])
    digest = hashlib.sha256(graph.encode()).hexdigest()
    if head.get("structure") != [f"sha256:{digest}"]:
        raise InputError(f"lock {name} is truncated or was edited: its graph is not the one of its digest; {_AGAIN}")
    try:
        pipeline = head["pipeline"][0] if "pipeline" in head else None
        decided = head.get("decided", [pipeline or ""])[0]
        target = head.get("target", ["cpu"])[0]
        making = Making(head["source"][0], pipeline, decided, target, tuple(head.get("plugin", ())))
        versions = dict(each.rsplit(" ", 1) for each in head["versions"][0].split(", ") if each)
        counts = Cost(**{each.name: int(head[each.name.replace("_", "-")][0]) for each in fields(Cost)})
        return Lock(making, versions, Sketch.parse(head["weights"][0]), counts, graph)
    except KeyError as error:
        raise InputError(f"lock {name} has no line '{error.args[0]}'; {_AGAIN}") from error
    except ValueError as error:
        raise InputError(f"lock {name} is broken: {error}; {_AGAIN}") from error


def _check_format(line: str, name: str) -> None:
    if line == FORMAT:
        return
    if FORMAT.startswith(line):
        raise InputError(f"lock {name} is empty or truncated; {_AGAIN}")
    newer = re.fullmatch(r"ffc\.lock/(\d+)", line)
    if newer:
        wanted = FORMAT.rpartition("/")[2]
        what = f"format {newer.group(1)}, and this version of ffc reads format {wanted}"
        raise InputError(f"lock {name} is of {what}; install a newer ffc, or write the lock again with `ffc lock`")
    raise InputError(f"{name} is no lock: it begins with {line[:40]!r}; name a file that `ffc lock` wrote")


def _head(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines of the head by their first word; the histogram is for people."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line == "operators":
            break
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            found.setdefault(word, []).append(rest)
    return found


def load(path: str | os.PathLike[str]) -> Lock:
    """Read a lock.

    Raises:
        InputError: If it is missing, of another format, truncated or broken.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"lock {path} does not exist; write it with `ffc lock`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"lock {path} cannot be read: {error}; {_AGAIN}") from error
    return parse(content, str(path))


def save(lock: Lock, path: str | os.PathLike[str]) -> None:
    """Write a lock, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    publish.write_text(named(path), unparse(lock), f"lock {path}")
