"""How the compile of one model ended: right, refused, wrong or by a fault, and for what reason; counted and recorded."""

from __future__ import annotations

import json
import multiprocessing
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ffc.runtime.machine import machine
from tests.coverage.apart import EndedError, apart, settle

SECONDS = 120
TOLERANCE = 1e-4
"""Largest difference, relative to the scale of an output, where nothing is rounded to int8."""
HALF = 2e-3
"""The same for an output in half: four of its roundings, by 2^-11 each, that one computes in half and the other does not."""
COSINE = 0.9
"""Smallest cosine of an output, where something is: looser than int8's own budget, which other inputs are held to."""
GOOD = ("right", "refused", "not run")

Feed = Mapping[str, Any]

_TYPES = (
    r"(bfloat16|u?int(2|4|8|16|32|64)|float(4|8|16|64)\w*|double|complex\d+|string|bool|sequence|optional|sparse|map)s?"
)
_REASONS = {"opset": r"\bopset \d", "type": rf"(?i)\b({_TYPES}|\w+ type|type \S+|of type)\b"}


@dataclass(frozen=True)
class Case:
    """A model to compile.

    Attributes:
        name: What the record calls it.
        model: The model.
        proof: Whole feeds to give as rows, none to give no rows.
        fresh: Feeds that the result is compared with the model on.
    """

    name: str
    model: onnx.ModelProto
    proof: Sequence[Feed]
    fresh: Sequence[Feed]


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        name: The case.
        ending: ``right``; ``refused`` with an error of ffc; ``not run`` by onnxruntime, as it came; ``gate`` where an
            equality was not kept, which a single bad rewrite must not come to; ``wrong`` in numbers, shape or type;
            ``traceback``; ``ended`` by a signal or the clock.
        reason: What a refusal names: an operator, an opset, a type, that no inputs were
            found, that a budget is not kept, or other. What kind of error, elsewhere.
        message: What was said.
        seconds: Wall time of the compile.
    """

    name: str
    ending: str
    reason: str = ""
    message: str = ""
    seconds: float = 0.0


def outcome(case: Case, passes: str) -> Outcome:
    """Compile a case as a user does, from file to file, and hold the result against the model in stock onnxruntime."""
    try:
        return apart(lambda: judged(case, passes), SECONDS)
    except EndedError as error:
        return Outcome(case.name, "ended", message=str(error))


def judged(case: Case, passes: str) -> Outcome:
    """Return the same as `outcome`, in this process."""
    import ffc

    try:
        wanted = runs(case.model, case.fresh)
    except Exception as error:  # whatever onnxruntime raises: it has no base of its own
        return Outcome(case.name, "not run", reason_of(str(error), case.model), _line(error))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ffc-case-") as folder:
        path, out = Path(folder) / "m.onnx", Path(folder) / "o.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            ffc.compile(path, passes, out=out, data=list(case.proof) or None)
        except ffc.FfcError as error:
            message = _line(error).replace(str(path), path.name)
            spent = time.perf_counter() - started
            return _refused(case, error.exit_code, message, spent)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{_line(error)} ({Path(place.filename).name}:{place.lineno})"
            return Outcome(case.name, "traceback", type(error).__name__, said, time.perf_counter() - started)
        spent = time.perf_counter() - started
        try:
            found = runs(onnx.load(out), case.fresh)
        except Exception as error:
            return Outcome(case.name, "wrong", "does not run", _line(error), spent)
    allowed = None if "int8" in passes else TOLERANCE
    for one, two in zip(wanted, found, strict=True):
        fault = apart_by(one, two, allowed)
        if fault:
            return Outcome(case.name, "wrong", "differs", fault, spent)
    return Outcome(case.name, "right", seconds=spent)


def _refused(case: Case, exit_code: int, message: str, seconds: float) -> Outcome:
    """Tell a refusal from a bug, and from a contract that failed; a budget may, since rounding costs what it costs."""
    if exit_code == 70:
        return Outcome(case.name, "traceback", "exit code 70", message, seconds)
    if exit_code == 1 and "budget" not in message:
        return Outcome(case.name, "gate", "contract", message, seconds)
    return Outcome(case.name, "refused", "budget" if exit_code == 1 else reason_of(message, case.model), message, seconds)


def runs(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """Return the outputs by name that stock onnxruntime gives for each feed."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    found = []
    for feed in feeds:
        given = {name: value for name, value in feed.items() if name in taken}
        found.append(dict(zip(names, session.run(None, given), strict=True)))
    return found


def apart_by(one: Mapping[str, Any], two: Mapping[str, Any], allowed: float | None) -> str:
    """Return how outputs differ, or "".

    Args:
        one: What is wanted, by name.
        two: What was found.
        allowed: The largest difference relative to the scale of an output; None for `COSINE` in its place.
    """
    if list(one) != list(two):
        return f"outputs are {list(two)}, wanted are {list(one)}"
    found = (f"{name}: {fault}" for name in one if (fault := _difference(one[name], two[name], allowed)))
    return next(found, "")


def _difference(one: Any, two: Any, allowed: float | None) -> str:
    if one is None or two is None:
        return "" if one is two else f"{type(two)}, wanted is {type(one)}"
    if isinstance(one, list):
        if not isinstance(two, list) or len(one) != len(two):
            return "a sequence of another length"
        return next((fault for pair in zip(one, two, strict=True) if (fault := _difference(*pair, allowed))), "")
    a, b = np.asarray(one), np.asarray(two)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{b.dtype} {list(b.shape)}, wanted is {a.dtype} {list(a.shape)}"
    if a.dtype.kind not in "fc":
        # A whole number that comes from rounded ones may be another by one step; without int8, none may.
        same = np.mean(a == b) if a.size else 1.0
        return "" if same >= (1.0 if allowed is not None else 0.8) else f"{1 - same:.1%} of the numbers are others"
    return _distance(a, b, allowed if allowed is None or a.dtype != np.float16 else max(allowed, HALF))


def _distance(a: np.ndarray, b: np.ndarray, allowed: float | None) -> str:
    """Return how floating point numbers differ, or ""; of a type and shape."""
    a, b = (x.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for x in (a, b))
    if not (np.array_equal(np.isnan(a), np.isnan(b)) and np.array_equal(np.isinf(a), np.isinf(b))):
        return "others of the numbers are finite"
    if not np.array_equal(a[np.isinf(a)], b[np.isinf(a)]):
        return "an infinity of another sign"
    a, b = a[np.isfinite(a)], b[np.isfinite(a)]
    scale = float(np.abs(a).max(initial=0.0))
    if not scale:
        return "" if np.abs(b).max(initial=0.0) <= (allowed or 0.05) else "not 0"
    if allowed is not None:
        worst = float(np.abs(a - b).max()) / scale
        return "" if worst <= allowed else f"{worst:.1e} of the scale apart"
    cosine = float(np.real(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))
    return "" if cosine >= COSINE else f"cosine {cosine:.4f}"


def reason_of(message: str, model: onnx.ModelProto) -> str:
    """Return what a refusal of a model names: ``operator``, ``opset``, ``type`` or ``other``; or ``no inputs``.

    The last is a refusal for want of inputs, whatever operator happened to fail on those that were tried.
    """
    if "on none of the" in message:
        return "no inputs"
    operators = {node.op_type for node in all_nodes(model.graph.node)}
    if operators & set(re.findall(r"\w+", message)):
        return "operator"
    return next((name for name, form in _REASONS.items() if re.search(form, message)), "other")


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes with those of their branches and bodies."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from all_nodes(graph.node)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


@dataclass
class Tally:
    """What became of many cases.

    Attributes:
        outcomes: One for each.
    """

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many ended in which way."""
        return dict(Counter(each.ending for each in self.outcomes).most_common())

    @property
    def reasons(self) -> dict[str, int]:
        """How many were refused, by what the refusal names."""
        return dict(Counter(each.reason for each in self.outcomes if each.ending == "refused").most_common())

    @property
    def faults(self) -> list[Outcome]:
        """Those that ended as none may."""
        return [each for each in self.outcomes if each.ending not in GOOD]

    def save(self, path: Path, form: str, seconds: float, **settings: Any) -> None:
        """Write a record: the table, every case that is not right with what was said, and where it was run.

        Args:
            path: The file.
            form: Name and version of its format.
            seconds: How long all took.
            settings: Under which settings, as JSON values.
        """
        kept = {
            "format": form,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **settings,
            "machine": asdict(machine()),
            "onnx": onnx.__version__,
            "seconds": round(seconds),
            "slowest_seconds": round(max((each.seconds for each in self.outcomes), default=0.0), 1),
            "cases": len(self.outcomes),
            "endings": self.counts,
            "refused": self.reasons,
            "names": {
                ending: [_row(each) for each in self.outcomes if each.ending == ending]
                for ending in self.counts
                if ending != "right"
            },
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _row(outcome: Outcome) -> str:
    return ": ".join(part for part in (outcome.name, outcome.reason, outcome.message) if part)


def tally(work: Callable[[Any], Outcome], items: Sequence[Any], jobs: int) -> Tally:
    """Return what became of all items, in order of their names, and say on the way what went wrong.

    Args:
        work: Makes an outcome of an item.
        items: What it is given, one after another.
        jobs: How many at a time.
    """
    found, started = Tally(), time.monotonic()
    _WORK[:] = [work, items]
    # Workers are forked before any thread is, and with the items; each case is forked from a worker, imports done.
    with multiprocessing.get_context("fork").Pool(jobs, settle) as pool:
        for done, each in enumerate(pool.imap_unordered(_worked, range(len(items))), 1):
            found.outcomes.append(each)
            if each.ending not in GOOD:
                print(f"{each.ending}: {_row(each)}", flush=True)
            if done % 200 == 0:
                print(f"{done} in {time.monotonic() - started:.0f} s: {found.counts}", flush=True)
    found.outcomes.sort(key=lambda each: each.name)
    return found


_WORK: list[Any] = []
"""What the workers of `tally` are forked with, so that nothing large goes through a pipe."""


def _worked(index: int) -> Outcome:
    work, items = _WORK
    return work(items[index])
