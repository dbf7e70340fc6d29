"""The model in the middle of a pipeline, before the pass that fails."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from ffc.ci.reduce.cases import child
from ffc.ci.reduce.cases.case import Case
from ffc.compiler.chain import chain, run, with_lower
from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.errors import FfcError
from ffc.graph import files

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """Runs a part of a pipeline, unproved.

    Attributes:
        library: Where passes come from that others need.
        target: What to lower to.
        seconds: How long it may take.
    """

    library: Library
    target: str
    seconds: float

    def before(self, case: Case, step: str) -> ir.Model | None:
        """Return the model of `case` as the pass `step` finds it, None where that cannot be had."""
        with tempfile.TemporaryDirectory(prefix="ffc-reduce-") as folder:
            path = Path(folder) / "stage.onnx"
            ending = child.run(lambda tell: self._run(case, step, path), self.seconds)
            try:
                return files.load(path) if ending.result else None
            except FfcError:
                return None

    def _run(self, case: Case, step: str, path: Path) -> bool:
        model = case.model
        for item, _ in with_lower(chain(case.passes, self.library), self.library, self.target):
            if item.name == step:
                files.save(model, path)
                return True
            model = run(item, model, Log())
        return False
