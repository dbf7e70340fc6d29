"""The model as it came, run on what can be found for it: inputs that are made, and rows of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.probes import Probe, feeds_at, make, understood
from ffc.compiler.proof.probing.layout import Layout
from ffc.compiler.proof.probing.search import search
from ffc.compiler.proof.probing.tower import Meaning
from ffc.compiler.proof.rows import Data, feeds_of
from ffc.compiler.proof.verify import Prover
from ffc.errors import CannotApplyError, InputError
from ffc.graph.dialect.widen import runnable
from ffc.graph.execute import Runner

__all__ = ["opened"]


def opened(
    model: ir.Model, data: Data | None = None, tell: Callable[[str], None] = lambda line: None
) -> Prover:
    """Run `model` on inputs that are made for it, at sizes that it takes, and on rows of the user's own.

    Args:
        model: The model as it came.
        data: The rows, as `ffc.compiler.proof.rows.from_data` takes them.
        tell: Called with a line on what was taken of the rows.

    Raises:
        InputError: If onnxruntime refuses the model, the rows do not fit, or the model does not run on them; if there
            are none and it runs on nothing that was tried; and as `Prover` says.
    """
    try:
        runner = Runner(runnable(model))
    except CannotApplyError as error:  # nothing was done to it yet
        raise InputError(f"{error}; it is broken, or made for another runtime") from error
    given = {} if data is None else feeds_of(model, data, runner=runner, tell=tell)
    meaning = understood(model, runner, list(given.values())[:1])
    probes, remark = make(model, meaning=meaning), ""
    if not any(_runs(runner, probe.feeds) for probe in probes):
        found = _sizes(model, meaning, runner, list(given.values()))
        if found:
            meaning = understood(model, runner, list(given.values())[:1], found[:1])
            probes = make(model, meaning=meaning, sizes=found)
            remark = _at_one_size(meaning.layout, found, list(given.values()))
    rows = [Probe.of(name, feeds, meaning, required=True) for name, feeds in given.items()]
    return Prover(model, [*probes, *rows], runner, remark)


def _runs(runner: Runner, feeds: Mapping[str, np.ndarray]) -> bool:
    try:
        runner.run(feeds)
    except CannotApplyError:
        return False
    return True


def _sizes(
    model: ir.Model, meaning: Meaning, runner: Runner, given: Sequence[Mapping[str, np.ndarray]]
) -> list[Mapping[str, int]]:
    """Return sizes at which a model runs, those of the user's rows first."""
    layout = meaning.layout
    if not layout.rows and not layout.others:
        return []
    first = layout.bind(given[0]) if given else None
    return search(model, layout, lambda sizes: _runs(runner, feeds_at(model, meaning, sizes)), first)


def _at_one_size(
    layout: Layout, found: Sequence[Mapping[str, int]], given: Sequence[Mapping[str, np.ndarray]]
) -> str:
    """Say which free axes have one size alone at which a model runs, the user's rows among it; empty if none has."""
    sizes = [*found, *map(layout.bind, given)]
    bound = [name for name in sizes[0] if name not in layout.fixed and len({each[name] for each in sizes}) == 1]
    if not bound:
        return ""
    shapes = ", ".join(f"{name} {list(layout.shape(name, sizes[0]))}" for name in layout.shapes)
    axes, place = ", ".join(f"'{name}'" for name in bound), "the rows given" if given else "its export"
    other = "give rows of other sizes too, or" if given else "to serve others,"
    return (
        f"the model calls {axes} free and ran at the size of {place} alone, {shapes}; {other} export it "
        "with torch.onnx.export(..., dynamo=True, dynamic_shapes=...)"
    )
