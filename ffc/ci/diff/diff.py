"""Two models side by side: what changed, and what it costs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from ffc.ci.diff.changes import Change
from ffc.ci.diff.compare import compare
from ffc.ci.diff.groups import Group, groups
from ffc.ci.matching.growth import Matching
from ffc.ci.matching.snapshot import Snapshot, of_model
from ffc.graph import files
from ffc.graph.cost import Cost, cost, is_parameter
from ffc.graph.files import ModelLike

if TYPE_CHECKING:
    from ffc.compiler.proof.rows import Data

__all__ = ["Diff", "diff"]


@dataclass(frozen=True, eq=False)
class Diff:
    """What changed between two models.

    Attributes:
        before: One model as records.
        after: The other.
        costs: What each costs, multiply-accumulates at batch 1 and 128 tokens.
        changes: What changed.
        matching: Which node of the main graph is which.
    """

    before: Snapshot
    after: Snapshot
    costs: tuple[Cost, Cost]
    changes: tuple[Change, ...]
    matching: Matching

    @property
    def equal(self) -> bool:
        """Whether nothing changed."""
        return not self.changes

    @property
    def groups(self) -> list[Group]:
        """The changes, those that say the same together."""
        return groups(self.changes)


def diff(
    before: ModelLike,
    after: ModelLike,
    *,
    names: bool = False,
    numerics: bool = False,
    data: Data | None = None,
    progress: Callable[[str], None] | None = None,
) -> Diff:
    """Compare two models by meaning: names inside, the order of nodes and where weights are kept do not matter.

    Args:
        before: As `ffc.load` takes it.
        after: The other.
        names: Whether names of nodes count as well.
        numerics: Whether to run both on the same seeded inputs and compare what they give.
        data: Rows of the user's own to run both on too, as `ffc.compile` takes them; then they are run anyway.
        progress: Called with a line on what was taken of the rows.

    Raises:
        InputError: If a model is missing or broken, or rows do not fit.
        UsageError: If either is no model.
        CannotApplyError: If numbers are to be compared of models that do not take and give the same.
        MissingError: If rows are text, and the package `tokenizers` is not installed.
    """
    numerics = numerics or data is not None
    if data is not None:
        from ffc.compiler.proof.rows import settled

        data = settled(data, before)
    with ThreadPoolExecutor(2) as pool:  # one is hashed, which lets go of the interpreter, while the other is read
        first, second = pool.map(functools.partial(_read, to_run=numerics), (before, after))
    matching, changes = compare(first.snapshot, second.snapshot, names=names)
    if numerics:
        from ffc.ci.diff.numerics import compare_outputs, numeric_change  # onnxruntime, which only this needs

        change = numeric_change(compare_outputs(first.model, second.model, data, progress))
        changes += [] if change is None else [change]
    return Diff(first.snapshot, second.snapshot, (first.cost, second.cost), tuple(changes), matching)


@dataclass(frozen=True, eq=False)
class _Side:
    """A model, as records, and what it costs."""

    model: ir.Model
    snapshot: Snapshot
    cost: Cost


def _read(model: ModelLike, to_run: bool) -> _Side:
    held = files.in_memory(model)
    opened = files.load(model, lazily=True, to_run=to_run) if held is None else held
    snapshot = of_model(opened, files.name_of(model))
    return _Side(opened, snapshot, _cost(opened, snapshot))


def _cost(model: ir.Model, snapshot: Snapshot) -> Cost:
    """Return what a model costs, its constants counted as weights whether they are initializers or nodes."""
    tensors = {id(weight.tensor): weight.tensor for weight in snapshot.weights() if weight.tensor is not None}
    return replace(
        cost(model),
        nodes=len(snapshot.graph.nodes),
        parameters=sum(tensor.size for tensor in tensors.values() if is_parameter(tensor)),
        bytes=sum(tensor.nbytes for tensor in tensors.values()),
    )
