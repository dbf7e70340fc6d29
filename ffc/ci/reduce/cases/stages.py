"""The model in the middle of a pipeline, before the pass that fails."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from ffc.ci.reduce.cases import child
from ffc.ci.reduce.cases.case import Case
from ffc.compiler.chain import chain, fitting, run, with_lower
from ffc.compiler.library import Library
from ffc.compiler.log import Log
from ffc.errors import FfcError
from ffc.graph import files

__all__ = ["before"]


def before(case: Case, step: str, library: Library, target: str, seconds: float) -> ir.Model | None:
    """Return the model of `case` as the pass `step` finds it, None where that cannot be had in `seconds`."""

    def work(tell: object) -> bool:
        model = case.model
        for item, _ in fitting(with_lower(chain(case.passes, library), library, target), model):
            if item.name == step:
                files.save(model, path)
                return True
            model = run(item, model, Log())
        return False

    with tempfile.TemporaryDirectory(prefix="ffc-reduce-") as folder:
        path = Path(folder) / "stage.onnx"
        ending = child.run(work, seconds)
        try:
            return files.load(path) if ending.result else None
        except FfcError:
            return None
