"""What two models give on the same inputs."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ffc.ci.diff.changes import Change
from ffc.compiler.proof.contracts import Equal, Verdict
from ffc.compiler.proof.opening import opened
from ffc.compiler.proof.rows import Data
from ffc.compiler.proof.verify import measure
from ffc.errors import CannotApplyError

__all__ = ["compare_outputs", "numeric_change"]


def compare_outputs(
    before: ir.Model, after: ir.Model, data: Data | None = None, progress: Callable[[str], None] | None = None
) -> Verdict:
    """Run two models on the same seeded inputs, masks full, padded and holed among them, and measure the difference.

    Args:
        before: The one that is the reference.
        after: The other.
        data: Rows to run both on too, as `ffc.compile` takes them.
        progress: Called with a line on what was taken of the rows.

    Raises:
        CannotApplyError: If they do not take and give the same, or the one after does not run.
        InputError: If the one before does not run or differs from itself, or the rows do not fit it.
    """
    for what, first, second in (
        ("input", before.graph.inputs, after.graph.inputs),
        ("output", before.graph.outputs, after.graph.outputs),
    ):
        names = [{str(value.name) for value in side} for side in (first, second)]
        if names[0] != names[1]:
            odd = min(names[0] ^ names[1])
            side = "first" if odd in names[0] else "second"
            raise CannotApplyError(
                f"numbers cannot be compared: only the {side} model has the {what} '{odd}'; "
                "compare without numerics, or models that take and give the same"
            )
    prover = opened(before, data, progress or (lambda line: None))
    return measure(prover.probes, prover.source, prover.run(after), "same inputs")


def numeric_change(verdict: Verdict) -> Change | None:
    """Return what was measured as a change, or None within the tolerance of equality."""
    if verdict.difference <= Equal().tolerance:
        return None
    agreement = "" if verdict.agreement is None else f", agreement {verdict.agreement:.4f}"
    what = f"outputs differ by {verdict.difference:.1e} of their scale, cosine {verdict.cosine:.6f}{agreement}"
    detail = {"difference": verdict.difference, "cosine": verdict.cosine, "agreement": verdict.agreement}
    return Change("numerics", what, verdict.worst, detail=detail)
