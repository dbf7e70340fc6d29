"""The run loop: load, one pass after another, each on a clone and proved before the next, and save."""

from __future__ import annotations

import gc
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from ffc.compiler import syntax
from ffc.compiler.chain import as_passes, blame, chain, check_expected, fitting, open_model, run, with_lower
from ffc.compiler.culprits import FAILURES, leave_out
from ffc.compiler.diagnosis import blames_input
from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.compiler.passes import Pass
from ffc.compiler.proof.contracts import Verdict
from ffc.compiler.proof.opening import opened
from ffc.compiler.proof.rows import Data, settled
from ffc.compiler.proof.stage import Change, Stage, overall, prove
from ffc.compiler.proof.trial import Trial
from ffc.compiler.proof.verify import Prover
from ffc.compiler.reports.report import Report, Step
from ffc.compiler.session import session
from ffc.graph import files
from ffc.graph.cost import BATCH, LENGTH, Cost, cost
from ffc.graph.dialect.trace import OPSET
from ffc.graph.execute import CPU, CUDA
from ffc.graph.files import ModelLike, targets
from ffc.graph.files.destination import named

__all__ = ["Result", "compile", "versions"]

_LARGE = 1 << 26
"""Bytes of weights that are not left in memory until Python gets around to it."""

# Tried with each version: 1.22.1 refuses opset 23, 1.23.0 runs all of it but one operator, 1.24.1 that too.
_OLDEST_ONNXRUNTIME = "1.23"
_LATER = {"QuantizeLinear": "1.24"}


@dataclass(frozen=True, eq=False)
class Result:
    """A compiled model.

    Attributes:
        model: The model, standard operators and kernels of onnxruntime only.
        report: What was done, proved and measured.
    """

    model: ir.Model
    report: Report

    def save(self, path: str | Path, *, external: bool | None = None) -> None:
        """Write the model, as `ffc.save` does.

        Raises:
            UsageError, InputError: As that says.
        """
        files.save(self.model, path, external=external)

    def session(self, threads: int = 1) -> ort.InferenceSession:
        """Return a session of onnxruntime on the model, with the provider of the target that it was compiled for.

        Args:
            threads: Threads that share the work of one operator, 0 for as many as there are cores.

        Raises:
            UsageError: If `threads` is no such number.
            MissingError: If the onnxruntime that is installed lacks the provider.
        """
        return session(self.model, threads, CUDA if self.report.target == "cuda" else CPU)


@blames_input
def compile(
    model: ModelLike,
    passes: str | Sequence[str | Pass] = "fuse,int8",
    *,
    out: str | Path | None = None,
    data: Data | None = None,
    target: str = "cpu",
    sets: Mapping[str, str] | Sequence[str] = (),
    plugins: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Compile a model: run passes over it, prove each, and end with kernels for a target.

    Args:
        model: A path, bytes, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``, as
            `ffc.load` takes them; it stays as it is.
        passes: The pipeline, as text (``"prune{plan=p.json},fuse,int8"``), or as a list of such texts and of passes.
        out: Where to write the result, as `ffc.save` takes it; nothing is written unless everything holds.
        data: Rows of the user's own to prove on too: an array per input, or an ``.npz`` file with them; `ffc.TextRows`,
            or the path of their file; or a list of such, in which arrays are one whole feed each. Where the model runs
            on no inputs that can be made for it, they are the proof.
        target: What `lower` writes: ``cpu`` or ``cuda`` for onnxruntime's kernels there, ``portable`` for standard
            operators alone.
        sets: Further options as ``pass.option=value``.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
        progress: Called with a line at every step.

    Returns:
        The compiled model and the report.

    Raises:
        UsageError: If the pipeline is malformed, or `out` is the input.
        InputError: If the model or the data is missing, broken, or differs from itself.
        MissingError: If rows of text are given, and the package `tokenizers` is not installed.
        CannotApplyError: If a pass cannot be applied as asked.
        GateError: If a contract does not hold.
    """
    started = time.perf_counter()
    tell = progress or (lambda line: None)
    library = Library.default(plugins)
    asked = as_passes(passes, library, sets)
    links = with_lower(chain(asked, library), library, target)
    place, path = None if out is None else named(out), files.path_of(model)
    data = None if data is None else settled(data, model)
    if place is not None:
        targets.check_file(place, advice="")
    if place is not None and path is not None:
        targets.check_apart([place], files.parts(path, [place]))
    source = open_model(model)
    links = fitting(links, source)
    tell("running the model as it came")
    of_rows: list[str] = []
    prover = opened(source, data, of_rows.append)
    for line in of_rows:
        tell(line)
    before = cost(source)
    stage = Stage(source, prover.source, prover.source)
    del source  # its weights go as soon as no stage needs them
    steps: list[Step] = []
    for item, needed_by in links:
        tell(f"{item.name} ...")
        stage, step = _step(item, needed_by, stage, steps[-1].cost if steps else before, prover)
        steps.append(step)
        if before.bytes > _LARGE:
            gc.collect()  # graphs are full of cycles, and the one before this pass holds all weights
    verdict = overall(stage, prover)
    _stamp(stage.model, asked, steps)
    if place is not None:
        files.save(stage.model, place)
    report = Report(
        source=files.name_of(model),
        output=None if out is None else str(out),
        pipeline=syntax.unparse(asked),
        target=str(getattr(links[-1][0], "target", target)),
        before=before,
        batch=BATCH,
        length=LENGTH,
        steps=steps,
        verdict=verdict,
        oldest_onnxruntime=_oldest_onnxruntime(stage.model),
        versions=versions(),
        seconds=time.perf_counter() - started,
        alone=prover.alone,
        remark=prover.remark,
        rows="; ".join(of_rows),
    )
    return Result(stage.model, report)


def _step(item: Pass, needed_by: str | None, stage: Stage, before: Cost, prover: Prover) -> tuple[Stage, Step]:
    """Run and prove one pass on a model that costs `before`."""
    started = time.perf_counter()
    text = syntax.unparse([item])
    with blame(item):
        following, verdict, log = _proved(item, stage, prover)
        check_expected(item, log)
    seconds = time.perf_counter() - started
    spent = cost(following.model) if verdict else before
    decided = syntax.unparse([replace(item, **log.decided)]) if log.decided else text  # type: ignore[arg-type]
    skipped = _skipped(log)
    return following, Step(text, decided, needed_by, log.done, log.taken, log.notes, skipped, spent, seconds, verdict)


def _proved(item: Pass, stage: Stage, prover: Prover) -> tuple[Stage, Verdict | None, Log]:
    """Run a pass and prove it, if need be without what fails; return the next stage, what was measured, and the log."""

    def new_log() -> Log:
        return Log(trial=Trial(prover, stage.outputs))

    def attempt(log: Log) -> tuple[Stage, Verdict | None]:
        after = run(item, stage.model, log)
        if not log.count:
            return stage, None
        contract = replace(item, **log.decided).contract  # type: ignore[arg-type]
        change = Change(item.name, contract, after, item.provider, lambda model: run(item, model, log.again()))
        return prove(change, stage, prover)

    log = new_log()
    try:
        found = attempt(log)
    except FAILURES as error:
        if item.contract.spends:
            raise
        found, log = leave_out(attempt, log, error, new_log)
    return *found, log


def _skipped(log: Log) -> list[str]:
    """Return what was left alone, in words: all that a pass names, and the nearest miss when nothing was done."""
    said = [f"{miss.where}: {miss.why}" for miss in log.misses if not miss.depth]
    nearest = log.nearest()
    if not log.count and nearest is not None and nearest.depth:
        said.append(f"nearest: {nearest.where}: {nearest.why}")
    return list(dict.fromkeys(said))


def _stamp(model: ir.Model, asked: Sequence[Pass], steps: Sequence[Step]) -> None:
    """Leave in the metadata only what is ffc's, and note the pipeline if it changed anything."""
    for key in [key for key in model.metadata_props if not key.startswith("ffc.")]:
        del model.metadata_props[key]
    model.graph.metadata_props.clear()
    if any(step.changes for step in steps):
        made_with = versions()
        model.metadata_props["ffc.pipeline"] = syntax.unparse(asked)
        model.metadata_props["ffc.version"] = made_with["ffc"]
        model.producer_name, model.producer_version = "ffc", made_with["ffc"]


def _oldest_onnxruntime(model: ir.Model) -> str:
    """Return the oldest version that is known to run a model: for what is newer than opset 23, the one at hand."""
    if model.opset_imports.get("", OPSET) > OPSET:
        return ".".join(versions()["onnxruntime"].split(".")[:2])
    called = {node.op_type for node in model.graph.all_nodes() if not node.domain}
    return max([_OLDEST_ONNXRUNTIME, *(version for name, version in _LATER.items() if name in called)])


def versions() -> dict[str, str]:
    """Return the versions of ffc and of the libraries that shape what it writes."""
    names = {"ffc": "fastformers-compiler", "onnx": "onnx", "onnx-ir": "onnx-ir", "onnxruntime": "onnxruntime"}
    found = {}
    for name, distribution in names.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "uninstalled"
    return found
