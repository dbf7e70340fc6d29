"""Two models side by side: what changed, and what it costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ffc.ci.diff.changes import Change
from ffc.ci.diff.compare import compare
from ffc.ci.diff.matching import Matching
from ffc.ci.diff.snapshot import Snapshot, of_model
from ffc.errors import UsageError
from ffc.graph import files
from ffc.graph.cost import Cost, cost

__all__ = ["Diff", "diff"]


@dataclass(frozen=True, eq=False)
class Diff:
    """What changed between two models.

    Attributes:
        before, after: The models as records.
        costs: What each costs at batch 1 and 128 tokens.
        changes: What changed, interface first.
        matching: Which node is which.
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


def diff(before: str | Path | ir.Model, after: str | Path | ir.Model, *, names: bool = False) -> Diff:
    """Compare two models by meaning: names inside, the order of nodes and where weights are kept do not matter.

    Args:
        before: A path, or a model in memory.
        after: The other.
        names: Whether names of nodes count as well.

    Raises:
        InputError: If a model is missing or broken.
        UsageError: If either is neither path nor model.
    """
    with ThreadPoolExecutor(2) as pool:  # hashing is most of the time, and lets go of the interpreter
        (first, was), (second, now) = pool.map(_read, (before, after))
    matching, changes = compare(first, second, names=names)
    return Diff(first, second, (was, now), tuple(changes), matching)


def _read(model: str | Path | ir.Model) -> tuple[Snapshot, Cost]:
    if not isinstance(model, str | Path | ir.Model):
        raise UsageError(f"a model is a path or an onnx_ir.Model, not {type(model).__name__}")
    if isinstance(model, ir.Model):
        return of_model(model, "a model in memory"), cost(model)
    loaded = files.load(model, lazily=True)
    return of_model(loaded, str(model)), cost(loaded)
