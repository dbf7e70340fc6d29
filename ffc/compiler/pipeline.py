"""The run loop: load, one pass after another, each on a clone and proved before the next, and save."""

from __future__ import annotations

import importlib.metadata
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ffc.compiler import probes, spec
from ffc.compiler.base import Budget, Log, Pass
from ffc.compiler.library import Library
from ffc.compiler.plain import dequantised, holds_int8
from ffc.compiler.report import Report, Step, Verdict
from ffc.compiler.tidy import tidy
from ffc.compiler.verify import Outputs, Prover, measure
from ffc.errors import CannotApplyError, FfcError, GateError, UsageError, nearest
from ffc.graph import files
from ffc.graph.cost import cost

__all__ = ["Result", "compile"]

BATCH, LENGTH = 1, 128
"""Where MACs are counted."""

# Opset 23 is refused by 1.22.1 and runs in 1.23.2, kernels included: tried with both.
_OLDEST_ONNXRUNTIME = "1.23"


@dataclass(frozen=True, eq=False)
class Result:
    """A compiled model.

    Attributes:
        model: The model, standard operators and kernels of onnxruntime only.
        report: What was done, proved and measured.
    """

    model: ir.Model
    report: Report


@dataclass(frozen=True, eq=False)
class _Stage:
    """A model between two passes, with what it gives on the probes.

    Attributes:
        model: The model.
        outputs: Its outputs, int8 products included.
        last_fp32: Outputs of the last stage without int8 products, against which int8's budget holds.
        budget: That budget, once there is one.
    """

    model: ir.Model
    outputs: Outputs
    last_fp32: Outputs
    budget: Budget | None = None


def compile(
    model: str | Path | ir.Model,
    passes: str | Sequence[Pass] = "fuse,int8",
    *,
    out: str | Path | None = None,
    data: str | Path | Mapping[str, np.ndarray] | None = None,
    target: str = "cpu",
    sets: Mapping[str, str] | Sequence[str] = (),
    plugins: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Compile a model: run passes over it, prove each, and end with kernels for a target.

    Args:
        model: A path, or a model in memory, which stays as it is.
        passes: The pipeline, as text (``"prune{plan=p.json},fuse,int8"``) or as passes.
        out: Where to write the result; nothing is written unless everything holds.
        data: Rows of the user's own to prove on too: an array per input, or an ``.npz`` file with them.
        target: What `lower` writes: ``cpu`` for onnxruntime's CPU kernels, ``portable`` for standard operators alone.
        sets: Further options as ``pass.option=value``.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
        progress: Called with a line at every step.

    Returns:
        The compiled model and the report.

    Raises:
        UsageError: If the pipeline is malformed, or `out` is the input.
        InputError: If the model or the data is missing, broken, or differs from itself.
        CannotApplyError: If a pass cannot be applied as asked.
        GateError: If a contract does not hold.
    """
    started = time.perf_counter()
    tell = progress or (lambda line: None)
    library = Library.default(plugins)
    asked = spec.parse(passes, library, sets) if isinstance(passes, str) else _checked(passes)
    chain = _chain(asked, library, target)
    if out is not None and isinstance(model, str | Path) and Path(out).resolve() == Path(model).resolve():
        raise UsageError(f"the output is the input, {out}; give another path with -o")
    source = _open(model)
    rows = [] if data is None else probes.from_data(source, data)
    tell("running the model as it came")
    prover = Prover(source, [*probes.make(source), *rows])
    before = cost(source, BATCH, LENGTH)
    stage = _Stage(source, prover.source, prover.source)
    steps: list[Step] = []
    for item, needed_by in chain:
        tell(f"{item.name} ...")
        stage, step = _step(item, needed_by, stage, steps, prover)
        steps.append(step)
    verdict = _overall(prover, stage)
    _stamp(stage.model, asked, steps)
    if out is not None:
        files.save(stage.model, out)
    report = Report(
        source=str(model) if isinstance(model, str | Path) else "a model in memory",
        output=None if out is None else str(out),
        pipeline=spec.unparse(asked),
        target=str(getattr(chain[-1][0], "target", target)),
        before=before,
        batch=BATCH,
        length=LENGTH,
        steps=steps,
        verdict=verdict,
        oldest_onnxruntime=_OLDEST_ONNXRUNTIME,
        versions=_versions(),
        seconds=time.perf_counter() - started,
    )
    return Result(stage.model, report)


def _checked(passes: Sequence[Pass]) -> list[Pass]:
    for item in passes:
        if not isinstance(item, Pass):
            raise UsageError(f"{item!r} is no pass; give a pipeline as text, or instances of passes")
    return list(passes)


def _open(model: str | Path | ir.Model) -> ir.Model:
    if isinstance(model, ir.Model):
        return _clone(model)
    if not isinstance(model, str | Path):
        raise UsageError(f"a model is a path or an onnx_ir.Model, not {type(model).__name__}")
    loaded = files.load(model)
    loaded.meta["ffc.path"] = Path(model)
    return loaded


def _chain(asked: Sequence[Pass], library: Library, target: str) -> list[tuple[Pass, str | None]]:
    """Return the passes to run, each with what it was inserted for: `opset` first, needs, `lower` last."""
    chain: list[tuple[Pass, str | None]] = []
    after_int8 = False
    for item in asked:
        if item.before_int8 and after_int8:
            raise CannotApplyError(f"'{item.name}' comes after 'int8' in the pipeline; put it before")
        _add(item, None, chain, library)
        after_int8 = after_int8 or item.name == "int8"
    early = next((item.name for item, _ in chain[:-1] if item.name == "lower"), None)
    if early:
        raise UsageError("'lower' ends every compile; put no pass after it")
    if not chain or chain[-1][0].name != "lower":
        lower = spec.parse(f"lower{{target={target}}}", library)[0]
        chain.append((lower, "every compile"))
    if all(item.name != "opset" for item, _ in chain):
        chain.insert(0, (library["opset"](), "every compile"))
    return chain


def _add(
    item: Pass,
    needed_by: str | None,
    chain: list[tuple[Pass, str | None]],
    library: Library,
    waiting: tuple[str, ...] = (),
) -> None:
    """Append a pass to `chain`, what it needs before it; `waiting` are the passes that it is needed for."""
    if item.name in waiting:
        raise UsageError(f"passes need each other in a circle: {' → '.join([*waiting, item.name])}")
    for need in item.needs:
        if need not in library:
            raise UsageError(f"pass '{item.name}' needs '{need}', which is no pass{nearest(need, library)}")
        if all(done.name != need for done, _ in chain):
            _add(library[need](), item.name, chain, library, (*waiting, item.name))
    chain.append((item, needed_by))


def _step(item: Pass, needed_by: str | None, stage: _Stage, steps: list[Step], prover: Prover) -> tuple[_Stage, Step]:
    """Run and prove one pass."""
    started = time.perf_counter()
    text = spec.unparse([item])
    log = Log()
    try:
        after = _run(item, stage.model, log)
        _check_expected(item, log)
        if log.count:
            stage, verdict = _prove(item, stage, after, prover)
        else:
            verdict = None
    except FfcError as error:
        error.args = (_located(item.name, str(error)),)
        raise
    except Exception as error:
        if type(item).__module__.startswith("ffc."):  # a pass of the library: this is ffc's own fault
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CannotApplyError(f"pass '{item.name}' failed with {reason}; the fault is in the pass") from error
    seconds = time.perf_counter() - started
    spent = cost(stage.model, BATCH, LENGTH) if verdict or not steps else steps[-1].cost
    return stage, Step(text, needed_by, log.done, log.taken, log.notes, _skipped(log), spent, seconds, verdict)


def _clone(model: ir.Model) -> ir.Model:
    clone = model.clone()
    clone.meta.update(model.meta)  # where the model came from, which a clone forgets
    return clone


def _located(name: str, message: str) -> str:
    return message if message.startswith(f"pass '{name}'") else f"pass '{name}': {message}"


def _run(item: Pass, model: ir.Model, log: Log) -> ir.Model:
    """Run a pass on a clone of `model` and return the clone, tidied and checked."""
    clone = _clone(model)
    item.run(clone, log)
    if log.count:
        tidy(clone)
        _check_interface(model, clone)
    return clone


def _check_interface(before: ir.Model, after: ir.Model) -> None:
    """Refuse a change of what users of the model rely on: names, order, types, and shapes of inputs."""

    def interface(model: ir.Model) -> list[str]:
        inputs = [f"input {value.name} {value.dtype} {value.shape}" for value in model.graph.inputs]
        return inputs + [f"output {value.name} {value.dtype}" for value in model.graph.outputs]

    for was, now in itertools.zip_longest(interface(before), interface(after), fillvalue="nothing"):
        if was != now:
            raise GateError(f"it changes what the model takes and gives: {was} became {now}; nothing was written")


def _check_expected(item: Pass, log: Log) -> None:
    if item.expect is None or item.expect == log.count:
        return
    nearest = log.nearest()
    hint = f"; nearest: {nearest.where}: {nearest.why}" if nearest else ""
    raise CannotApplyError(f"made {log.count} changes where expect={item.expect}{hint}")


def _skipped(log: Log) -> list[str]:
    """Return what was left alone, in words: all that a pass names, and the nearest miss when nothing was done."""
    said = [f"{miss.where}: {miss.why}" for miss in log.misses if not miss.depth]
    nearest = log.nearest()
    if not log.count and nearest is not None and nearest.depth:
        said.append(f"nearest: {nearest.where}: {nearest.why}")
    return list(dict.fromkeys(said))


def _prove(item: Pass, stage: _Stage, after: ir.Model, prover: Prover) -> tuple[_Stage, Verdict]:
    """Hold the result of a pass to its contract; return the next stage and what was measured."""
    contract = item.contract
    outputs = prover.run(after)
    if isinstance(contract, Budget):
        verdict = prover.judge(contract, stage.outputs, outputs)
        if stage.budget is not None:  # so that budgets in a row do not add up
            prover.judge(stage.budget, stage.last_fp32, outputs, "held to the budget of int8")
        last = stage.last_fp32 if holds_int8(after) else outputs
        return _Stage(after, outputs, last, contract if holds_int8(after) else stage.budget), verdict
    if holds_int8(stage.model):
        plain = dequantised(stage.model)
        moved = dequantised(after) if holds_int8(after) else _run(item, plain, Log())
        verdict = prover.judge(contract, prover.run(plain), prover.run(moved))
        if stage.budget is not None:
            prover.judge(stage.budget, stage.last_fp32, outputs, "held to the budget of int8")
        return replace(stage, model=after, outputs=outputs), verdict
    differs = type(item).reference is not Pass.reference
    reference = prover.run(tidy(item.reference(_clone(stage.model)))) if differs else stage.outputs
    verdict = prover.judge(contract, reference, outputs)
    return _Stage(after, outputs, outputs, stage.budget), verdict


def _overall(prover: Prover, stage: _Stage) -> Verdict | None:
    if stage.outputs is prover.source:
        return None
    return measure(prover.probes, prover.source, stage.outputs, "measured against the model as it came")


def _stamp(model: ir.Model, asked: Sequence[Pass], steps: Sequence[Step]) -> None:
    """Leave in the metadata only what is ffc's, and note the pipeline if it changed anything."""
    for key in [key for key in model.metadata_props if not key.startswith("ffc.")]:
        del model.metadata_props[key]
    model.graph.metadata_props.clear()
    if any(step.changes for step in steps):
        versions = _versions()
        model.metadata_props["ffc.pipeline"] = spec.unparse(asked)
        model.metadata_props["ffc.version"] = versions["ffc"]
        model.producer_name, model.producer_version = "ffc", versions["ffc"]


def _versions() -> dict[str, str]:
    names = {"ffc": "fastformers-compiler", "onnx": "onnx", "onnx-ir": "onnx-ir", "onnxruntime": "onnxruntime"}
    found = {}
    for name, distribution in names.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "uninstalled"
    return found
