"""Reducing a model: what goes wrong with it, the smallest model with which it still does, and a reproducer of that."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from ffc.ci.reduce import reproducer
from ffc.ci.reduce.cases.case import Case, Reduction
from ffc.ci.reduce.cases.conditions import Command, Compiles, Condition, Holds
from ffc.ci.reduce.cases.search import Search
from ffc.ci.reduce.cases.strategies import shrink
from ffc.compiler.chain import as_passes, chain, open_model, with_lower
from ffc.compiler.library import Library
from ffc.compiler.passes import Pass
from ffc.errors import CannotApplyError, UsageError, one_line
from ffc.graph.files import ModelLike
from ffc.settings import libraries

__all__ = ["reduce"]

_DEFAULT = "fuse,int8"


def reduce(
    model: ModelLike,
    passes: str | Sequence[str | Pass] | None = None,
    *,
    when: Callable[[ir.Model], bool] | str | None = None,
    out: str | Path | None = None,
    sets: Mapping[str, str] | Sequence[str] = (),
    plugins: Sequence[str] = (),
    target: str = "cpu",
    timeout: float = 60,
    seconds: float = 600,
    progress: Callable[[str], None] | None = None,
) -> Reduction:
    """Find the smallest model and the shortest pipeline that still go wrong as a model does.

    Every candidate is run in a process of its own, so that crashes and hangs are failures like others; on systems other
    than Linux, where that is not safe, a crash ends this process.

    Args:
        model: As `ffc.load` takes it.
        passes: The pipeline, as `ffc.compile` takes it; ``fuse,int8`` if not given.
        when: What must hold of a candidate, in place of the failure of its compile: a command that ends with status 0
            where it does, such as ``"python check.py {model}"`` (``{inputs}`` is an ``.npz`` file of inputs,
            ``{passes}`` the pipeline, which is reduced only then), or a function.
        out: A folder for the reproducer, which is written whole or not at all.
        sets: Further options as ``pass.option=value``.
        plugins: Files with passes, ``file.py`` or ``file.py:Name``.
        target: What `lower` writes.
        timeout: Seconds that a candidate may take; a compile that takes longer counts as one that hangs.
        seconds: When to stop with the smallest found so far.
        progress: Called with a line at every step.

    Returns:
        What was found.

    Raises:
        UsageError: If the request is malformed, or `out` is there already.
        InputError: If the model cannot be loaded.
        CannotApplyError: If nothing goes wrong with the whole model.
        MissingError: If the command of `when` cannot be run, or a library that most compiles need is not installed.
    """
    started = time.monotonic()
    tell = progress or (lambda line: None)
    libraries.check(libraries.CONVERSION)
    condition = _condition(when, passes, plugins, target, timeout)
    library = Library.default(plugins)
    asked = as_passes((_DEFAULT if passes is None else passes) if condition.by_passes else [], library, sets)
    with_lower(chain(asked, library), library, target)  # what is wrong with a pipeline on any model
    if out is not None:
        reproducer.check_target(Path(out))
    whole = Case(_opened(model), tuple(asked))
    _import_early()
    tell(f"{whole.nodes} nodes: looking what goes wrong")
    failure = condition.check(whole)
    if isinstance(failure, str):
        raise CannotApplyError(_refusal(condition, whole, failure))
    tell(f"{failure.kind}{f' in {failure.step}' if failure.step else ''}: {one_line(failure.message, 200)}")
    search = Search(whole, failure, condition, started + seconds, tell, tried=1)
    finished = shrink(search, library, target, timeout)
    found = _found(search, whole, time.monotonic() - started, finished)
    if out is None:
        return found
    return dataclasses.replace(found, reproduced=reproducer.write(found, condition, library, Path(out)))


def _found(search: Search, whole: Case, seconds: float, finished: bool) -> Reduction:
    best = search.best
    return Reduction(
        model=best.model,
        passes=best.passes,
        pipeline=best.pipeline,
        failure=search.failure,
        nodes_before=whole.nodes,
        nodes=best.nodes,
        weights_before=whole.weights,
        weights=best.weights,
        tried=search.tried,
        seconds=seconds,
        finished=finished,
    )


def _condition(
    when: Callable[[ir.Model], bool] | str | None,
    passes: str | Sequence[str | Pass] | None,
    plugins: Sequence[str],
    target: str,
    timeout: float,
) -> Condition:
    if when is None:
        return Compiles(tuple(plugins), target, timeout)
    condition = Command.parse(when, timeout) if isinstance(when, str) else Holds(when, timeout)
    if passes is not None and not condition.by_passes:
        raise UsageError("a pipeline has no effect with --when; write {passes} where its command takes it")
    return condition


def _opened(model: ModelLike) -> ir.Model:
    opened = open_model(model)
    common.NameFixPass()(opened)  # values of a model in memory may have none
    for node in opened.graph.all_nodes():
        node.metadata_props.clear()  # where an exporter notes the files of the machine it ran on
    return opened


def _refusal(condition: Condition, whole: Case, said: str) -> str:
    if isinstance(condition, Compiles):
        advice = "give the pipeline that fails by --passes, or another condition by --when"
        return f"nothing to reduce: with {whole.pipeline!r} {said}; {advice}"
    wanted = "exit with status 0" if isinstance(condition, Command) else "return True"
    return f"nothing to reduce: the condition of --when must {wanted} on the whole model, and {said}"


def _import_early() -> None:
    """Import what every compile needs, so that the processes forked for candidates find it there."""
    import onnx.reference
    import onnxscript.version_converter

    import ffc.compiler.pipeline

    assert onnx.reference and onnxscript.version_converter and ffc.compiler.pipeline
