"""Whether a model still compiles to what its lock says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from ffc.ci.diff.changes import Change, Kind
from ffc.ci.diff.compare import compare
from ffc.ci.diff.diff import Diff
from ffc.ci.diff.groups import Group
from ffc.ci.lock import lock as locks
from ffc.ci.lock import paths
from ffc.ci.lock import policy as policies
from ffc.ci.lock.lock import Lock, Making, lock_of, settled
from ffc.ci.lock.policy import Policy, is_better
from ffc.ci.matching.snapshot import of_model
from ffc.compiler import pipeline
from ffc.compiler.passes import Pass
from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.proof.rows import Data
from ffc.errors import FfcError, InputError, UsageError
from ffc.graph import files
from ffc.graph.files import ModelLike, targets
from ffc.graph.files.destination import named
from ffc.tables.table import number

__all__ = ["Check", "Failure", "Unfinished", "accept", "check", "lock"]

_COSTS = ("nodes", "parameters", "bytes", "macs")


@dataclass(frozen=True)
class Failure:
    """Something that the policy does not let pass.

    Attributes:
        kind: Of the change.
        message: What it is, in one line.
        group: The changes, where it is changes of the graph.
    """

    kind: Kind
    message: str
    group: Group | None = None


@dataclass(frozen=True, eq=False)
class Check:
    """A model held against its lock.

    Attributes:
        path: The lock.
        source: The file of the model that was compiled, or what a model in memory is called.
        policy: What may pass.
        diff: What changed, the lock before and the compiled model after.
        verdict: What outputs differ by from those of the model as it came; None where that is not measured.
        failures: What the policy does not let pass.
        improved: Whether the graph changed to one that costs less, which passes and asks for a new lock.
        lock: The lock of the model as it is now.
    """

    path: Path
    source: Path
    policy: Policy
    diff: Diff
    verdict: Verdict | None
    failures: tuple[Failure, ...]
    improved: bool
    lock: Lock

    @property
    def passed(self) -> bool:
        """Whether nothing fails."""
        return not self.failures


@dataclass(frozen=True)
class Unfinished:
    """A lock of which a check could not tell whether it holds.

    Attributes:
        path: The lock.
        error: Why.
    """

    path: Path
    error: FfcError

    @property
    def passed(self) -> bool:
        """Nothing that could not be checked passes."""
        return False


def lock(
    model: ModelLike,
    passes: str | Sequence[str | Pass] | None = "fuse,int8",
    *,
    out: str | Path | None = None,
    target: str = "cpu",
    sets: Mapping[str, str] | Sequence[str] = (),
    plugins: Sequence[str] = (),
    data: Data | None = None,
    source: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Lock:
    """Compile a model and write the lock of what comes of it.

    Args:
        model: The model, as `ffc.compile` takes it.
        passes: The pipeline, as `ffc.compile` takes it; None locks the model as it is.
        out: Where to write the lock; by default ``<stem>.ffc.lock`` beside the model, if that has a file.
        target: What `lower` writes.
        sets: Further options as ``pass.option=value``.
        plugins: Files with passes.
        data: Rows of the user's own to prove on too, as `ffc.compile` takes them.
        source: What the lock calls the model, the file that `check` compiles unless it is given another; by default its
            path, as seen from the lock.
        progress: Called with a line at every step.

    Returns:
        The lock that was written.

    Raises:
        UsageError, InputError, CannotApplyError, GateError: As `ffc.compile` does.
        UsageError: If a model has no file, and `out` or `source` is not given.
        InputError: If the lock cannot be written, or a file has a name that no line can hold.
    """
    file = files.path_of(model)
    if file is None and (out is None or source is None):
        raise UsageError("a model in memory has no file; give out=, the lock, and source=, the file that it is of")
    path = locks.beside(file) if out is None and file is not None else named(str(out))
    folder = Path() if targets.is_standard_output(path) else path.parent
    name = paths.seen(file, folder) if source is None and file is not None else str(source)
    if passes is None:
        made = lock_of(files.load(model, lazily=True), Making(name, None, "", target), pipeline.versions())
    else:
        own = paths.plugins_of(passes, sets, plugins)
        result = pipeline.compile(model, passes, target=target, sets=sets, plugins=own, data=data, progress=progress)
        report = result.report
        asked, decided = (paths.write_pipeline(text, own, folder) for text in (report.pipeline, report.decided))
        beside = tuple(paths.seen(plugin, folder) for plugin in own)
        made = lock_of(result.model, Making(name, asked, decided, report.target, beside), report.versions)
    locks.save(made, path)
    return made


def check(
    path: str | Path,
    *,
    model: ModelLike | None = None,
    policy: Policy | None = None,
    data: Data | None = None,
    progress: Callable[[str], None] | None = None,
) -> Check:
    """Compile the model of a lock again, as the lock says, and compare the result with it by meaning.

    What was decided where the lock was written is decided the same here. Nothing is written.

    Args:
        path: The lock.
        model: The model to compile, as `ffc.compile` takes it; by default the file that the lock names.
        policy: What may pass; by default that of the project that the lock lies in.
        data: Rows of the user's own to prove on too, as `ffc.compile` takes them.
        progress: Called with a line at every step.

    Raises:
        InputError: If the lock or the model is missing or broken.
        UsageError: If the policy is malformed.
        CannotApplyError, GateError: As `ffc.compile` does.
    """
    path = Path(path)
    old = locks.load(path)
    rules = policies.find(path.parent) if policy is None else policy
    source = path.parent / old.making.source if model is None else model
    file = files.path_of(source)
    if file is not None and not file.exists():
        raise InputError(f"lock {path} is of the model {file}, which does not exist; name it with --model")
    compiled, verdict = _made(old.making, path.parent, source, data, progress)
    new = lock_of(compiled, old.making, pipeline.versions())
    found = _compared(old, new, compiled, path)
    for_callers = any(change.kind == "interface" for change in found.changes)
    improved = rules.improvements and not for_callers and is_better(old.cost, new.cost)
    failures = (*_changed(found, rules, improved), *_over_budget(old, new, rules), *_numbers(verdict, rules))
    name = Path(files.name_of(source))
    return Check(path, name, rules, found, verdict, failures, improved and not failures, new)


def accept(done: Check) -> bool:
    """Write the lock of a check anew, if the model is another than it says; return whether it was."""
    old = locks.load(done.path)
    if locks.unparse(replace(old, versions={})) == locks.unparse(replace(done.lock, versions={})):
        return False
    locks.save(done.lock, done.path)
    return True


def _made(
    making: Making, folder: Path, source: ModelLike, data: Data | None, progress: Callable[[str], None] | None
) -> tuple[ir.Model, Verdict | None]:
    """Return what a lock says how to make, and what outputs differ by from those of the source."""
    if making.pipeline is None:
        return files.load(source, lazily=True), None
    plugins = [str(folder / plugin) for plugin in making.plugins]
    passes = paths.read_pipeline(making.decided, plugins, folder)
    result = pipeline.compile(source, passes, target=making.target, plugins=plugins, data=data, progress=progress)
    return result.model, result.report.verdict


def _compared(old: Lock, new: Lock, compiled: ir.Model, path: Path) -> Diff:
    before, after = old.snapshot(str(path)), of_model(settled(compiled), "as compiled now", weights=False)
    matching, changes = compare(before, after)
    if old.weights.digest != new.weights.digest:
        moved = old.weights.distance(new.weights)
        what = f"weights moved by about {moved:.1e} of their norm"
        detail = {"before": old.weights.digest, "after": new.weights.digest, "relative": moved}
        changes.append(Change("weight-value", what, "all weights", detail=detail))
    return Diff(before, after, (old.cost, new.cost), tuple(changes), matching)


def _changed(found: Diff, policy: Policy, improved: bool) -> list[Failure]:
    failures = []
    for group in found.groups:
        forgiven = improved and group.kind in ("structure", "attribute", "weight-type")
        if group.kind in policy.fail and not forgiven and not _is_within(group, policy):
            failures.append(Failure(group.kind, group.what, group))
    return failures


def _is_within(group: Group, policy: Policy) -> bool:
    """Whether weights moved no further than the policy allows."""
    if group.kind != "weight-value":
        return False
    return all(each.detail.get("relative", math.inf) <= policy.weights for each in group.changes)


def _over_budget(old: Lock, new: Lock, policy: Policy) -> list[Failure]:
    if "cost" not in policy.fail:
        return []
    failures = []
    for name in _COSTS:
        allowance, now = policy.budget.get(name), getattr(new.cost, name)
        if allowance is not None and now > (most := allowance.most(getattr(old.cost, name))):
            failures.append(Failure("cost", f"{now} {name} are over the budget of {most} ({allowance.text})"))
    return failures


def _numbers(verdict: Verdict | None, policy: Policy) -> list[Failure]:
    if verdict is None or "numerics" not in policy.fail:
        return []
    found = []
    if policy.difference is not None and verdict.difference > policy.difference:
        found.append(f"outputs differ by {number(verdict.difference)} of their scale, over {policy.difference:g}")
    if policy.cosine is not None and verdict.cosine < policy.cosine:
        found.append(f"cosine {verdict.cosine:.6f} to the outputs of the source, under {policy.cosine:g}")
    if policy.agreement is not None and verdict.agreement is not None and verdict.agreement < policy.agreement:
        found.append(f"agreement {verdict.agreement:.4f} with the source, under {policy.agreement:g}")
    return [Failure("numerics", f"{message} ({verdict.worst})") for message in found]
