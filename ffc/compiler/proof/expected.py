"""Holding a model to outputs that are known: rows that a pass brings, with what shall come of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ffc.compiler.proof.contracts import Contract, Verdict
from ffc.compiler.proof.rows import from_data
from ffc.compiler.proof.verify import Outputs, hold, measure
from ffc.errors import InputError
from ffc.graph.execute import Runner

__all__ = ["judge"]


def judge(contract: Contract, model: ir.Model, rows: Mapping[str, np.ndarray]) -> Verdict:
    """Hold the result of a pass to `contract` on `rows`, as `KnownRows` has them; outputs that they lack do not count.

    Raises:
        InputError: If the arrays do not fit the model.
        GateError: If the contract does not hold.
    """
    batches = from_data(model, rows)
    runner = Runner(model)
    wanted = [str(value.name) for value in model.graph.outputs if value.name in rows]
    found: Outputs = []
    for batch in batches:
        outputs = runner.run(batch.feeds)
        found.append({name: outputs[name] for name in wanted})
    known = {name: _split(name, rows[name], [outputs[name] for outputs in found]) for name in wanted}
    before = [{name: known[name][place] for name in wanted} for place in range(len(found))]
    return hold(contract, measure(batches, before, found, str(contract)))


def _split(name: str, array: np.ndarray, found: list[np.ndarray]) -> list[np.ndarray]:
    """Cut the rows expected of an output into the batches that were run, in its type."""
    given, shape = np.asarray(array), [sum(len(part) for part in found), *found[0].shape[1:]]
    if list(given.shape) != shape:
        raise InputError(f"the array '{name}' is {list(given.shape)}, the model gives {shape} on these rows")
    if given.dtype.kind not in "biuf" or not np.isfinite(given).all():
        raise InputError(f"the array '{name}' must hold finite numbers")
    return np.split(given.astype(found[0].dtype), np.cumsum([len(part) for part in found])[:-1])
